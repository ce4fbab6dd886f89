"""Wall time, handed in: whoever stamps or expires asks a Clock, never the system."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time. Elapsed time is trio's."""

    def now(self) -> datetime:
        """Return the time in UTC."""


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.fromtimestamp(time.time(), UTC)
