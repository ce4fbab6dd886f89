"""The formats of an export by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlc_broker.model.errors import Unsupported
from mlc_broker.query.export.writer import JsonArray, JsonLines, Writer

FORMATS: Mapping[str, type[Writer]] = {
    "jsonl": JsonLines,
    "json": JsonArray,
}


def writer_of(name: str, *, bom: bool = False, who: str = "") -> Callable[[], Writer]:
    """Return what makes a writer of that format; raises Unsupported where a package is missing."""
    if name not in FORMATS:
        raise Unsupported(f"`format={name}` is not written here; {', '.join(FORMATS)} are.")
    return FORMATS[name]
