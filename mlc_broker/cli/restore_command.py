"""`mlc-broker restore`: a backup into an empty data directory; who was erased since stays erased."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import trio

from mlc_broker.cli.common import config_option, say
from mlc_broker.config import Config


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--erased",
    "more",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="An erased.jsonl, or a directory with one, that is newer than the backup.",
)
@click.option("--check", is_flag=True, help="Read the whole backup, and restore nothing.")
@config_option
def restore(config: Config, directory: Path, more: tuple[Path, ...], check: bool) -> None:
    """Put the backup in DIRECTORY into the data directory of the configuration.

    Lists of who was erased are looked for beside the backup and beside the data directory, too.
    """
    from mlc_broker.store.care import backup as care

    if check:
        contents = care.check(directory)
        click.echo(f"{directory}: {len(contents.files)} files, {contents.bytes} bytes, all whole")
        return
    lists = _lists(config, directory, more)
    contents = care.restore(directory, config.data_path, progress=_progress)
    click.echo(f"restored {len(contents.files)} files of {contents.made_at:%Y-%m-%d %H:%M} UTC")
    count = trio.run(_erase_again, config, lists)
    if count:
        click.echo(f"{count} people were erased since: they are erased again at the next start")


def _lists(config: Config, directory: Path, more: tuple[Path, ...]) -> list[Path]:
    from mlc_broker.store.care.erased import ERASED

    places = [path / ERASED if path.is_dir() else path for path in more]
    places += sorted(directory.absolute().parent.glob(f"*/{ERASED}"))
    places += sorted(config.data_path.absolute().parent.glob(f"*/{ERASED}"))
    own = (directory / ERASED).absolute()
    return [path for path in dict.fromkeys(places) if path.absolute() != own and path.exists()]


async def _erase_again(config: Config, lists: list[Path]) -> int:
    from mlc_broker.cli.caring_offline import caring_offline

    async with caring_offline(config) as (caring, _, _):
        return await caring.erase_again(lists)


def _progress(path: str) -> None:
    if sys.stderr.isatty():
        say(path)
