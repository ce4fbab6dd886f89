"""Parquet for data tools: needs the extra `parquet` (pyarrow)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from mlc_broker.model.errors import Unsupported
from mlc_broker.query.export.flat import Columns, rows_of
from mlc_broker.query.export.writer import Writer

GROUP_EVENTS = 20_000  # rows of one group: what waits in memory


class Parquet(Writer):
    """Columns with types from all events (so they are read twice), then row groups."""

    media = "application/vnd.apache.parquet"
    extension = "parquet"
    surveys = True

    def __init__(self) -> None:
        """Raise Unsupported where pyarrow is not installed."""
        try:
            import pyarrow as pa  # noqa: PLC0415 (an extra)
            from pyarrow import parquet  # noqa: PLC0415
        except ModuleNotFoundError:
            raise Unsupported(
                "Parquet needs a package that is not installed here: "
                "`pip install 'mlc-broker[parquet]'`, then start the daemon again."
            ) from None
        self._arrow, self._parquet = pa, parquet
        self._columns = Columns()
        self._kinds: dict[str, str] = {}
        self._sink = _Through()
        self._file: Any = None
        self._waiting: list[list[Any]] = []

    def survey(self, body: bytes) -> None:
        """Learn the columns and their types."""
        self._columns.learn(body)

    def begin(self) -> bytes:
        """Return the head of the file."""
        arrow = self._arrow
        types = {
            "bool": arrow.bool_(),
            "int": arrow.int64(),
            "float": arrow.float64(),
            "text": arrow.string(),
        }
        self._kinds = self._columns.kinds
        self._schema = arrow.schema([(name, types[kind]) for name, kind in self._kinds.items()])
        self._sink = _Through()
        self._file = self._parquet.ParquetWriter(
            arrow.PythonFile(self._sink, mode="w"), self._schema, compression="zstd"
        )
        return self._sink.taken()

    def add(self, body: bytes) -> bytes:
        """Take these events; whole row groups leave."""
        for row in rows_of(body):
            self._waiting.append(self._columns.values(row, self._kinds))
            if len(self._waiting) >= GROUP_EVENTS:
                self._write()
        return self._sink.taken()

    def end(self) -> Iterator[bytes]:
        """Yield the last group and the foot of the file."""
        if self._waiting:
            self._write()
        self._file.close()
        yield self._sink.taken()

    def _write(self) -> None:
        columns = zip(*self._waiting, strict=True)
        arrays = [
            self._arrow.array([_typed(value, kind) for value in column], field.type)
            for column, kind, field in zip(columns, self._kinds.values(), self._schema, strict=True)
        ]
        self._file.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._waiting = []


class _Through(io.BytesIO):
    """A file that gives away what was written and only counts it."""

    def __init__(self) -> None:
        super().__init__()
        self._written = 0
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def seekable(self) -> bool:
        return False

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _typed(value: Any, kind: str) -> Any:
    if value is None:
        return None
    match kind:
        case "text":
            return value if isinstance(value, str) else str(value)
        case "float":
            return float(value)
        case _:
            return value
