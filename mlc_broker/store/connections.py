"""Connections that only read: a few are kept open, the one used longest ago is closed first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from mlc_broker.store.schema import open_reader, sqlite3
from mlc_broker.store.select import Words
from mlc_broker.store.view import FileView, HotView

PROGRESS_STEPS = 20_000  # of SQLite's machine, between two looks at the clock
CACHE_KIB = 512  # of pages, a connection
_ERROR, _INTERRUPT, _IOERR, _CANTOPEN = 1, 9, 10, 14


class Until(Protocol):
    """What says when a question has taken too long."""

    @property
    def passed(self) -> bool:
        """Whether the time is over."""


class Connections:
    """Idle connections by file. A borrowed one belongs to one thread until it is given back."""

    def __init__(self, open_files_max: int) -> None:
        self.opened = 0  # how often a file was opened: tests count
        self._open_files_max = open_files_max
        self._idle: OrderedDict[int, tuple[Path, Any]] = OrderedDict()  # by id, oldest first
        self._lock = Lock()
        self._closed = False

    @contextmanager
    def borrow(self, path: Path, until: Until | None = None) -> Iterator[Any]:
        """Lend a connection to this file; its statements stop when the time is over.

        Without an end nothing looks at the clock, and no statement waits for the interpreter lock.
        """
        connection = self._take(path)
        try:
            if until is not None:
                connection.set_progress_handler(lambda: until.passed, PROGRESS_STEPS)
            yield connection
        except sqlite3.Error:
            connection.close()  # nothing is assumed of a connection that failed
            raise
        except BaseException:
            self._give_back(path, connection)
            raise
        else:
            self._give_back(path, connection)

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, OrderedDict()
        for _, connection in idle.values():
            connection.close()

    def _take(self, path: Path) -> Any:
        with self._lock:
            for key in reversed(self._idle):
                if self._idle[key][0] == path:
                    return self._idle.pop(key)[1]
        self.opened += 1
        connection = open_reader(path)
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        return connection

    def _give_back(self, path: Path, connection: Any) -> None:
        connection.set_progress_handler(None, 0)
        surplus = []
        with self._lock:
            if self._closed:
                surplus.append(connection)
            else:
                self._idle[id(connection)] = (path, connection)
            while len(self._idle) > self._open_files_max:
                surplus.append(self._idle.popitem(last=False)[1][1])
        for old in surplus:
            old.close()


class PooledWords:
    """The dictionary of one file, asked through borrowed connections; answers are remembered.

    For one question only: what was absent may come with the next commit. Fits `select.Words`.
    """

    def __init__(self, connections: Connections, view: FileView) -> None:
        self._connections = connections
        self._view = view
        self._codes: dict[frozenset[str], list[int]] = {}
        self._sets: dict[frozenset[str], list[int]] = {}

    def codes(self, words: Iterable[str]) -> list[int]:
        """Return the codes of those words that the file knows."""
        asked = words if isinstance(words, frozenset) else frozenset(words)
        if asked not in self._codes:
            self._codes[asked] = self._ask(lambda known: known.codes(asked))
        return self._codes[asked]

    def sets_with(self, class_ids: frozenset[str]) -> list[int]:
        """Return the codes of the class sets that hold any of these classes."""
        if class_ids not in self._sets:
            self._sets[class_ids] = self._ask(lambda known: known.sets_with(class_ids))
        return self._sets[class_ids]

    def names(self, codes: Iterable[int]) -> dict[int, str]:
        """Return the words that have these codes."""
        asked = sorted(set(codes))
        if isinstance(self._view, HotView):
            words = self._view.dictionary.words
            return {code: words[code] for code in asked if code < len(words)}
        found: dict[int, str] = {0: ""}
        with self._connections.borrow(self._view.path) as connection:
            for code in asked:
                query = "SELECT word FROM word WHERE code = ?"
                row = connection.execute(query, (code,)).fetchone()
                if row is not None:
                    found[code] = row[0]
        return found

    def _ask(self, question: Callable[[Words], list[int]]) -> list[int]:
        if isinstance(self._view, HotView):
            return question(self._view.dictionary)
        with self._connections.borrow(self._view.path) as connection:
            return question(self._view.words(connection))


def is_interrupted(error: Exception) -> bool:
    """Whether SQLite was stopped because the time is over."""
    return _code(error) == _INTERRUPT


def is_gone(error: Exception) -> bool:
    """Whether the file could not be opened or read: it may have been unlinked."""
    return _code(error) in (_CANTOPEN, _IOERR)


def is_senseless(error: Exception) -> bool:
    """Whether the file is one of SQLite's, but not what we wrote: a table is missing."""
    return _code(error) == _ERROR


def _code(error: Exception) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
