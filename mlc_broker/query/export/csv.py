"""CSV that a spreadsheet opens without harm: RFC 4180, flat columns, no cell is a formula."""

from __future__ import annotations

import csv
import io
import string
from collections.abc import Iterator
from typing import Any

from mlc_broker.query.export.flat import Columns, rows_of
from mlc_broker.query.export.writer import Writer

BOM = "\ufeff".encode()
# A spreadsheet takes a text that begins so for a formula. The apostrophe is ours: it is doubled,
# so that taking one away always gives the text that was sent.
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "'", "|", "%", "＝", "＋", "－", "＠")
_HARMLESS = frozenset(string.ascii_letters + string.digits)
_PLAIN = frozenset({int, float})


class Csv(Writer):
    """A header from all events (so they are read twice), then one row an event."""

    media = "text/csv"
    extension = "csv"
    surveys = True

    def __init__(self, *, bom: bool = False) -> None:
        self._bom = bom
        self._columns = Columns(kinds=False)
        self._kinds: dict[str, str] = {}

    def survey(self, body: bytes) -> None:
        """Learn the columns."""
        self._columns.learn(body)

    def begin(self) -> bytes:
        """Return the header."""
        self._kinds = self._columns.kinds
        return (BOM if self._bom else b"") + _written([[safe(name) for name in self._kinds]])

    def add(self, body: bytes) -> bytes:
        """Return the rows of these events."""
        return _written(
            [
                # By type first: a call for every cell would cost as much as all the rest.
                value if value is None or type(value) in _PLAIN else _cell(value)
                for value in self._columns.values(row, self._kinds)
            ]
            for row in rows_of(body)
        )

    def end(self) -> Iterator[bytes]:
        """Yield nothing more."""
        yield from ()


def safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    if text[:1].isascii() and text[:1].isalnum():
        return text
    return f"'{text}" if text.lstrip(" ").startswith(_DANGEROUS) else text


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        first = value[:1]
        return value if first in _HARMLESS else safe(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _written(rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8", "replace")
