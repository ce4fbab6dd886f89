"""The formats of an export by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mlc_broker.query.export.csv import Csv
from mlc_broker.query.export.parquet import Parquet
from mlc_broker.query.export.sqlite import SqliteFile
from mlc_broker.query.export.writer import JsonArray, JsonLines, Writer
from mlc_broker.query.export.xapi import Xapi

FORMATS: Mapping[str, type[Writer]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "json": JsonArray,
    "parquet": Parquet,
    "sqlite": SqliteFile,
    "xapi": Xapi,
}


def writer_of(name: str, *, bom: bool = False) -> Callable[[], Writer]:
    """Return what makes a writer of that format. Making one raises Unsupported without its package.

    `bom`: a CSV begins with a byte order mark.
    """
    return partial(Csv, bom=bom) if name == "csv" else FORMATS[name]
