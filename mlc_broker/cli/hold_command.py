"""`mlc-broker hold`: what a court or a complaint needs is neither purged nor erased meanwhile."""

from __future__ import annotations

from typing import Any

import click
import trio

from mlc_broker.cli import telephone
from mlc_broker.cli.common import config_option, json_option, print_json, say
from mlc_broker.config import Config
from mlc_broker.model.errors import BrokerError

_org = click.option("--org", required=True, metavar="ORG", help="The organization.")
_user = click.option("--user", default="", metavar="USER", help="One person alone.")


@click.group()
def hold() -> None:
    """Legal holds: what is held stays, whatever retention or an erasure says."""


@hold.command()
@_org
@_user
@click.option("--reason", required=True, help="Why: stands in the written policy.")
@click.option("--by", default="command line", show_default=True, help="Who asked for it.")
@config_option
def add(config: Config, org: str, user: str, reason: str, by: str) -> None:
    """Begin a hold on an organization, or on one person of it."""
    if not reason.strip():
        raise click.UsageError("--reason is empty: tell why, for whoever reads the policy")
    _ask(config, organization_id=org, user_id=user, reason=reason.strip(), set_by=by)
    say(f"held: {_whom(org, user)}")


@hold.command()
@_org
@_user
@config_option
def remove(config: Config, org: str, user: str) -> None:
    """End a hold: what has expired meanwhile goes with the next purge, erasures go on."""
    if not _ask(config, organization_id=org, user_id=user, end=True)["ended"]:
        raise BrokerError(f"there is no hold on {_whom(org, user)}: see mlc-broker hold list")
    say(f"no longer held: {_whom(org, user)}")


@hold.command(name="list")
@json_option
@config_option
def list_(config: Config, as_json: bool) -> None:
    """Show what is held, since when, and why."""
    from mlc_broker.store.holds import holds_in

    holds = holds_in(config.data_path)
    if as_json:
        print_json(holds)
        return
    for one in holds:
        since = f"{one.at:%Y-%m-%d}, by {one.set_by}"
        click.echo(f"{_whom(one.organization_id, one.user_id)}: {one.reason} (since {since})")
    if not holds:
        say("nothing is held")


def _ask(config: Config, **asked: Any) -> Any:
    if telephone.runs(config):
        return telephone.ask(config, "hold", seconds_max=600.0, **asked)
    return trio.run(_offline, config, asked)


async def _offline(config: Config, asked: dict[str, Any]) -> Any:
    from mlc_broker.cli.caring_offline import caring_offline

    async with caring_offline(config) as (caring, _, _):
        return await caring.verbs()["hold"](asked)  # type: ignore[misc]


def _whom(organization_id: str, user_id: str) -> str:
    return f"{user_id} of {organization_id}" if user_id else f"all of {organization_id}"
