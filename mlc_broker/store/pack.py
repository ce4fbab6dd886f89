"""A pack: stored events as packed columns, id hashes, compressed lines, and a checksum.

The one storage format: hot files hold one pack a commit, homes hold packs of sorted events.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from struct import pack as pack_struct
from typing import Any, Self

import numpy as np
import zstandard
from msgspec import Struct
from numpy.typing import NDArray

from mlc_broker.model.errors import ShardCorrupt
from mlc_broker.store.columns import ROW, Rows, by_column, by_row, columns_of

ID_BYTES = 16
FRAME_EVENTS = 64  # lines that are compressed as one
LINES_BYTES_MAX = 64 * 1024 * 1024  # of one frame when opened: more is no frame of ours
COLUMNS = ("n", "t0", "t1", "recv", "ids", "cols", "frames", "offs", "crc")

_ROW_TYPES = [int] * 4 + [bytes] * 5


class _OfThread(threading.local):
    """A decompressor may not be used by two threads at once, and readers are many."""

    def __init__(self) -> None:
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _OfThread()


class Pack(Struct, frozen=True, gc=False):
    """Events as they lie in a file. Build one with `pack_of`; open what you need of it."""

    n: int
    t0: int  # earliest timestamp, epoch ms
    t1: int  # latest timestamp, epoch ms
    recv: int  # latest time of receipt, epoch ms: for how long its ids matter
    ids: bytes  # 16 bytes an event
    cols: bytes  # zstd of the columns, one behind the other
    frames: bytes  # zstd frames, one behind the other: lines of JSON, each with its end
    offs: bytes  # u32 pairs, one a frame: events up to its end, bytes up to its end
    crc: bytes  # BLAKE2b of all the above

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Return the pack of a table's row (`COLUMNS`); raises ShardCorrupt when it is none."""
        if [type(value) for value in row] != _ROW_TYPES:
            raise ShardCorrupt("a pack's row is not of its types")
        return cls(*row)

    def to_row(self) -> tuple[Any, ...]:
        """Return what a table's row holds, in the order of `COLUMNS`."""
        return (
            self.n,
            self.t0,
            self.t1,
            self.recv,
            self.ids,
            self.cols,
            self.frames,
            self.offs,
            self.crc,
        )

    def verify(self) -> None:
        """Raise ShardCorrupt unless every byte is as it was written."""
        expected = _checksum(
            self.n, self.t0, self.t1, self.recv, self.ids, self.cols, self.frames, self.offs
        )
        if self.crc != expected:
            raise ShardCorrupt("a pack's checksum does not fit its bytes")

    def rows(self) -> Rows:
        """Return the packed columns, decompressed anew at each call."""
        size = self.n * ROW.itemsize
        return by_row(_zstd.decompress(self.cols, max_output_size=size), self.n)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the same column by column: quicker where few of them are looked at."""
        size = self.n * ROW.itemsize
        return columns_of(_zstd.decompress(self.cols, max_output_size=size), self.n)

    def hashes(self) -> NDArray[np.uint64]:
        """Return the id hashes, two words an event."""
        return np.frombuffer(self.ids, "<u8").reshape(-1, 2)

    def lines(self, positions: Iterable[int] | None = None) -> list[bytes]:
        """Return the lines at these positions, in their order; opens only the frames needed."""
        ends = np.frombuffer(self.offs, "<u4").reshape(-1, 2)
        if positions is None:
            return [line for f in range(len(ends)) for line in self._frame(ends, f)]
        chosen = np.asarray(list(positions), np.int64)
        of_frame = np.searchsorted(ends[:, 0], chosen, side="right")
        opened: dict[int, list[bytes]] = {}
        lines = []
        for position, frame in zip(chosen.tolist(), of_frame.tolist(), strict=True):
            if frame not in opened:
                opened[frame] = self._frame(ends, frame)
            first = int(ends[frame - 1, 0]) if frame else 0
            lines.append(opened[frame][position - first])
        return lines

    def body(self) -> bytes:
        """Return all lines, each with its end."""
        begin, opened = 0, []
        for end in np.frombuffer(self.offs, "<u4").reshape(-1, 2)[:, 1].tolist():
            opened.append(_zstd.decompress(self.frames[begin:end], max_output_size=LINES_BYTES_MAX))
            begin = end
        return opened[0] if len(opened) == 1 else b"".join(opened)

    def _frame(self, ends: NDArray[np.uint32], frame: int) -> list[bytes]:
        begin = int(ends[frame - 1, 1]) if frame else 0
        body = self.frames[begin : int(ends[frame, 1])]
        return _zstd.decompress(body, max_output_size=LINES_BYTES_MAX).split(b"\n")[:-1]


def pack_of(
    rows: Rows, ids: bytes, frames: Iterable[tuple[int, bytes]], *, recv: int, level: int = 1
) -> Pack:
    """Return the pack of these events: rows, ids and frames (count and lines) in the same order.

    Compresses, so it belongs into a thread. `recv`: latest receipt in epoch ms; `level`: of zstd.
    """
    plain = list(frames)
    count = sum(events for events, _ in plain)
    if not count == len(rows) == len(ids) // ID_BYTES:
        raise ValueError(f"{len(rows)} rows, {len(ids) // ID_BYTES} ids and {count} lines")
    # All in one call: each gives up the interpreter's lock, and waits for it again behind the loop.
    compressor = zstandard.ZstdCompressor(level=level)
    made = compressor.multi_compress_to_buffer([*(body for _, body in plain), by_column(rows)])
    *bodies, columns = [made[at].tobytes() for at in range(len(made))]
    sizes = [(events, len(body)) for (events, _), body in zip(plain, bodies, strict=True)]
    ends = np.cumsum(sizes, axis=0)
    times = rows["ts"]
    parts = (
        count,
        int(times.min()),
        int(times.max()),
        recv,
        ids,
        columns,
        b"".join(bodies),
        ends.astype("<u4").tobytes(),
    )
    return Pack(*parts, _checksum(*parts))


def _checksum(n: int, t0: int, t1: int, recv: int, *blobs: bytes) -> bytes:
    lengths = [len(blob) for blob in blobs]
    head = pack_struct("<4q4Q", n, t0, t1, recv, *lengths)
    return hashlib.blake2b(b"".join((head, *blobs)), digest_size=16).digest()
