"""What flows: counts of stored events by type and organization since the start."""

from __future__ import annotations

import numpy as np

from mlc_broker.store.columns import Dictionary, Rows
from mlc_broker.store.files import Files
from mlc_broker.store.hot import Committed

COMMITS_MAX = 64  # noted before they are counted: one count of many costs what one of one does
NAMES_MAX = 2000  # of types, and of organizations; what comes behind them counts as "other"


class Flow:
    """Counts commits. Hand `committed` to the store's `on_commit`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._types: dict[str, int] = {}
        self._organizations: dict[str, int] = {}
        self._noted: list[tuple[int, Rows]] = []

    def committed(self, committed: Committed) -> None:
        """Note a commit."""
        self._noted.append((committed.hot, committed.rows))
        if len(self._noted) >= COMMITS_MAX:
            self._count()

    @property
    def types(self) -> dict[str, int]:
        """Stored events by type."""
        self._count()
        return dict(self._types)

    @property
    def organizations(self) -> dict[str, int]:
        """Stored events by organization."""
        self._count()
        return dict(self._organizations)

    def _count(self) -> None:
        noted, self._noted = self._noted, []
        for number in {number for number, _ in noted}:
            hot = self._files.hot.get(number)
            if hot is not None:
                rows = np.concatenate([some for at, some in noted if at == number])
                _add(self._types, rows, "type", hot.dictionary)
                _add(self._organizations, rows, "organization", hot.dictionary)


def _add(counts: dict[str, int], rows: Rows, column: str, dictionary: Dictionary) -> None:
    codes, events = np.unique(rows[column], return_counts=True)
    for code, count in zip(codes.tolist(), events.tolist(), strict=True):
        name = dictionary.words[code]
        if name not in counts and len(counts) >= NAMES_MAX:
            name = "other"
        counts[name] = counts.get(name, 0) + count
