"""Folds committed events into cells, in memory. Order does not matter: sums, minima, sets.

A Delta is what is to be added to the file. Folding is pure: the same events give the same Delta
live, from packs after a crash, and in a recount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from mlc_broker.model.event import Event
from mlc_broker.model.metric import Metric
from mlc_broker.store.columns import DAYS_DEFAULT, epoch_ms
from mlc_broker.store.rollups_pick import Pick, Plan, plans_of
from mlc_broker.store.rollups_schema import PERSONAL, WEIGHT
from mlc_broker.store.rollups_words import Device, Place, Words

MINUTE_MS = 60_000
_QUARTER_MS = 15 * MINUTE_MS  # zones change at quarters of an hour
_CACHED_MAX = 8192
# organization, user, standing, kind, days, weight, shift in ms, where, and the rest of a session's key
Group = tuple[int, int, int, int, int, int, int, Place, tuple[int, int, int, int, int] | None]
_NEW: Any = object()
Hidden = frozenset[tuple[str, str]]
_device = msgspec.json.Decoder(Device).decode
_place = msgspec.json.Decoder(Place).decode


class Delta(Struct):
    """Cells to add: for each table, values by key. What two rows of a key become is fixed."""

    activity: dict[tuple[int, ...], int] = {}
    session: dict[tuple[int, ...], tuple[int, int]] = {}
    play: dict[tuple[int, ...], tuple[int, ...]] = {}
    mark: dict[tuple[int, ...], int] = {}
    sample: dict[tuple[int, ...], tuple[int, int, int, int]] = {}
    events: int = 0  # folded into it

    @property
    def cells(self) -> int:
        """How many cells it holds."""
        return sum(len(getattr(self, table)) for table in PERSONAL)


class Folder:
    """Turns events into a Delta; what repeats is looked up once."""

    def __init__(
        self,
        metrics: Iterable[Metric],
        categories: Callable[[str], str | None],
        zone_of: Callable[[str], str],
    ) -> None:
        """`zone_of` gives an organization's time zone by its id: asked once for each."""
        self.delta = Delta()
        self.words = Words()
        self.zones: dict[str, str] = {}  # by organization: those asked for
        self.types: dict[int, int] = {}  # event type: category, both as words
        self._kinds: dict[str, tuple[int, int]] = {}
        self._categories = categories
        self._zone_of = zone_of
        self._plans: dict[str, Plan] = plans_of(metrics)
        self._offsets: dict[tuple[str, int], int] = {}
        self._devices: dict[bytes, Device] = {}
        self._places: dict[bytes, Place] = {}
        self._pick = Pick(self.words)

    def fold(
        self,
        events: Sequence[Event],
        times: Iterable[int] | None = None,
        hidden: Hidden = frozenset(),
    ) -> None:
        """Count these events; `times` are their timestamps in epoch ms, where they are known."""
        groups: dict[tuple[Any, ...], Group | None] = {}
        plans, take, delta = self._plans, self._pick.take, self.delta
        activity, sessions = delta.activity, delta.session
        for event, ms in zip(events, times or map(epoch_ms, events), strict=True):
            event_type, facts = event.event_type, event.facts
            key = (
                event_type,
                event.user_id,
                event.session_id,
                event.organization_id,
                id(facts),  # these events hold them meanwhile
                ms // _QUARTER_MS,
                id(event.context_json),
                id(event.device_json),
                event.retention_days,
            )
            # Of events that differ in none of these, one speaks for all.
            group = groups.get(key, _NEW)
            if group is _NEW:
                group = groups[key] = self._group(event, ms, hidden)
            if group is None:
                continue
            org, user, standing, kind, days, weight, shift, where, seat = group
            at = (ms + shift) // MINUTE_MS
            cell = (org, at, user, standing, kind, days)
            activity[cell] = activity.get(cell, 0) + weight
            if seat is not None:
                chair = (org, at - at % 1440, *seat)
                known = sessions.get(chair)
                if known is None:
                    sessions[chair] = (ms, ms)
                elif ms < known[0]:
                    sessions[chair] = (ms, known[1])
                elif ms > known[1]:
                    sessions[chair] = (known[0], ms)
            plan = plans.get(event_type)
            if plan is not None:
                take(delta, plan, event, where, (org, at, user, standing, days, weight, ms))
        delta.events += len(events)

    def _group(self, event: Event, ms: int, hidden: Hidden) -> Group | None:
        """Return what the cells of an event and its like have in common; None: they do not count."""
        organization = event.organization_id or ""
        if hidden and (organization, event.user_id or "") in hidden:
            return None
        words, facts = self.words, event.facts
        shift = self._offsets.get((organization, ms // _QUARTER_MS))
        if shift is None:
            shift = self._offset(organization, ms)
        where = self._placed(bytes(event.context_json))
        standing = words.standing(facts, self._on(bytes(event.device_json)), where)
        kind, category = self._kinds.get(event.event_type) or self._kind(event.event_type)
        org, user = words.id(organization), words.id(event.user_id)
        days = facts.retention_days or event.retention_days or DAYS_DEFAULT
        rate = facts.sample_rate
        weight = WEIGHT if rate == 1.0 else round(WEIGHT / rate)
        seat = None
        if event.session_id is not None:
            seat = (user, words.short(event.session_id), standing, category, days)
        return org, user, standing, kind, days, weight, shift, where, seat

    def fresh(self) -> Delta:
        """Begin a new Delta; return the old one."""
        old, self.delta = self.delta, Delta()
        return old

    def forget(self) -> None:
        """Forget what was noted but not written: the words are noted again as they come."""
        self.fresh()
        self.words.clear()
        self._kinds.clear()
        self.types.clear()

    def _offset(self, organization: str, ms: int) -> int:
        zone = self.zones.get(organization)
        if zone is None:
            zone = self.zones[organization] = self._zone_of(organization)
        moment = datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZoneInfo(zone))
        offset = moment.utcoffset()
        if len(self._offsets) >= _CACHED_MAX:
            self._offsets.clear()
        found = 0 if offset is None else round(offset.total_seconds()) * 1000
        self._offsets[organization, ms // _QUARTER_MS] = found
        return found

    def _kind(self, event_type: str) -> tuple[int, int]:
        category = self._categories(event_type) or ""
        kind, number = self.words.id(event_type), self.words.id(category)
        self.types[kind] = number
        found = self._kinds[event_type] = (kind, number)
        return found

    def _on(self, raw: bytes) -> Device:
        found = self._devices.get(raw)
        if found is None:
            if len(self._devices) >= _CACHED_MAX:
                self._devices.clear()
            found = self._devices[raw] = _lenient(_device, raw, Device)
        return found

    def _placed(self, raw: bytes) -> Place:
        found = self._places.get(raw)
        if found is None:
            if len(self._places) >= _CACHED_MAX:
                self._places.clear()
            found = self._places[raw] = _lenient(_place, raw, Place)
        return found


def _lenient(decode: Callable[[bytes], Any], raw: bytes, kind: type[Any]) -> Any:
    """Decode what is of the right type; the rest counts as missing."""
    try:
        return decode(raw)
    except msgspec.MsgspecError:
        value = msgspec.json.decode(raw)
        known = value if isinstance(value, dict) else {}
        names = kind.__struct_fields__
        return kind(**{n: known[n] for n in names if isinstance(known.get(n), str)})
