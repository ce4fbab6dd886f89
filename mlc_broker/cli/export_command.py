"""`mlc-broker export`: events as a file, through the running daemon, or from its files if none runs."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import click

from mlc_broker.cli.common import config_option, say
from mlc_broker.config import Config
from mlc_broker.model.errors import BrokerError
from mlc_broker.model.filter import AXES

FORMATS = ("jsonl", "csv", "json", "parquet", "sqlite", "xapi")
FILTERS = tuple(name for name in AXES if name != "organization_id")  # a token is of one
TOKEN_SECONDS = 3600
PROGRESS_SECONDS = 0.5


def _filters(function: Any) -> Any:
    for name in reversed(FILTERS):
        option = f"--{name.replace('_', '-')}"
        function = click.option(option, name, multiple=True, help="May be repeated.")(function)
    return function


@click.command()
@click.option("--format", "form", default="jsonl", show_default=True, type=click.Choice(FORMATS))
@click.option("--organization", "organizations", multiple=True, metavar="ORG",
              help="Exactly one shows real user ids; otherwise they are pseudonyms.")  # fmt: skip
@click.option("--from", "begin", metavar="TIME", help="RFC 3339, from this time on.")
@click.option("--to", "end", metavar="TIME", help="RFC 3339, up to this time.")
@_filters
@click.option("--bom", is_flag=True, help="Begin a CSV with a byte order mark.")
@click.option("--purpose", default="", help="Why: stands in the access log.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Default: standard output.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress.")
@config_option
def export(
    config: Config,
    form: str,
    organizations: tuple[str, ...],
    begin: str | None,
    end: str | None,
    bom: bool,
    purpose: str,
    output: Path | None,
    quiet: bool,
    **filters: tuple[str, ...],
) -> None:
    """Write everything that the filters ask for, with progress; the access log notes it.

    A file appears under its name when it is complete, not before.
    """
    import trio

    if output is None and sys.stdout.isatty() and form in ("parquet", "sqlite"):
        raise click.UsageError(f"--format {form} is no text: give --output FILE")
    asked: list[tuple[str, str]] = [("format", form), ("purpose", purpose)]
    asked += [("organization_id", one) for one in organizations]
    asked += [(name, one) for name, some in filters.items() for one in some]
    asked += [("from", begin)] if begin else []
    asked += [("to", end)] if end else []
    asked += [("bom", "1")] if bom else []
    asked = [(name, value) for name, value in asked if value]
    progress = Progress(quiet=quiet)
    if output is None:
        trio.run(write, config, asked, sys.stdout.buffer, progress)
        progress.done()
        return
    fresh = output.with_name(f".{output.name}.part")
    try:
        with fresh.open("wb") as file:
            trio.run(write, config, asked, file, progress)
        fresh.replace(output)
    finally:
        fresh.unlink(missing_ok=True)
    progress.done(str(output))


async def write(
    config: Config, asked: list[tuple[str, str]], file: Sink, progress: Progress
) -> None:
    """Write an export into a file: from the daemon, or from its files if none runs."""
    from mlc_broker.cli.telephone import runs

    source = _from_daemon if runs(config) else _from_files
    async with source(config, asked) as chunks:
        async for chunk in chunks:
            file.write(chunk)
            progress.add(len(chunk))
    file.flush()


@asynccontextmanager
async def _from_daemon(
    config: Config, asked: list[tuple[str, str]]
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Ask the daemon over HTTP, as a System Admin with a token of a moment's life."""
    import msgspec

    from mlc_broker.showing import endpoints_file
    from mlc_broker.simulate.web import Away
    from mlc_broker.simulate.web import asked as ask

    base: str = msgspec.json.decode(endpoints_file(config).read_bytes())["http"]
    path = f"/v1/export?{urlencode(asked)}"
    try:
        async with ask(base, "GET", path, token=_token(config, asked)) as (status, _, parts):
            if status != 200:
                raise BrokerError(_detail(b"".join([part async for part in parts])))
            yield parts
    except Away as error:
        raise BrokerError(f"the export broke off: {error}") from error


@asynccontextmanager
async def _from_files(
    config: Config, asked: list[tuple[str, str]]
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Read the data directory, which nobody else has while we do."""
    from contextlib import aclosing

    from mlc_broker.cli.offline import offline
    from mlc_broker.edge.http.events import ExportQuery, filter_of
    from mlc_broker.edge.routes import parse_query
    from mlc_broker.model.principal import Principal, Role
    from mlc_broker.query.export.formats import writer_of
    from mlc_broker.query.scopes import asker_for

    query = parse_query(ExportQuery, _multi(asked))
    wanted = filter_of(query)
    async with offline(config) as (telling, roster):
        me = Principal(kind="user", id=_who(), organization_id="-", role=Role.SYSTEM_ADMIN)
        asker = asker_for(me, roster, wanted, purpose=query.purpose or "")
        make = writer_of(query.format, bom=query.bom in ("1", "true"))
        export = await telling.exports.open(asker, wanted, make, "mlc-broker export")
        async with aclosing(export):
            yield export


def _multi(asked: list[tuple[str, str]]) -> Any:
    from werkzeug.datastructures import MultiDict

    return MultiDict(asked)


def _token(config: Config, asked: list[tuple[str, str]]) -> str:
    from mlc_broker.config_files import read_secret
    from mlc_broker.edge.credentials import make_token
    from mlc_broker.runtime.clock import SystemClock
    from mlc_broker.store.roster import Roster

    named = [value for name, value in asked if name == "organization_id"]
    if not named:  # a token must be of some organization that the daemon knows
        roster = Roster(config.data_path / "roster.db", clock=SystemClock())
        roster.open()
        try:
            named = list(roster.organization_ids())[:1]
        finally:
            roster.close()
    return make_token(
        read_secret(config.secret_path(config.auth.secret_file)),
        sub=_who(),
        org=named[0] if named else "-",
        role="system_admin",
        now=SystemClock().now(),
        seconds=min(TOKEN_SECONDS, config.auth.token_seconds_max),
        issuer=config.auth.issuer,
    )


def _who() -> str:
    return f"operator:{getpass.getuser()}"


def _detail(body: bytes) -> str:
    import msgspec

    try:
        told = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "the daemon refused, and said nothing that can be read"
    return str(told.get("detail", told))


class Sink(Protocol):
    """What an export is written into."""

    def write(self, chunk: bytes, /) -> int:
        """Take bytes."""

    def flush(self) -> None:
        """Hand on what was taken."""


class Progress:
    """Bytes and speed, on stderr, now and then; `quiet`: not at all."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._quiet = quiet
        self._bytes = 0
        self._began = self._told = time.monotonic()

    def add(self, size: int) -> None:
        """Count bytes."""
        self._bytes += size
        now = time.monotonic()
        if self._shown and now - self._told > PROGRESS_SECONDS:
            self._told = now
            click.echo(f"\r{self._words(now)}", err=True, nl=False)

    def done(self, name: str = "") -> None:
        """Tell the sum."""
        if self._shown:
            click.echo("\r", err=True, nl=False)
        if not self._quiet:
            say(f"{name or 'done'}: {self._words(time.monotonic())}")

    def _words(self, now: float) -> str:
        megabytes = self._bytes / 1e6
        return f"{megabytes:,.1f} MB, {megabytes / max(now - self._began, 1e-3):,.1f} MB/s   "
