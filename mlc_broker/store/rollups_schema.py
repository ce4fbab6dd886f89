"""The tables of rollups.db: cells of one person each, keyed by hashes that need no dictionary.

`at` is the minute since 1970 by the organization's own clock on the wall, so that days, weeks and
months are arithmetic. Counts are thousandths: an event sampled at 0.3 weighs 3,333.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

WEIGHT = 1000  # one event
CLASS, TEACHER, OF_CONTEXT, EXPERIMENT, CONCEPT = 1, 2, 3, 4, 5  # axes of `member`

rollups_file = Migrations("rollups")

# table: its key, then what is kept under it, and how two of the same key become one
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "activity": (
        ("org", "at", "user", "standing", "type", "days"),
        ("n",),
        "n = n + excluded.n",
    ),
    "session": (
        ("org", "at", "user", "session", "standing", "category", "days"),
        ("first", "last"),
        "first = min(first, excluded.first), last = max(last, excluded.last)",
    ),
    "play": (
        ("org", "user", "run", "kind"),
        (
            "at", "ms", "standing", "game", "stage", "stage_type", "assignment", "sequence",
            "concepts", "score", "max_score", "passed", "attempt", "duration_ms", "progress",
            "days", "n",
        ),
        "",  # the earliest announcement of a run holds: see `merge_of`
    ),
    "mark": (
        ("org", "at", "user", "type", "subject", "ms", "v1", "v2", "v3", "standing", "game",
         "assignment", "sequence", "concepts", "days"),
        ("n",),
        "n = n + excluded.n",
    ),
    "sample": (
        ("metric", "org", "at", "user", "standing", "subject", "game", "stage_type", "assignment",
         "sequence", "concepts", "endpoint", "bin", "days"),
        ("n", "num", "den", "top"),
        (
            "n = n + excluded.n, num = num + excluded.num, den = den + excluded.den,"
            " top = max(top, excluded.top)"
        ),
    ),
    "receipt": (("org", "at", "outcome", "reason"), ("n",), "n = n + excluded.n"),
    "word": (("id",), ("text",), "text = excluded.text"),
    "standing": (
        ("id",),
        ("role", "learner", "person", "platform", "browser"),
        "role = excluded.role",
    ),
    "member": (("id", "axis", "word"), (), ""),
    "kind": (("type",), ("category", "error"), "category = excluded.category, error = max(error, excluded.error)"),
}  # fmt: skip
PERSONAL = ("activity", "session", "play", "mark", "sample")  # tables of which rows are people's


@rollups_file()
def cells_of_people(db: Database) -> None:
    """The cells, the words that their hashes stand for, and how far the commits are counted."""
    for table, (key, values, _) in TABLES.items():
        texts = {"text"}
        columns = [
            f"{name} {'TEXT' if name in texts else 'INTEGER'} NOT NULL" for name in (*key, *values)
        ]
        db.execute(
            f"CREATE TABLE {table}({', '.join(columns)}, PRIMARY KEY({', '.join(key)}))"
            " WITHOUT ROWID"
        )
    db.execute("CREATE INDEX play_at ON play(org, at)")
    db.execute("CREATE TABLE zone(org INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    db.execute("CREATE TABLE watermark(k INTEGER PRIMARY KEY CHECK(k = 0), sequence INTEGER)")
    db.execute("CREATE TABLE declared(name TEXT PRIMARY KEY, declaration TEXT NOT NULL)")


def merge_of(table: str) -> str:
    """Return the clause that merges a row into one of the same key, in any order alike."""
    key, values, merge = TABLES[table]
    if table == "play":
        new = ", ".join(f"excluded.{name}" for name in values)
        old = ", ".join(values)
        sets = ", ".join(f"{name} = excluded.{name}" for name in values)
        return f"ON CONFLICT DO UPDATE SET {sets} WHERE ({new}) < ({old})"
    return (
        f"ON CONFLICT({', '.join(key)}) DO UPDATE SET {merge}"
        if merge
        else "ON CONFLICT DO NOTHING"
    )
