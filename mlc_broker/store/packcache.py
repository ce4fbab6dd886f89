"""Packs opened last, by the checksum of their content: so nothing stale is ever found here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

from msgspec.structs import replace

from mlc_broker.store.columns import Rows
from mlc_broker.store.pack import COLUMNS, Pack
from mlc_broker.store.view import FileView, HotView, PackRef

_FIELDS = ", ".join(COLUMNS)
_LINE_BYTES = 120  # that one line takes besides itself, when it is kept


class OpenPack:
    """A pack that was checked: its columns, and the lines that somebody wanted."""

    def __init__(self, pack: Pack) -> None:
        self.rows: Rows = pack.rows()
        self.pack = replace(pack, cols=b"")  # they lie in `rows` now
        self.noted_bytes = 0  # what the cache has counted for it
        self._lines: dict[int, bytes] = {}
        self._lines_bytes = 0

    def lines(self, positions: Sequence[int]) -> list[bytes]:
        """Return the lines at these positions, in their order."""
        known = self._lines
        missing = [at for at in positions if at not in known]
        if missing:
            found = self.pack.lines(missing)
            known.update(zip(missing, found, strict=True))
            self._lines_bytes += sum(map(len, found)) + _LINE_BYTES * len(found)
        return [known[at] for at in positions]

    def body(self) -> bytes:
        """Return all lines, each with its end."""
        return self.pack.body()

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory, with the lines that were asked for so far."""
        pack = self.pack
        return int(self.rows.nbytes) + len(pack.ids) + len(pack.frames) + self._lines_bytes


class PackCache:
    """As many opened packs as fit, the one used longest ago leaves first. For many threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._packs: OrderedDict[bytes, OpenPack] = OrderedDict()
        self._lock = Lock()

    def open(
        self, view: FileView, connection: Any, ref: PackRef, *, keep: bool = True
    ) -> OpenPack | None:
        """Return the pack, read and checked; None: it is not there any more.

        Raises ShardCorrupt. Its checksum is read anew each time: what was rewritten is never stale.
        """
        place = f"FROM pack WHERE {'seq' if isinstance(view, HotView) else 'id'} = ?"
        row = connection.execute(f"SELECT crc {place}", (ref.key,)).fetchone()
        known = None if row is None else self._known(row[0])
        if known is not None:
            return known
        row = connection.execute(f"SELECT {_FIELDS} {place}", (ref.key,)).fetchone()
        if row is None:
            return None
        pack = Pack.from_row(row)
        pack.verify()
        opened = OpenPack(pack)
        if keep:
            self._keep(opened)
        return opened

    def _known(self, crc: Any) -> OpenPack | None:
        with self._lock:
            known = self._packs.get(crc)
            if known is not None:
                self._packs.move_to_end(crc)
                self._count(known)  # lines were kept since
            return known

    def _keep(self, opened: OpenPack) -> None:
        with self._lock:
            if opened.pack.crc not in self._packs:
                self._packs[opened.pack.crc] = opened
                self._count(opened)

    def _count(self, opened: OpenPack) -> None:
        size = opened.size_bytes
        self._bytes += size - opened.noted_bytes
        opened.noted_bytes = size
        while self._bytes > self._bytes_max and len(self._packs) > 1:
            _, old = self._packs.popitem(last=False)
            self._bytes -= old.noted_bytes
