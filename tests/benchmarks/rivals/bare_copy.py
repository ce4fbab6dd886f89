"""PostgreSQL alone: COPY of prepared rows, a thousand a commit, over the same table and indexes.

`python -m tests.benchmarks.rivals.bare_copy DSN SECONDS [ROWS]` prints rows a second as JSON; with
ROWS it copies so many, without looking at the clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from random import Random

import psycopg

from mlc_broker.cli.bench_pages import ORGANIZATION, PLACE, school_event
from tests.benchmarks.rivals.model import COLUMNS, ONE, row
from tests.benchmarks.rivals.postgres_store import copy_text

COMMIT_ROWS = 1000
COMMITS = 16  # different ones, used in turn with new ids


def prepared() -> list[list[bytes]]:
    """Commits cut at their ids, so that new ids are put in by one join."""
    chance, now = Random(1), datetime.now(UTC)
    made = []
    for _ in range(COMMITS):
        events = [ONE.validate_python(school_event(chance, now)) for _ in range(COMMIT_ROWS)]
        made.append(copy_text([row(e, ORGANIZATION, now) for e in events]).split(PLACE))
    return made


def filled(pieces: list[bytes]) -> bytes:
    digits = os.urandom(16 * COMMIT_ROWS).hex().encode()
    parts = [pieces[0]]
    for n, piece in enumerate(pieces[1:]):
        at = 32 * n
        parts += (digits[at : at + 8], b"-", digits[at + 8 : at + 32], piece)
    return b"".join(parts)


def main(dsn: str, seconds: float, rows_max: int) -> None:
    ready = prepared()
    rows = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        began = time.perf_counter()
        while rows < rows_max if rows_max else time.perf_counter() - began < seconds:
            data = filled(ready[rows // COMMIT_ROWS % COMMITS])
            with connection.cursor().copy(f"COPY events ({COLUMNS}) FROM STDIN") as copy:
                copy.write(data)
            rows += COMMIT_ROWS
        took = time.perf_counter() - began
    print(json.dumps({"events": rows, "seconds": took, "events_per_second": rows / took}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
