"""`mlc-broker purge`: what retention says, now. A running daemon does it itself."""

from __future__ import annotations

from typing import Any

import click
import trio

from mlc_broker.cli import telephone
from mlc_broker.cli.common import config_option, json_option, print_json
from mlc_broker.config import Config


@click.command()
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@click.option("--confirm", is_flag=True, help="The clock is right, although it jumped.")
@json_option
@config_option
def purge(config: Config, dry_run: bool, confirm: bool, as_json: bool) -> None:
    """Remove what has expired, so that no byte of it is left. It is done every night anyway."""
    if telephone.runs(config):
        told = telephone.ask(config, "purge", seconds_max=3600.0, dry_run=dry_run, confirm=confirm)
    else:
        told = trio.run(_offline, config, dry_run, confirm)
    if as_json:
        print_json(told)
        return
    if dry_run:
        for name, count in (told.get("by_class") or {}).items():
            click.echo(f"{name}: {count} events have expired")
        click.echo(f"would remove {told['events']} events")
        return
    rest = "".join(f", {count} from {place}" for place, count in told["elsewhere"].items() if count)
    click.echo(f"removed {told['events']} events{rest}")


async def _offline(config: Config, dry_run: bool, confirm: bool) -> Any:
    from mlc_broker.cli.caring_offline import caring_offline

    async with caring_offline(config) as (caring, _, _):
        return await caring.verbs()["purge"]({"dry_run": dry_run, "confirm": confirm})  # type: ignore[misc]
