"""After a restore: who was erased since the backup was made is erased again. Sync, thread-side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mlc_broker.store.care.erased import ErasedList, Record
from mlc_broker.store.columns import Rows
from mlc_broker.store.layout import home_path
from mlc_broker.store.pack import Pack
from mlc_broker.store.roster import Roster
from mlc_broker.store.schema import open_reader
from mlc_broker.store.store import Store

Person = tuple[str, str]


def erased_since(
    erased: ErasedList, lists: list[Path], key: bytes, store: Store, roster: Roster
) -> list[Person]:
    """Return who stands on any of these newer lists and is in the restored files.

    What the lists have and `erased` lacks is taken over. Raises StoreError where one was forged.
    """
    news: dict[str, Record] = {}
    for path in lists:
        for record in ErasedList(path, key).records():
            news[record.subject] = record
    known = {record.subject: record.erased_at for record in erased.records()}
    fresh = [r for r in news.values() if r.subject not in known or known[r.subject] < r.erased_at]
    erased.take_over(fresh)
    subjects = {record.subject for record in fresh}
    return [who for who in people_of(store, roster) if erased.subject(*who) in subjects]


def people_of(store: Store, roster: Roster) -> set[Person]:
    """Return everybody whom the files or the roster name."""
    people: set[Person] = set()
    for organization_id in roster.organization_ids():
        people.update((organization_id, user_id) for user_id in roster.users_of(organization_id))
    for hot in store.files.hot.values():
        people.update(_named(_packs(hot.path), dict(enumerate(hot.dictionary.words))))
    for entry in store.files.homes.values():
        path = home_path(store.files.directory, entry.home, entry.version)
        connection = open_reader(path)
        try:
            words_of = dict(connection.execute("SELECT code, word FROM word").fetchall())
        finally:
            connection.close()
        people.update(_named(_packs(path), {0: "", **words_of}))
    return people


def _named(rows_of: Iterator[Rows], words: Mapping[int, str]) -> Iterator[Person]:
    seen: set[tuple[int, int]] = set()
    for rows in rows_of:
        pairs = np.unique(rows[["organization", "user"]])
        for organization, user in pairs.tolist():
            if user and (organization, user) not in seen:
                seen.add((organization, user))
                yield words[organization], words[user]


def _packs(path: Path) -> Iterator[Rows]:
    connection = open_reader(path)
    try:
        for row in connection.execute("SELECT n, t0, t1, recv, ids, cols, x'', x'', x'' FROM pack"):
            yield Pack.from_row(row).rows()
    finally:
        connection.close()
