"""Counts every stored event anew and compares: a number on the screen is this number.

The recount goes into a file of its own. Cells are compared by day, since old ones are coarser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from msgspec import Struct, field

from mlc_broker.store.lines import event_of
from mlc_broker.store.rollups_file import RollupsFile, alive
from mlc_broker.store.rollups_fold import Folder
from mlc_broker.store.rollups_schema import PERSONAL, TABLES
from mlc_broker.store.schema import open_reader
from mlc_broker.store.select import Selection, select
from mlc_broker.store.view import FileView, HotView

STEP_EVENTS = 20_000
DIFFERENCES_MAX = 20  # shown of each table


class Recount(Struct):
    """What was counted, and what differs."""

    files: int = 0
    events: int = 0
    cells: int = 0
    differences: list[str] = field(default_factory=list)


Progress = Callable[[Recount], None]


def recount(
    views: Iterable[FileView],
    wanted: Selection,
    folder: Folder,
    target: RollupsFile,
    *,
    before: int,
    progress: Progress = lambda _: None,
) -> Recount:
    """Count all events that the views show, up to a sequence of the hot files, into `target`."""
    found = Recount()
    for view in views:
        for lines in _lines(view, wanted, before):
            folder.fold([event_of(line) for line in lines])
            found.events += len(lines)
            if folder.delta.events >= STEP_EVENTS:
                target.add(folder, folder.fresh(), before)
                progress(found)
        found.files += 1
        target.add(folder, folder.fresh(), before)
        progress(found)
    target.add(folder, folder.fresh(), before)
    return found


def compare(kept: Any, fresh: RollupsFile, now_minute: int, found: Recount) -> None:
    """Note what the two files say differently; `kept` is a connection to the one in use.

    Cells of which an event may have expired are left out on both sides.
    """
    for table in PERSONAL:
        query = f"{_by_day(table)} ORDER BY {', '.join(TABLES[table][0])}"
        mine = kept.execute(query, {"now": now_minute})
        other = fresh.rows(query, {"now": now_minute})
        differences = _differences(mine, other, len(TABLES[table][0]), found)
        for told, (row, words) in enumerate(differences):
            if told < DIFFERENCES_MAX:
                found.differences.append(f"{table}: {words}: {row}")


def _differences(
    mine: Iterator[Any], other: Iterator[Any], width: int, found: Recount
) -> Iterator[tuple[Any, str]]:
    """Walk two sorted lists of cells side by side."""
    one, two = next(mine, None), next(other, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[:width] < two[:width]):
            yield one, "too much"
            one = next(mine, None)
        elif one is None or two[:width] < one[:width]:
            yield two, "missing"
            two = next(other, None)
            found.cells += 1
        else:
            if one != two:
                yield (one, two), "wrong"
            one, two = next(mine, None), next(other, None)
            found.cells += 1


def _by_day(table: str) -> str:
    key, values, _ = TABLES[table]
    if table == "play":
        return f"SELECT {', '.join([*key, *values])} FROM {table} WHERE {alive('')}"
    fields = ["at - at % 1440 AS at" if name == "at" else name for name in key]
    group = ["at - at % 1440" if name == "at" else name for name in key]
    how = {"top": "max", "first": "min", "last": "max"}
    sums = [f"{how.get(name, 'sum')}({name})" for name in values]
    return (
        f"SELECT {', '.join([*fields, *sums])} FROM {table} WHERE {alive('')}"
        f" GROUP BY {', '.join(group)}"
    )


def _lines(view: FileView, wanted: Selection, before: int) -> Iterator[list[bytes]]:
    connection = open_reader(view.path)
    try:
        words = view.words(connection)
        for ref in view.find(connection, words, wanted):
            if isinstance(view, HotView) and ref.key >= before:
                continue  # committed after the watermark
            pack = view.load(connection, ref)
            yield pack.lines(np.flatnonzero(select(pack.rows(), words, wanted)).tolist())
    finally:
        connection.close()
