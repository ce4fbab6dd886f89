"""How long events are kept: the legal table, on one page.

The maximum a class of events may be kept, in days. An organization or a client may ask for less,
never for more. `system` is the class of the category System Performance; every other event has the
class of its privacy level.
"""

from __future__ import annotations

from mlc_broker.model.event import Privacy, Retention

DAYS_MAX: dict[Retention, int] = {
    "standard": 2_555,  # seven years
    "sensitive": 1_095,  # three years
    "pii": 365,  # and anonymized before it is written
    "system": 365,
}

STRICTNESS: dict[Privacy, int] = {"standard": 0, "sensitive": 1, "pii": 2}


def stricter(a: Privacy, b: Privacy | None) -> Privacy:
    """Return the stricter of two privacy levels; a client may raise a level, never lower it."""
    return b if b is not None and STRICTNESS[b] > STRICTNESS[a] else a
