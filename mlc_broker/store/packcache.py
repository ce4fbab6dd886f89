"""Packs opened last, by the checksum of their content: so nothing stale is ever found here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

from mlc_broker.store.columns import Rows
from mlc_broker.store.pack import COLUMNS, Pack
from mlc_broker.store.view import FileView, HotView, PackRef

_FIELDS = ", ".join(COLUMNS)
_HOT = f"SELECT {_FIELDS} FROM pack WHERE seq = ?"
_HOME = f"SELECT {_FIELDS} FROM pack WHERE id = ?"
_LINE_BYTES = 900  # about, of one line that is kept


class OpenPack:
    """A pack that was checked: its columns, and the lines that somebody wanted."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.rows: Rows = pack.rows()
        self._lines: dict[int, bytes] = {}

    def lines(self, positions: Sequence[int]) -> list[bytes]:
        """Return the lines at these positions, in their order."""
        known = self._lines
        missing = [at for at in positions if at not in known]
        if missing:
            known.update(zip(missing, self.pack.lines(missing), strict=True))
        return [known[at] for at in positions]

    def body(self) -> bytes:
        """Return all lines, each with its end."""
        return self.pack.body()

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory, with lines that may be asked for later."""
        pack = self.pack
        return int(self.rows.nbytes) + len(pack.frames) + 32 * pack.n + _LINE_BYTES * pack.n // 4


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

        Raises ShardCorrupt. The row is read anew each time: what was rewritten is never stale.
        """
        query = _HOT if isinstance(view, HotView) else _HOME
        row = connection.execute(query, (ref.key,)).fetchone()
        if row is None:
            return None
        pack = Pack.from_row(row)
        with self._lock:
            known = self._packs.get(pack.crc)
            if known is not None:
                self._packs.move_to_end(pack.crc)
                return known
        pack.verify()
        opened = OpenPack(pack)
        if keep:
            self._keep(opened)
        return opened

    def _keep(self, opened: OpenPack) -> None:
        with self._lock:
            if opened.pack.crc in self._packs:
                return
            self._packs[opened.pack.crc] = opened
            self._bytes += opened.size_bytes
            while self._bytes > self._bytes_max and len(self._packs) > 1:
                _, old = self._packs.popitem(last=False)
                self._bytes -= old.size_bytes
