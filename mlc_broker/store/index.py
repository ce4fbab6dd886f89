"""What is known in memory of one file's packs: their times, and who each of them mentions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlc_broker.store.columns import Rows

MENTIONED = ("user", "classes", "context_class", "teacher")  # columns that the index knows
Columns = Rows | Mapping[str, NDArray[Any]]
_BITMAP_MAX = 1 << 18
_ENTRY = np.dtype([("key", "<i8"), ("n", "<i8"), ("t0", "<i8"), ("t1", "<i8"), ("recv", "<i8")])


class PackIndex:
    """Grows with every pack; a reader takes what stands in it at that moment."""

    def __init__(self) -> None:
        self._packs = _Growing(_ENTRY)
        self._mentions = _Growing(np.dtype([("code", "<u4"), ("pack", "<u4")]))

    def __len__(self) -> int:
        return self._packs.count

    @property
    def entries(self) -> NDArray[Any]:
        """Key, count and times of each pack, in order of arrival."""
        return self._packs.taken

    def add(self, key: int, recv: int, rows: Columns) -> None:
        """Note a pack: the key of its row, its latest receipt (epoch ms), its columns."""
        codes = mentioned(rows)
        pairs = np.empty(len(codes), self._mentions.dtype)
        pairs["code"], pairs["pack"] = codes, len(self)
        self._mentions.add(pairs)
        times = rows["ts"]
        entry = (key, len(times), int(times.min()), int(times.max()), recv)
        self._packs.add(np.array([entry], _ENTRY))

    def find(
        self, needs: Sequence[Sequence[int]], begin_ms: int | None, end_ms: int | None
    ) -> NDArray[Any]:
        """Return the entries of packs that may hold events of that time and those mentions.

        Of each list of codes in `needs`, at least one must be mentioned.
        """
        entries = self.entries
        mask = np.ones(len(entries), np.bool_)
        if begin_ms is not None:
            mask &= entries["t1"] >= begin_ms
        if end_ms is not None:
            mask &= entries["t0"] < end_ms
        pairs = self._mentions.taken
        for codes in needs:
            having = np.zeros(len(entries), np.bool_)
            if len(codes) == 1:
                having[pairs["pack"][pairs["code"] == codes[0]]] = True
            elif codes:
                having[pairs["pack"][np.isin(pairs["code"], np.array(codes, "<u4"))]] = True
            mask &= having
        return entries[mask]


def mentioned(rows: Columns) -> NDArray[Any]:
    """Return the different codes that these rows mention in the indexed columns."""
    codes = np.concatenate([rows[name] for name in MENTIONED])
    if not codes.size:
        return codes
    highest = int(codes.max())
    if highest > _BITMAP_MAX:
        codes = np.unique(codes)
        return codes[1:] if codes[0] == 0 else codes
    seen = np.zeros(highest + 1, np.bool_)  # a tenth of what sorting costs
    seen[codes] = True
    seen[0] = False
    return np.flatnonzero(seen)


class _Growing:
    """An array that doubles when it is full; what was taken from it before stays valid."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.count = 0
        self._array = np.empty(64, dtype)

    @property
    def taken(self) -> NDArray[Any]:
        return self._array[: self.count]

    def add(self, items: NDArray[Any]) -> None:
        end = self.count + len(items)
        if end > len(self._array):
            larger = np.empty(max(end, 2 * len(self._array)), self.dtype)
            larger[: self.count] = self.taken
            self._array = larger
        self._array[self.count : end] = items
        self.count = end
