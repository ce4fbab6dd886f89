"""An organization's calendar: instants to wall-clock minutes and back, windows, and buckets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from mlc_broker.model.errors import Malformed
from mlc_broker.model.event import rfc3339
from mlc_broker.query.metrics_sql import Asked

DAY = 1440  # minutes
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall-clock time has no zone
WINDOWS = ("today", "yesterday", "week", "month", "1h", "24h", "7d", "30d", "90d", "all")


class Calendar:
    """Minutes are counted by the organization's wall clock, as if it were UTC, since 1970."""

    def __init__(self, zone: ZoneInfo, now: datetime) -> None:
        self._zone = zone
        self.now_utc = int(now.timestamp() // 60)
        self.now = self.minute(now)

    def minute(self, moment: datetime) -> int:
        """Return the wall-clock minute of an instant."""
        local = moment.astimezone(self._zone).replace(tzinfo=None)
        return int((local - _EPOCH).total_seconds() // 60)

    def moment(self, minute: int) -> datetime:
        """Return the instant of a wall-clock minute."""
        local = (_EPOCH + timedelta(minutes=minute)).replace(tzinfo=self._zone)
        return local.astimezone(UTC)

    def written(self, ms: int) -> str:
        """Return how an instant is written; epoch ms."""
        return rfc3339(datetime.fromtimestamp(ms / 1000, UTC))

    def window(
        self, begin: datetime | None, end: datetime | None, grain: str
    ) -> tuple[int | None, int | None]:
        """Return the minutes of a window, widened to whole minutes, hours or days by its grain."""
        if begin is not None and end is not None and begin >= end:
            raise Malformed("`from` must be before `to`.")
        unit = {"minute": 1, "hour": 60}.get(grain, DAY)
        first = None if begin is None else self.minute(begin) // unit * unit
        last = None if end is None else -(-self.minute(end) // unit) * unit
        return first, last

    def before(self, asked: Asked) -> Asked:
        """Return the same question about the period before, as long as the one asked for."""
        assert asked.begin is not None
        length = self._end(asked) - asked.begin
        return msgspec.structs.replace(asked, begin=asked.begin - length, end=asked.begin)

    def place(self, at: int, asked: Asked) -> int:
        """Return which bucket of its window one is: the first is 0."""
        if asked.grain == "total" or asked.begin is None:
            return 0
        if asked.grain == "month":
            first, now = (_EPOCH + timedelta(minutes=m) for m in (asked.begin, at))
            return (now.year - first.year) * 12 + now.month - first.month
        length = {"minute": 1, "hour": 60, "day": DAY, "week": 7 * DAY}[asked.grain]
        return -(-(at - asked.begin) // length)

    def instant(self, at: int, asked: Asked) -> str | None:
        """Return how a bucket's begin is written; a total begins with its window."""
        if asked.grain != "total":
            return rfc3339(self.moment(at))
        return None if asked.begin is None else rfc3339(self.moment(asked.begin))

    def days_of(self, at: int, asked: Asked) -> int:
        """Return how many days of a bucket lie in the window and have begun."""
        first, last = at, at + DAY
        if asked.grain == "week":
            last = at + 7 * DAY
        elif asked.grain == "month":
            day = _EPOCH + timedelta(minutes=at)
            after = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
            last = at + (after - day).days * DAY
        elif asked.grain == "total":
            first, last = (0 if asked.begin is None else asked.begin), self._end(asked)
        first = first if asked.begin is None else max(first, asked.begin)
        last = min(last, self._end(asked))
        return max(1, -(-(last - first) // DAY))

    def of_window(self, window: str) -> tuple[datetime | None, datetime | None]:
        """Return begin and end of a window by its name; raises Malformed."""
        today = self.now // DAY * DAY
        begins = {
            "today": today,
            "yesterday": today - DAY,
            "week": today - (today // DAY + 3) % 7 * DAY,
            "month": today - (_EPOCH + timedelta(minutes=today)).day * DAY + DAY,
            "1h": self.now - 60,
            "24h": self.now - DAY,
            "7d": today - 6 * DAY,
            "30d": today - 29 * DAY,
            "90d": today - 89 * DAY,
        }
        if window == "all":
            return None, None
        if window not in begins:
            raise Malformed(f"There is no window `{window[:32]}`; there are {', '.join(WINDOWS)}.")
        return self.moment(begins[window]), self.moment(today) if window == "yesterday" else None

    def _end(self, asked: Asked) -> int:
        """Return the end of a window: at latest that of today."""
        today = self.now // DAY * DAY + DAY
        return today if asked.end is None else min(asked.end, today)
