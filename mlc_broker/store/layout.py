"""Which file an event lives in. Pure: names and arithmetic, no disk."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Self

from msgspec import Struct

from mlc_broker.store.columns import DAY_MS, RETENTIONS

HOT = "hot"
SHARDS = "shards"
META = "meta.db"
LOCK = ".lock"


class Home(Struct, frozen=True, order=True, gc=False):
    """A file of sealed events: their retention class, their month in UTC, their slot."""

    retention: str
    month: str  # YYYY-MM
    slot: int = 0

    @property
    def path(self) -> str:
        """Where the home lies, relative to the data directory, before any rewriting."""
        return f"{SHARDS}/{self.retention}/{self.month}/{self.slot}.db"

    @classmethod
    def of_path(cls, path: str) -> Self:
        """Return the home of that path (as `path` gives it)."""
        _, retention, month, name = path.split("/")
        if retention not in RETENTIONS or not name.endswith(".db"):
            raise ValueError(f"{path} is no home of ours")
        return cls(retention, month, int(name.split(".")[0]))

    @property
    def begin_ms(self) -> int:
        """Return the first ms of the month."""
        return _ms(*self._year_month())

    @property
    def end_ms(self) -> int:
        """Return the first ms of the next month."""
        year, month = self._year_month()
        return _ms(year + month // 12, month % 12 + 1)

    def _year_month(self) -> tuple[int, int]:
        year, month = self.month.split("-")
        return int(year), int(month)


def home_of(retention: str, timestamp_ms: int, organization_id: str | None, slots: int) -> Home:
    """Return the home of an event; `timestamp_ms` since 1970."""
    return Home(retention, month_of(timestamp_ms), slot_of(organization_id, slots))


def month_of(timestamp_ms: int) -> str:
    """Return the month in UTC, as YYYY-MM."""
    return datetime.fromtimestamp(timestamp_ms // 1000, UTC).strftime("%Y-%m")


def months_around(timestamp_ms: int) -> set[str]:
    """Return the months in which a resend of an event may have been filed: a clock moves it."""
    return {month_of(timestamp_ms + shift) for shift in (-DAY_MS, 0, DAY_MS)}


def slot_of(organization_id: str | None, slots: int) -> int:
    """Return the slot of an organization: the same on every machine and in every release."""
    if slots == 1:
        return 0
    digest = blake2b((organization_id or "").encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % slots


def hot_path(directory: Path, number: int) -> Path:
    """Return where hot file `number` lies."""
    return directory / HOT / f"{number:08d}.db"


def home_path(directory: Path, home: Home, version: int) -> Path:
    """Return where a home lies; each rewriting gives it a new version, and so a new name."""
    path = directory / home.path
    return path if version == 0 else path.with_name(f"{home.slot}.{version}.db")


def _ms(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000
