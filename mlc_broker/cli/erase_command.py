"""`mlc-broker erase`: forget a person. `--cancel` within the days of grace."""

from __future__ import annotations

from typing import Any

import click
import trio

from mlc_broker.cli import telephone
from mlc_broker.cli.common import config_option, json_option, print_json, say
from mlc_broker.config import Config


@click.command()
@click.argument("user_id")
@click.option("--org", required=True, metavar="ORG", help="The person's organization.")
@click.option("--immediately", is_flag=True, help="Without the days of grace.")
@click.option("--by", default="command line", show_default=True, help="Who asked for it.")
@json_option
@config_option
def erase(
    config: Config, user_id: str, org: str, immediately: bool, by: str, as_json: bool
) -> None:
    """Erase everything about USER_ID: events, roster, consents, quarantine, metrics.

    A signed record of what was deleted remains in erased.jsonl; nobody can be known by it.
    """
    asked: dict[str, Any] = {
        "organization_id": org,
        "user_id": user_id,
        "immediately": immediately,
        "requested_by": by,
    }
    runs = telephone.runs(config)
    told = telephone.ask(config, "erase", **asked) if runs else trio.run(_offline, config, asked)
    if as_json:
        print_json(told)
        return
    click.echo(f"{told['id']}: {told['state']}, due {told['due']}")
    if not runs:
        say("no daemon runs: it is written down, and done when one is started")


async def _offline(config: Config, asked: dict[str, Any]) -> Any:
    from mlc_broker.cli.caring_offline import caring_offline

    async with caring_offline(config) as (caring, _, _):
        return await caring.verbs()["erase"](asked)  # type: ignore[misc]
