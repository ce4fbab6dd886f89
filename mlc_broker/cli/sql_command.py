"""`mlc-broker sql`: one question in SQL over events, asked of a copy that is thrown away after it.

The copy is an export: it comes by the same way, under the same rights, and the access log notes it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlc_broker.cli.common import config_option, say
from mlc_broker.config import Config
from mlc_broker.model.errors import BrokerError, Unavailable

if TYPE_CHECKING:
    from io import BufferedWriter

ROWS_MAX = 10_000
COPY_BYTES_MAX = 4 * 1024**3
PROGRESS_STEPS = 20_000
PURPOSE_LETTERS_MAX = 200


@click.command()
@click.argument("statement")
@click.option("--org", "organizations", multiple=True, metavar="ORG",
              help="May be repeated. Exactly one shows real user ids; otherwise pseudonyms.")  # fmt: skip
@click.option("--from", "begin", metavar="TIME", help="RFC 3339, from this time on.")
@click.option("--to", "end", metavar="TIME", help="RFC 3339, up to this time.")
@click.option("--purpose", default="", help="Why: stands in the access log. Default: the question.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.option("--rows-max", default=1000, show_default=True, type=click.IntRange(1, ROWS_MAX),
              help="Show at most so many rows.")  # fmt: skip
@click.option("--seconds-max", default=30.0, show_default=True,
              type=click.FloatRange(0.01, 3600), help="Time for the statement.")  # fmt: skip
@config_option
def sql(
    config: Config,
    statement: str,
    organizations: tuple[str, ...],
    begin: str | None,
    end: str | None,
    purpose: str,
    as_json: bool,
    rows_max: int,
    seconds_max: float,
) -> None:
    """Answer one SELECT over the table `events`, as a System Admin.

    Its columns are those of `export --format sqlite`: event_id, event_type, timestamp, user_id, …,
    and "properties.score" in quotes. It reads a copy: nothing can be changed.
    """
    asked = [
        ("format", "sqlite"),
        ("purpose", (purpose or f"sql: {statement}")[:PURPOSE_LETTERS_MAX]),
    ]
    asked += [("organization_id", one) for one in organizations]
    asked += [("from", begin)] if begin else []
    asked += [("to", end)] if end else []
    with tempfile.TemporaryDirectory(prefix="mlc-sql-") as folder:
        copy = Path(folder) / "events.sqlite"
        _copy(config, asked, copy)
        shown = _show(ask(copy, statement, seconds_max=seconds_max), rows_max, as_json=as_json)
    if shown > rows_max:
        say(f"only the first {rows_max} rows are shown: add LIMIT, or raise --rows-max")


def ask(copy: Path, statement: str, *, seconds_max: float) -> Iterator[list[Any]]:
    """Yield the names of the columns, then row by row; the file cannot be changed by it.

    Raises UsageError where the statement is none or not a question, Unavailable after the time.
    """
    from mlc_broker.store.schema import sqlite3

    end = time.monotonic() + seconds_max
    db = sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA query_only=ON")
        db.execute("PRAGMA temp_store=MEMORY")
        db.set_authorizer(_only_reading(sqlite3))
        db.set_progress_handler(lambda: time.monotonic() > end, PROGRESS_STEPS)
        found = db.execute(statement)
        if found.description is None:
            raise click.UsageError("that asks nothing: give one SELECT over the table events")
        yield [column[0] for column in found.description]
        for row in found:
            yield list(row)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        if time.monotonic() > end:
            msg = f"the statement takes longer than {seconds_max:g} s: narrow it by --from and --to"
            raise Unavailable(f"{msg}, or raise --seconds-max") from None
        raise click.UsageError(
            f"SQLite says: {error}. One SELECT over the table events is answered; "
            'names with a dot stand in double quotes: "properties.score".'
        ) from None
    finally:
        db.close()


def _only_reading(sqlite3: Any) -> Any:
    allowed = {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }

    def judge(action: int, _: Any, name: str | None, *__: Any) -> int:
        if action == sqlite3.SQLITE_FUNCTION and (name or "").lower() == "load_extension":
            return int(sqlite3.SQLITE_DENY)
        return int(sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY)

    return judge


def _copy(config: Config, asked: list[tuple[str, str]], copy: Path) -> None:
    import trio

    from mlc_broker.cli.export_command import Progress, write

    with copy.open("wb") as file:
        trio.run(write, config, asked, _Bounded(file), Progress(quiet=True))


def _show(told: Iterator[list[Any]], rows_max: int, *, as_json: bool) -> int:
    """Print the rows, a line each; return how many there were, or one more than the limit."""
    import msgspec

    names = next(told)
    if not as_json:
        click.echo("\t".join(map(_cell, names)))
    for number, row in enumerate(told, 1):
        if number > rows_max:
            return number
        if as_json:
            click.echo(msgspec.json.encode(dict(zip(names, row, strict=True))))
        else:
            click.echo("\t".join(map(_cell, row)))
    return 0


def _cell(value: Any) -> str:
    """Return a value as a terminal may show it: no control characters of an event's text."""
    text = "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else " " for letter in text)


class _Bounded:
    """A file that says when the copy grows too large."""

    def __init__(self, file: BufferedWriter) -> None:
        self._file, self._bytes = file, 0
        self.flush = file.flush

    def write(self, chunk: bytes) -> int:
        """Write, unless it is too much."""
        self._bytes += len(chunk)
        if self._bytes > COPY_BYTES_MAX:
            raise BrokerError(
                f"the copy is over {COPY_BYTES_MAX // 1024**3} GiB: "
                "narrow it by --from, --to and --org"
            )
        return self._file.write(chunk)
