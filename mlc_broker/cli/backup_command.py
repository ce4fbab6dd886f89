"""`mlc-broker backup`: a copy of everything, while the daemon works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import trio

from mlc_broker.cli import telephone
from mlc_broker.cli.common import config_option, json_option, print_json, say
from mlc_broker.config import Config

BACKUP_SECONDS_MAX = 6 * 3600.0


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@json_option
@config_option
def backup(config: Config, directory: Path, as_json: bool) -> None:
    """Copy the data directory into DIRECTORY, which must be empty or not there yet.

    The secrets beside config.toml are not in it: keep a copy of them elsewhere.
    """
    target = str(directory.absolute())
    if telephone.runs(config):
        told = telephone.ask(config, "backup", seconds_max=BACKUP_SECONDS_MAX, directory=target)
    else:
        told = trio.run(_offline, config, target)
    if as_json:
        print_json(told)
        return
    click.echo(f"{told['directory']}: {told['files']} files, {told['bytes']} bytes")
    say("the secrets beside config.toml (*.key, *.secret, *.pepper) are not in it")


async def _offline(config: Config, target: str) -> Any:
    from mlc_broker.cli.caring_offline import caring_offline

    async with caring_offline(config) as (caring, _, _):
        return await caring.verbs()["backup"]({"directory": target})  # type: ignore[misc]
