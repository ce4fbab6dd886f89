"""`mlc-broker tail`: what flows, a line an event, as it is stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from mlc_broker.cli.admin import NoDaemon, admin_client, printable
from mlc_broker.cli.common import config_option, json_option, say
from mlc_broker.config import Config
from mlc_broker.model.errors import BrokerError
from mlc_broker.model.principal import CATEGORIES

AGAIN_SECONDS = 1.0
_WORDS_MAX = 4  # of an event's properties on its line
_HIDDEN = {"game_id"}  # has its own place on the line


@click.command("tail")
@click.option("--type", "event_type", multiple=True, help="Only this event type; repeatable.")
@click.option("--category", multiple=True, type=click.Choice(CATEGORIES),
              help="Only this category; repeatable.")  # fmt: skip
@click.option("--org", "organization_id", help="One organization; then people have their own ids.")
@click.option("--user", "user_id", multiple=True, help="Only this person's events.")
@click.option("--class", "class_id", multiple=True, help="Only this class.")
@click.option("--game", "game_id", multiple=True, help="Only this game.")
@click.option("--once", is_flag=True, help="End after the first event.")
@json_option
@config_option
def tail(config: Config, *, as_json: bool, once: bool, **filters: Any) -> None:
    """Show events as the running daemon stores them, until Ctrl-C.

    Across organizations people appear under pseudonyms. What you look at is written into the
    access log.
    """
    query = {name: value for name, value in filters.items() if value}
    for data in _events(config, query, once=once):
        click.echo(data.decode() if as_json else line_of(msgspec.json.decode(data)))
        if once:
            return


def line_of(event: dict[str, Any]) -> str:
    """Return an event as one line for people."""
    context = event.get("context") or {}
    properties = event.get("properties") or {}
    classes = (event.get("meta") or {}).get("class_ids") or [context.get("class_id")]
    place = [classes[0], context.get("assignment_id"), properties.get("game_id")]
    words = [
        f"{name}={value}"
        for name, value in properties.items()
        if name not in _HIDDEN and isinstance(value, str | int | float)
    ]
    parts = [
        event["timestamp"][11:23],
        f"{event['event_type']:<24}",
        f"{event.get('organization_id') or '-'}/{event.get('user_id') or '-'}",
        *(str(some) for some in place if some),
        *words[:_WORDS_MAX],
    ]
    return "  ".join(printable(part)[:60] for part in parts)


def _events(config: Config, query: dict[str, Any], *, once: bool) -> Iterator[bytes]:
    """Yield stored events; what comes while the daemon is started anew is not left out."""
    cursor = ""
    while True:
        try:
            for said in admin_client(config).listen("/v1/live", query, after=cursor):
                cursor = said.id or cursor
                if not said.event:
                    yield said.data
                elif said.event == "gap":
                    say("some events are left out here: they were sealed meanwhile")
        except NoDaemon as error:
            if once or not cursor:
                raise
            _wait(error)


def _wait(error: BrokerError) -> None:
    say(f"{error}; trying again")
    time.sleep(AGAIN_SECONDS)
