"""One home: a sealed file of packs that are sorted by class, user and time. Sync, thread-side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mlc_broker.runtime.crashpoint import crash_point
from mlc_broker.store.columns import DAY_MS, ROW, SET_MARK, WORD_COLUMNS, Rows
from mlc_broker.store.hot import storage_error
from mlc_broker.store.ids import as_hashes
from mlc_broker.store.index import mentioned
from mlc_broker.store.pack import COLUMNS, ID_BYTES, Pack, pack_of
from mlc_broker.store.schema import home_file, open_writer, sqlite3, sync_file, transaction
from mlc_broker.store.select import Words

PACK_EVENTS = 256
OPEN_PACKS_MAX = 256  # while runs are merged: about 200 KB each
_FIELDS = "run, expires, " + ", ".join(COLUMNS)
_INSERT = f"INSERT INTO pack({_FIELDS}) VALUES({','.join('?' * (len(COLUMNS) + 2))})"
_PACK = f"SELECT {', '.join(COLUMNS)} FROM pack WHERE id = ?"
# Overwritten, not deleted: a code that is given again might still stand in another's row.
_BLANK = "UPDATE word SET word = char(30) || code, is_set = 0 WHERE code = ?1"
_QUESTIONS_MAX = 500  # bound values in one statement


Gone = Callable[[Rows, Words], NDArray[np.bool_]]


class Part(Struct, gc=False):
    """Events on their way into a home: columns, ids and lines in the same order."""

    rows: Rows
    ids: NDArray[np.uint8]  # 16 bytes an event
    lines: Sequence[bytes]
    recv: int  # latest receipt, epoch ms


class SqlWords:
    """The dictionary of a home, asked word by word. Fits `select.Words`."""

    def __init__(self, connection: Any) -> None:
        self._db = connection
        self._sets: list[tuple[int, str]] | None = None

    def codes(self, words: Iterable[str]) -> list[int]:
        """Return the codes of those words that the file knows."""
        asked = list(words)
        found: list[int] = []
        for at in range(0, len(asked), _QUESTIONS_MAX):
            some = asked[at : at + _QUESTIONS_MAX]
            query = f"SELECT code FROM word WHERE word IN ({','.join('?' * len(some))})"
            found += [code for (code,) in self._db.execute(query, some)]
        return found

    def sets_with(self, class_ids: frozenset[str]) -> list[int]:
        """Return the codes of the class sets that hold any of these classes."""
        if self._sets is None:
            self._sets = self._db.execute("SELECT code, word FROM word WHERE is_set").fetchall()
        return [code for code, word in self._sets if not class_ids.isdisjoint(word.split(SET_MARK))]


class Shard:
    """A home, open for writing: one connection a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = open_writer(path, home_file)
            self._db.execute("PRAGMA wal_autocheckpoint=4096")
        except sqlite3.DatabaseError as error:
            raise storage_error(error, path) from error

    def taken(self, hot: int) -> int:
        """Return the sequence up to which the events of a hot file are here."""
        row = self._db.execute("SELECT upto FROM taken WHERE hot = ?", (hot,)).fetchone()
        return int(row[0]) if row else 0

    def take(self, part: Part, words: Sequence[str], *, run: int, hot: int, upto: int) -> None:
        """Add events of a hot file as one sorted run; nothing if they are here already.

        `words`: the dictionary of the codes in `part`. One transaction.
        """
        if self.taken(hot) >= upto:
            return
        with transaction(self._db):
            part.rows = self._recoded(part.rows, words)
            order = np.lexsort((part.rows["ts"], part.rows["user"], part.rows["classes"]))
            for at in range(0, len(order), PACK_EVENTS):
                self._put(_picked(part, order[at : at + PACK_EVENTS]), run=run, level=3)
            self._db.execute("INSERT OR REPLACE INTO taken VALUES(?, ?)", (hot, upto))
            crash_point("seal.before_home_commit")

    def ids(self) -> NDArray[np.uint64]:
        """Return all id hashes, two words each, sorted by the first."""
        blobs = self._db.execute("SELECT ids FROM pack")
        hashes = as_hashes(b"".join(blob for (blob,) in blobs))
        return hashes[np.argsort(hashes[:, 0], kind="stable")]

    def verify(self) -> Iterator[tuple[int, Exception | None]]:
        """Yield the events of each pack, and what is wrong with it."""
        for (key,) in self._db.execute("SELECT id FROM pack ORDER BY id").fetchall():
            pack = self._load(key)
            try:
                pack.verify()
            except Exception as error:  # noqa: BLE001 - whatever is wrong is what we look for
                yield pack.n, error
            else:
                yield pack.n, None

    def codes(self, words: Iterable[str]) -> list[int]:
        """Return the codes of those words that the file knows."""
        return SqlWords(self._db).codes(words)

    def drop(self, gone: Gone, code: int) -> int:
        """Take out events of packs that mention `code`; return how many.

        The word goes too when nothing mentions it any more, and so do the sessions of these events.
        When `checkpoint` has returned True, no byte of any of it is left in the file or its WAL.
        """
        keys = self._db.execute("SELECT pack FROM mention WHERE code = ?", (code,)).fetchall()
        return self._rewrite([key for (key,) in keys], gone, code)

    def drop_expired(self, gone: Gone, now_ms: int) -> int:
        """Take out what has expired, and leave no trace; return how many events."""
        keys = []
        for key, expires in self._db.execute("SELECT id, expires FROM pack").fetchall():
            if expires <= now_ms or first_expiry(self._load(key).rows()) <= now_ms:
                keys.append(key)
        return self._rewrite(keys, gone)

    def forget_words(self, words: Iterable[str]) -> None:
        """Take words out of the dictionary that no pack mentions any more."""
        with transaction(self._db):
            self._blank_unmentioned(self.codes(words))

    def checkpoint(self) -> bool:
        """Fold the WAL into the file, so that what was dropped is gone; False: a reader is there."""
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def _rewrite(self, keys: Sequence[int], gone: Gone, *codes: int) -> int:
        words, dropped = SqlWords(self._db), 0
        left: set[int] = set()
        sessions: set[int] = set()
        with transaction(self._db):
            for key in keys:
                part, run = self._opened(key), self._run_of(key)
                mask = gone(part.rows, words)
                if not mask.any():
                    continue
                dropped += int(mask.sum())
                sessions.update(part.rows["session"][mask].tolist())
                left.update(part.rows["session"][~mask].tolist())
                self._db.execute("DELETE FROM pack WHERE id = ?", (key,))
                self._db.execute("DELETE FROM mention WHERE pack = ?", (key,))
                if not mask.all():
                    self._put(_picked(part, np.flatnonzero(~mask)), run=run, level=3)
            # A session is one person's: its packs lie together, so it is looked for in these alone.
            self._db.executemany(_BLANK, [(code,) for code in sessions - left if code])
            self._blank_unmentioned(codes)
        return dropped

    def _blank_unmentioned(self, codes: Iterable[int]) -> None:
        unless = " AND NOT EXISTS (SELECT 1 FROM mention WHERE code = ?1)"
        self._db.executemany(_BLANK + unless, [(code,) for code in codes])

    def merge_into(self, target: Path, gone: Gone, *, run: int) -> Iterator[int]:
        """Write all that stays into a new file as one run; each step writes one pack.

        Duplicates are dropped. When the iterator ends, the file is complete, synced, and needs no
        WAL: it opens on read-only media too.
        """
        target.unlink(missing_ok=True)
        fresh = Shard(target)
        try:
            fresh._db.execute("PRAGMA synchronous=OFF")  # until it is whole, nobody reads it
            keys, used = self._sorted_keys(gone)
            words = self._db.execute("SELECT code, word, is_set FROM word")
            kept = [row for row in words if row[0] in used]
            fresh._db.executemany("INSERT INTO word VALUES(?, ?, ?)", kept)
            taken = self._db.execute("SELECT hot, upto FROM taken").fetchall()
            fresh._db.executemany("INSERT INTO taken VALUES(?, ?)", taken)
            opened: OrderedDict[int, Part] = OrderedDict()
            for at in range(0, len(keys), PACK_EVENTS):
                some = keys[at : at + PACK_EVENTS]
                with transaction(fresh._db):
                    fresh._put(self._gathered(some, opened), run=run, level=9)
                yield len(some)
            fresh._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            fresh._db.execute("PRAGMA synchronous=FULL")
            fresh._db.execute("PRAGMA journal_mode=DELETE")
        finally:
            fresh.close()
        sync_file(target)

    def close(self) -> None:
        """Close the connection, the WAL folded in."""
        self._db.close()

    # --- one pack ---

    def _put(self, part: Part, *, run: int, level: int) -> None:
        rows = part.rows
        frames = [(len(rows), b"\n".join(part.lines) + b"\n")]
        pack = pack_of(rows, part.ids.tobytes(), frames, recv=part.recv, level=level)
        expires = int((rows["ts"] + rows["days"].astype(np.int64) * DAY_MS).max())
        cursor = self._db.execute(_INSERT, (run, expires, *pack.to_row()))
        key = cursor.lastrowid
        self._db.executemany(
            "INSERT INTO mention VALUES(?, ?)", [(int(code), key) for code in mentioned(rows)]
        )

    def _load(self, key: int) -> Pack:
        return Pack.from_row(self._db.execute(_PACK, (key,)).fetchone())

    def _opened(self, key: int) -> Part:
        pack = self._load(key)
        pack.verify()
        ids = np.frombuffer(pack.ids, np.uint8).reshape(-1, ID_BYTES)
        return Part(pack.rows(), ids, pack.lines(), pack.recv)

    def _run_of(self, key: int) -> int:
        return int(self._db.execute("SELECT run FROM pack WHERE id = ?", (key,)).fetchone()[0])

    # --- words ---

    def _recoded(self, rows: Rows, words: Sequence[str]) -> Rows:
        used = np.unique(np.concatenate([rows[name] for name in WORD_COLUMNS]))
        table = np.zeros(int(used[-1]) + 1, np.uint32)
        for code in used.tolist():
            if code:
                table[code] = self._code(words[code])
        recoded = rows.copy()
        for name in WORD_COLUMNS:
            recoded[name] = table[rows[name]]
        return recoded

    def _code(self, word: str) -> int:
        found = self._db.execute("SELECT code FROM word WHERE word = ?", (word,)).fetchone()
        if found:
            return int(found[0])
        insert = "INSERT INTO word(word, is_set) VALUES(?, ?)"
        return int(self._db.execute(insert, (word, word[0] == SET_MARK)).lastrowid)

    # --- merging ---

    def _sorted_keys(self, gone: Gone) -> tuple[Any, set[int]]:
        kind = [("low", "<u8"), ("high", "<u8"), ("pack", "<i8"), ("at", "<u4")]
        kind += [(name, ROW[name].str) for name in ("classes", "user", "ts")]
        words, parts, used = SqlWords(self._db), [np.empty(0, kind)], set[int]()
        for (key,) in self._db.execute("SELECT id FROM pack ORDER BY id").fetchall():
            pack = self._load(key)
            rows = pack.rows()
            keys = np.empty(pack.n, kind)
            keys["pack"], keys["at"] = key, np.arange(pack.n)
            for name in ("classes", "user", "ts"):
                keys[name] = rows[name]
            keys["low"], keys["high"] = pack.hashes()[:, 0], pack.hashes()[:, 1]
            kept = ~gone(rows, words)
            parts.append(keys[kept])
            used.update(*(np.unique(rows[name][kept]).tolist() for name in WORD_COLUMNS))
        merged = np.concatenate(parts)
        _, first = np.unique(merged[["low", "high"]], return_index=True)
        merged = merged[np.sort(first)]
        return merged[np.lexsort((merged["ts"], merged["user"], merged["classes"]))], used

    def _gathered(self, keys: Any, opened: OrderedDict[int, Part]) -> Part:
        rows, lines, recv = np.empty(len(keys), ROW), [], 0
        ids = np.empty((len(keys), ID_BYTES), np.uint8)
        for to, (key, at) in enumerate(
            zip(keys["pack"].tolist(), keys["at"].tolist(), strict=True)
        ):
            part = opened.get(key)
            if part is None:
                part = opened[key] = self._opened(key)
                if len(opened) > OPEN_PACKS_MAX:
                    opened.popitem(last=False)
            recv = max(recv, part.recv)
            rows[to], ids[to] = part.rows[at], part.ids[at]
            lines.append(part.lines[at])
        return Part(rows, ids, lines, recv)


def first_expiry(rows: Rows) -> int:
    """Return when the first of these events expires, in epoch ms."""
    return int((rows["ts"] + rows["days"].astype(np.int64) * DAY_MS).min())


def _picked(part: Part, order: NDArray[np.intp]) -> Part:
    lines = part.lines
    some = [lines[i] for i in order.tolist()]
    return Part(part.rows[order], part.ids[order], some, part.recv)
