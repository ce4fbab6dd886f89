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

from mlc_broker.model.event import EMPTY, Event
from mlc_broker.model.metric import Metric
from mlc_broker.store.columns import DAYS_DEFAULT, epoch_ms
from mlc_broker.store.rollups_pick import Pick, Plan, plans_of
from mlc_broker.store.rollups_schema import PERSONAL, WEIGHT
from mlc_broker.store.rollups_words import NO_DEVICE, NOWHERE, Device, Place, Words, word_id

MINUTE_MS = 60_000
_QUARTER_MS = 15 * MINUTE_MS  # zones change at quarters of an hour
_CACHED_MAX = 8192
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
        self.types: dict[str, str] = {}  # event type: category
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
        delta, words, pick = self.delta, self.words, self._pick
        activity, session, ids = delta.activity, delta.session, words.id
        plans, offsets, types = self._plans, self._offsets, self.types
        for event, ms in zip(events, times or map(epoch_ms, events), strict=True):
            name = event.organization_id or ""
            if hidden and (name, event.user_id or "") in hidden:
                continue
            quarter = offsets.get((name, ms // _QUARTER_MS))
            at = (ms + (self._offset(name, ms) if quarter is None else quarter)) // MINUTE_MS
            facts = event.facts
            device = event.device_json
            context = event.context_json
            where = NOWHERE if context is EMPTY else self._placed(bytes(context))
            standing = words.standing(
                facts, NO_DEVICE if device is EMPTY else self._on(bytes(device)), where
            )
            kind = event.event_type
            category = types.get(kind) or self._category(kind)
            org, user = ids(name), ids(event.user_id)
            days = facts.retention_days or event.retention_days or DAYS_DEFAULT
            rate = facts.sample_rate
            weight = WEIGHT if rate == 1.0 else round(WEIGHT / rate)
            key = (org, at, user, standing, ids(kind), days)
            activity[key] = activity.get(key, 0) + weight
            if event.session_id is not None:
                # ids of sessions are hashed only: nobody needs to read them back
                key = (
                    org,
                    at - at % 1440,
                    user,
                    _short(event.session_id),
                    standing,
                    ids(category),
                    days,
                )
                known = session.get(key)
                if known is None:
                    session[key] = (ms, ms)
                elif not known[0] <= ms <= known[1]:
                    session[key] = (min(ms, known[0]), max(ms, known[1]))
            plan = plans.get(kind)
            if plan is not None:
                pick.take(delta, plan, event, where, (org, at, user, standing, days, weight, ms))
        delta.events += len(events)

    def fresh(self) -> Delta:
        """Begin a new Delta; return the old one."""
        old, self.delta = self.delta, Delta()
        return old

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

    def _category(self, event_type: str) -> str:
        found = self.types[event_type] = self._categories(event_type) or ""
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


_sessions: dict[str, int] = {}


def _short(text: str) -> int:
    found = _sessions.get(text)
    if found is None:
        if len(_sessions) >= _CACHED_MAX:
            _sessions.clear()
        found = _sessions[text] = word_id(text)
    return found
