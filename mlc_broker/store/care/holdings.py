"""What is held about a person: counted for `/v1/me/data`. Sync, thread-side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from mlc_broker.model.event import rfc3339
from mlc_broker.store.columns import DAY_MS
from mlc_broker.store.schema import open_reader
from mlc_broker.store.select import Selection, select
from mlc_broker.store.view import FileView


class Held(Struct, frozen=True, kw_only=True):
    """Events about a person. Times are RFC 3339, None where there are no events."""

    events: int
    by_type: dict[str, int]
    by_privacy_level: dict[str, int]
    oldest: str | None
    newest: str | None
    last_expires: str | None  # when the last of them is deleted, at the latest


class _Heading(Struct, gc=False):
    event_type: str
    privacy_level: str = "standard"


_read = msgspec.json.Decoder(_Heading).decode


def count(views: Sequence[FileView], wanted: Selection) -> Held:
    """Count the events that a selection selects, whole files read where they hold any."""
    types: Counter[str] = Counter()
    levels: Counter[str] = Counter()
    times: list[tuple[int, int, int]] = []
    for view in views:
        connection = open_reader(view.path)
        try:
            words = view.words(connection)
            for ref in view.find(connection, words, wanted):
                pack = view.load(connection, ref)
                rows = pack.rows()
                mask = select(rows, words, wanted)
                if not mask.any():
                    continue
                for line in pack.lines(np.flatnonzero(mask).tolist()):
                    heading = _read(line)
                    types[heading.event_type] += 1
                    levels[heading.privacy_level] += 1
                chosen = rows[mask]
                expires = chosen["ts"] + chosen["days"].astype(np.int64) * DAY_MS
                ts = chosen["ts"]
                times.append((int(ts.min()), int(ts.max()), int(expires.max())))
        finally:
            connection.close()
    return Held(
        events=types.total(),
        by_type=dict(sorted(types.items())),
        by_privacy_level=dict(sorted(levels.items())),
        oldest=_shown(min(first for first, _, _ in times)) if times else None,
        newest=_shown(max(last for _, last, _ in times)) if times else None,
        last_expires=_shown(max(end for _, _, end in times)) if times else None,
    )


def as_dict(held: Held) -> dict[str, Any]:
    """Return it as JSON has it."""
    answer: dict[str, Any] = msgspec.to_builtins(held)
    return answer


def _shown(ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(ms / 1000, UTC))
