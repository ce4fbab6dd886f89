"""The ids that lie in homes: so that a replay after weeks is a duplicate, not a second event."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

from mlc_broker.store.ids import Hashes, as_hashes, is_ids
from mlc_broker.store.layout import home_path
from mlc_broker.store.manifest import HomeEntry
from mlc_broker.store.schema import READ_ERRORS, open_reader


class SealedIds:
    """Sorted ids of the homes that were asked last, within a limit. Sync, thread-side."""

    def __init__(self, directory: Path, *, bytes_max: int) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._homes: OrderedDict[HomeEntry, Hashes] = OrderedDict()

    def known(self, homes: list[HomeEntry], hashes: list[bytes]) -> set[bytes]:
        """Return those hashes that lie in any of these homes."""
        asked = as_hashes(b"".join(hashes))
        found = np.zeros(len(asked), np.bool_)
        for entry in homes:
            found |= _contained(self._sorted(entry), asked)
        return {hashes[i] for i in np.flatnonzero(found).tolist()}

    def _sorted(self, entry: HomeEntry) -> Hashes:
        ids = self._homes.get(entry)
        if ids is None:
            for old in [known for known in self._homes if known.home == entry.home]:
                del self._homes[old]  # the home has changed since
            ids = self._homes[entry] = _read(home_path(self._directory, entry.home, entry.version))
            while len(self._homes) > 1 and self._bytes() > self._bytes_max:
                self._homes.popitem(last=False)
        self._homes.move_to_end(entry)
        return ids

    def _bytes(self) -> int:
        return sum(ids.nbytes for ids in self._homes.values())


def _read(path: Path) -> Hashes:
    connection = open_reader(path)
    try:
        blobs = [ids for (ids,) in connection.execute("SELECT ids FROM pack") if is_ids(ids)]
    except READ_ERRORS:  # a damaged home knows nothing; `verify` and readers tell
        blobs = []
    finally:
        connection.close()
    hashes = as_hashes(b"".join(blobs))
    return hashes[np.argsort(hashes[:, 0], kind="stable")]


def _contained(ids: Hashes, asked: Hashes) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    first = np.searchsorted(ids[:, 0], asked[:, 0], side="left")
    last = np.searchsorted(ids[:, 0], asked[:, 0], side="right")
    return np.array(
        [
            bool((ids[begin:end, 1] == high).any())
            for begin, end, high in zip(first, last, asked[:, 1], strict=True)
        ],
        np.bool_,
    )
