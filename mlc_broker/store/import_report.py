"""What became of an import: what was loaded, what was not and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

Progress: TypeAlias = Callable[[str, int], None]  # the file (or kind), rows done so far

ROWS_A_PROGRESS = 5_000


class RejectedRow(Struct, frozen=True):
    """A row that was not loaded. `line` is 0 where the file has no lines to tell."""

    file: str
    line: int
    reason: str


class ImportReport(Struct, frozen=True, kw_only=True):
    """What an import did, or would do (`dry_run`)."""

    loaded: dict[str, int]  # by kind
    deleted: dict[str, int]  # by kind
    rejected: tuple[RejectedRow, ...]  # the first ones
    rejected_total: int
    warnings: tuple[str, ...]
    dry_run: bool = False


class Findings:
    """What an import notes on its way. Bounded: a file of nonsense does not fill the memory."""

    def __init__(
        self,
        progress: Progress | None = None,
        *,
        rejected_max: int = 1_000,
        warnings_max: int = 200,
    ) -> None:
        self.loaded: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()
        self._rejected: list[RejectedRow] = []
        self._rejected_total = 0
        self._warnings: list[str] = []
        self._progress = progress
        self._rejected_max = rejected_max
        self._warnings_max = warnings_max

    def reject(self, file: str, line: int, reason: str) -> None:
        """Note a row that is not loaded."""
        self._rejected_total += 1
        if len(self._rejected) < self._rejected_max:
            self._rejected.append(RejectedRow(file, line, reason[:500]))

    def warn(self, text: str) -> None:
        """Note something that the school should know."""
        if len(self._warnings) < self._warnings_max and text not in self._warnings:
            self._warnings.append(text[:500])

    def tell(self, what: str, done: int) -> None:
        """Tell how far the import is."""
        if self._progress is not None:
            self._progress(what, done)

    def report(self, *, dry_run: bool) -> ImportReport:
        """Return it all."""
        return ImportReport(
            loaded=dict(self.loaded),
            deleted=dict(self.deleted),
            rejected=tuple(self._rejected),
            rejected_total=self._rejected_total,
            warnings=tuple(self._warnings),
            dry_run=dry_run,
        )
