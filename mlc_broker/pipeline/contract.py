"""What a processor's answer must be. A plugin's is taken at its word in nothing that matters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mlc_broker.model.catalog import Catalog, SchemaError
from mlc_broker.model.errors import ProcessorFailed
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Drop, Reject, Verdict

REASONS_MAX = 32  # different ones a processor: they are counted, one by one, for ever
REASON_CHARACTERS_MAX = 64
DETAIL_CHARACTERS_MAX = 500
EVENT_BYTES_MAX = 65_536
_RANK = {"standard": 0, "sensitive": 1, "pii": 2}
_SAME = ("event_id", "event_type", "user_id", "session_id", "organization_id", "timestamp")
_VERDICTS = frozenset({Event, Drop, Reject})
_event = msgspec.json.Decoder(Event)


class Contract:
    """Holds one processor to it. `outsider`: it is not ours, so more is looked at."""

    def __init__(self, name: str, *, outsider: bool, catalog: Catalog | None = None) -> None:
        self._name, self._outsider, self._catalog = name, outsider, catalog
        self._reasons: set[str] = set()

    def check(self, events: Sequence[Event], verdicts: object) -> Sequence[Verdict]:
        """Return the verdicts as they may be applied; ProcessorFailed says what is wrong."""
        if not isinstance(verdicts, list | tuple) or len(verdicts) != len(events):
            count = len(verdicts) if isinstance(verdicts, list | tuple) else _kind(verdicts)
            raise ProcessorFailed(f"{self._name} gave {count} verdicts for {len(events)} events")
        if self._outsider:
            return [self._own(*pair) for pair in zip(events, list(verdicts), strict=True)]
        if not _VERDICTS.issuperset(map(type, verdicts)):
            strange = next(each for each in verdicts if type(each) not in _VERDICTS)
            raise ProcessorFailed(self._nonsense(strange))
        return verdicts

    def _own(self, event: Event, verdict: object) -> Verdict:
        if verdict is event:
            return event
        match verdict:
            case Drop(reason):
                return Drop(self._reason(reason))
            case Reject(reason, detail) if isinstance(detail, str):
                return Reject(self._reason(reason), detail[:DETAIL_CHARACTERS_MAX])
            case _ if type(verdict) is Event:
                return self._changed(event, verdict)
        raise ProcessorFailed(self._nonsense(verdict))

    def _reason(self, reason: object) -> str:
        """A reason is counted under its name: a word, and not a new one each time."""
        if not isinstance(reason, str) or not 0 < len(reason) <= REASON_CHARACTERS_MAX:
            msg = f"{self._name} gave a reason that is no word of 1 to {REASON_CHARACTERS_MAX} letters"
            raise ProcessorFailed(msg)
        if reason not in self._reasons and len(self._reasons) >= REASONS_MAX:
            return "other"
        self._reasons.add(reason)
        return reason

    def _changed(self, before: Event, after: Event) -> Event:
        """A plugin stands behind protect: it may not undo what protect did (law 5)."""
        for field in _SAME:
            if getattr(before, field) != getattr(after, field):
                msg = f"{self._name} changed {field}, which only the built-in processors may"
                raise ProcessorFailed(msg)
        try:
            _event.decode(msgspec.json.encode(after))
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            msg = f"{self._name} made what is no event: {error}"
            raise ProcessorFailed(msg) from error
        self._check_facts(before, after)
        self._check_size(before, after)
        if self._catalog is None or after.properties_json == before.properties_json:
            return after
        kind = self._catalog.types.get(after.event_type)
        if kind is None:
            return after
        try:
            checked = kind.check(after.properties_json)
        except SchemaError as error:
            msg = f"{self._name} changed properties to what {after.event_type} cannot have: {error}"
            raise ProcessorFailed(msg) from error
        return msgspec.structs.replace(after, properties_json=checked.json)

    def _check_facts(self, before: Event, after: Event) -> None:
        known, said = before.facts, after.facts
        same = msgspec.structs.replace(
            said,
            concepts=known.concepts,
            streams=known.streams,
            retention_days=known.retention_days,
        )
        if same != known:
            msg = f"{self._name} changed facts other than concepts, streams and retention_days"
            raise ProcessorFailed(msg)
        if (
            said.retention_days > known.retention_days
            or _days(after) > _days(before)
            or _rank(after) < _rank(before)
        ):
            msg = f"{self._name} loosened privacy_level or retention, which may only be tightened"
            raise ProcessorFailed(msg)

    def _check_size(self, before: Event, after: Event) -> None:
        size = _size(after)
        if size > EVENT_BYTES_MAX and size > _size(before):
            msg = f"{self._name} made an event of {size} bytes; {EVENT_BYTES_MAX} is the most"
            raise ProcessorFailed(msg)

    def _nonsense(self, verdict: object) -> str:
        return f"{self._name} answered {_kind(verdict)}, not Event, Drop or Reject"


def describe(error: BaseException) -> str:
    """Say in one line what was raised."""
    try:
        text = str(error).split("\n", 1)[0][:DETAIL_CHARACTERS_MAX]
    except Exception:  # noqa: BLE001 (guard: a plugin's own exception may break on being read)
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(value: object) -> str:
    return type(value).__name__


def _rank(event: Event) -> int:
    return _RANK[event.privacy_level or "standard"]


def _days(event: Event) -> int:
    return event.retention_days if event.retention_days is not None else 10**9


def _size(event: Event) -> int:
    parts = (event.device_json, event.context_json, event.properties_json)
    return sum(len(bytes(part)) for part in parts)
