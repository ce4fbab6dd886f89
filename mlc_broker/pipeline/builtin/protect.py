"""Nothing unscrubbed goes past this room: law 5. It holds when it breaks; it never fails open."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from mlc_broker.model.catalog import AnyType, Context, Device, EventType
from mlc_broker.model.event import EMPTY, Event
from mlc_broker.model.principal import BUSINESS, PERFORMANCE
from mlc_broker.model.types.base import properties_schema
from mlc_broker.model.verdict import Drop, Verdict
from mlc_broker.pipeline.builtin.personal import (
    BLOB_CHARS,
    CONTEXT_KEPT,
    CONTEXT_LINKS,
    DEVICE_KEPT,
    TOKEN_CHARS_MAX,
    Rules,
    cleaned,
    without,
)
from mlc_broker.pipeline.processor import Processor, Stage, Tools

_CACHED_MAX = 4096  # contexts, and devices: they repeat
_CACHED_BYTES_MAX = 2048  # of one: larger ones are looked at each time
_AT, _PERCENT = ord("@"), ord("%")
_ANONYMOUS = re.compile(r"anon_[0-9a-f]{32}")
_ERASED = Drop("erased")
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_SAME = Raw(b"null")  # no part of an event: says that there was nothing to take


class Protect(Processor):
    """Anonymize what is personal; take from a child's events what points to the child.

    Decided by decisions.md ('Parental consent under 13', 'Anonymization', 'Consent'); what
    identifies is a table in `personal.py`.
    """

    name = "protect"
    stage = Stage.PROTECT
    pure: ClassVar[bool] = True

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """How people of unknown age are treated, and the key of the pseudonyms."""

        unknown_age: Literal["child", "adult"] = "child"
        pseudonym_key: Annotated[bytes, Meta(min_length=16, max_length=64)]

    settings: Settings

    def __init__(self, settings: Any, tools: Tools) -> None:
        super().__init__(settings, tools)
        self.changed: Counter[str] = Counter()  # events of which something was taken, by type
        self._types: dict[str, _Known] = {}
        self._anonymized = 0
        self._contexts = _Parts(frozenset(Context.__struct_fields__), CONTEXT_KEPT)
        self._devices = _Parts(frozenset(Device.__struct_fields__), DEVICE_KEPT)

    @property
    def removed(self) -> dict[str, int]:
        """Values that were taken out of events or replaced, by part of the event."""
        return {
            "properties": sum(known.removed for known in self._types.values()),
            "context": self._contexts.removed,
            "device": self._devices.removed,
            "user_id": self._anonymized,
        }

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return each event as it may be written, or its Drop."""
        # Within one call the roster stands still: what it says of a person is asked once.
        said: dict[tuple[object, ...], bool | Drop] = {}
        verdicts: list[Verdict] = []
        for event in events:
            who = (
                id(event.facts),  # these events hold them meanwhile
                event.user_id,
                event.organization_id,
                event.event_type,
                event.session_id is None,
            )
            strict = said.get(who)
            if strict is None:
                strict = self._strictness(event)
                if self._erased(event, _EARLIEST):  # then it depends on the event's time
                    strict = _ERASED if self._erased(event, event.timestamp) else strict
                else:
                    said[who] = strict
            if type(strict) is Drop:
                verdicts.append(strict)
            elif event.privacy_level == "pii":
                verdicts.append(self._personal(event, child=strict is True))
            else:
                verdicts.append(self._clean(event, strict=strict is True))
        return verdicts

    def _strictness(self, event: Event) -> bool | Drop:
        """Return whether the event is treated as a child's; or the Drop of who denied consent."""
        organization_id, user_id = event.organization_id, event.user_id
        if user_id is not None and organization_id is not None:
            category = self._known(event.event_type).category
            if not self.tools.roster.collects(organization_id, user_id, category):
                return Drop("consent")
        return self._is_unconsented_child(event)

    def _erased(self, event: Event, at: datetime) -> bool:
        """Return whether what the event's person did at that time was erased."""
        organization_id, user_id = event.organization_id, event.user_id
        if user_id is None or organization_id is None:
            return False
        return self.tools.roster.erased(organization_id, user_id, at)

    def _personal(self, event: Event, *, child: bool) -> Verdict:
        """Return an event that its sender marked as personal, without the person."""
        user_id = event.user_id
        if user_id is not None and _ANONYMOUS.fullmatch(user_id):
            return self._clean(event, strict=True)  # replayed: it has been here before
        return Drop("coppa") if child else self._anonymous(event)

    def _is_unconsented_child(self, event: Event) -> bool:
        facts = event.facts
        impersonal = self._known(event.event_type).category in (PERFORMANCE, BUSINESS)
        if impersonal and event.user_id is None and event.session_id is None:
            return False  # a server speaks of itself
        if facts.role is not None and facts.role != "student":
            return False
        if facts.age_band is None:
            return self.settings.unknown_age == "child" and not facts.consented
        return facts.age_band == "under_13" and not facts.consented

    def _clean(self, event: Event, *, strict: bool) -> Event:
        """Return the event without what identifies; the same one where there was nothing."""
        known = self._types.get(event.event_type) or self._known(event.event_type)
        properties = known.clean(event.properties_json, strict=strict)
        context = self._contexts.clean(event.context_json, strict=strict)
        device = self._devices.clean(event.device_json, strict=strict)
        if (
            properties is event.properties_json
            and context is event.context_json
            and device is event.device_json
        ):
            return event
        self.changed[event.event_type] += 1
        return replace(event, properties_json=properties, context_json=context, device_json=device)

    def _known(self, event_type: str) -> _Known:
        known = self._types.get(event_type)
        if known is None:
            known = self._types[event_type] = _Known(self.tools.catalog.types[event_type])
        return known

    def _anonymous(self, event: Event) -> Event:
        """Replace the person by a keyed hash, and drop what else points to them."""
        bare = self._clean(event, strict=True)
        anonymous = pseudonym(event.user_id, self.settings.pseudonym_key)
        self._anonymized += anonymous is not None
        context = {k: v for k, v in bare.context.items() if k not in CONTEXT_LINKS}
        properties = bare.properties
        for word in (event.user_id, event.session_id):
            if word is not None:
                context = without(context, word, anonymous)
                properties = without(properties, word, anonymous)
        return replace(
            bare,
            user_id=anonymous,
            session_id=None,
            context_json=_raw(context),
            properties_json=_raw(properties),
            facts=replace(bare.facts, class_ids=(), teacher_ids=(), age_band=None),
        )


def pseudonym(user_id: str | None, key: bytes) -> str | None:
    """Return `anon_` and a keyed BLAKE2b hash: the same for a person, of no use to others."""
    if user_id is None:
        return None
    return "anon_" + hashlib.blake2b(user_id.encode(), key=key, digest_size=16).hexdigest()


class _Known:
    """What the schema of a type knows, and the quick proof that its properties hold no more."""

    def __init__(self, kind: AnyType) -> None:
        self.category = kind.category
        self.removed = 0
        fields, text, quiet = frozenset[str](), frozenset[str](), list[str]()
        if isinstance(kind, EventType):  # of a school's own type everything is looked at
            fields, text = frozenset(kind.properties.__struct_fields__), kind.text
            quiet = _quiet_fields(kind.properties)
        self._rules = {
            (strict, calm): Rules(
                strict=strict, known=fields, text=text, quiet=frozenset(quiet if calm else ())
            )
            for strict in (False, True)
            for calm in (False, True)
        }
        self._only_quiet = msgspec.json.Decoder(
            msgspec.defstruct(
                "Quiet",
                [(name, Raw, msgspec.field(default=EMPTY)) for name in quiet],
                forbid_unknown_fields=True,
                gc=False,
            )
        ).decode

    def clean(self, raw: Raw, *, strict: bool) -> Raw:
        """Return the properties without what identifies."""
        if raw is EMPTY:
            return raw
        calm = not _alarming(bytes(raw))
        if calm:
            try:
                self._only_quiet(raw)
            except msgspec.ValidationError:
                pass
            else:
                return raw
        clean, removed = _cleaned(raw, self._rules[strict, calm])
        self.removed += removed
        return clean


class _Parts:
    """Contexts or devices: they repeat, so each is looked at once."""

    def __init__(self, known: frozenset[str], kept_of_strict: frozenset[str]) -> None:
        self._rules = {strict: Rules(strict=strict, known=known) for strict in (False, True)}
        self._kept = kept_of_strict
        self._seen: dict[bool, dict[bytes, tuple[Raw, int]]] = {False: {}, True: {}}
        self._met: dict[bool, dict[int, tuple[Raw, Raw, int]]] = {False: {}, True: {}}
        self.removed = 0

    def clean(self, raw: Raw, *, strict: bool) -> Raw:
        """Return the part without what identifies; of strict ones, what is listed alone."""
        # Validate gives one object for all that say the same: that is found without reading it.
        met = self._met[strict].get(id(raw))
        if met is not None and met[0] is raw:
            _, clean, removed = met
        elif raw is EMPTY:
            return raw
        else:
            clean, removed = self._remembered(raw, strict=strict)
        self.removed += removed
        return clean

    def _remembered(self, raw: Raw, *, strict: bool) -> tuple[Raw, int]:
        seen, met, key = self._seen[strict], self._met[strict], bytes(raw)
        found = seen.get(key)
        if found is None:
            if len(seen) >= _CACHED_MAX:
                seen.clear()
            found = self._look(raw, strict=strict)
            if len(key) <= _CACHED_BYTES_MAX:
                seen[key] = found
        clean, removed = found
        clean = raw if clean is _SAME else clean
        if len(key) <= _CACHED_BYTES_MAX:
            if len(met) >= _CACHED_MAX:
                met.clear()
            met[id(raw)] = (raw, clean, removed)
        return clean, removed

    def _look(self, raw: Raw, *, strict: bool) -> tuple[Raw, int]:
        clean, removed = _cleaned(raw, self._rules[strict], self._kept if strict else None)
        if clean is raw:
            return _SAME, 0  # what is remembered must not hold the whole message it came with
        return clean, removed


def _cleaned(raw: Raw, rules: Rules, kept: frozenset[str] | None = None) -> tuple[Raw, int]:
    """Return the part without what identifies, and how many values that was."""
    before = msgspec.json.decode(raw)
    if not isinstance(before, dict):
        return EMPTY, 1
    part = before if kept is None else {key: before[key] for key in before if key in kept}
    after = cleaned(part, rules)
    return (raw, 0) if after == before else (_raw(after), _changed(before, after))


def _changed(old: Any, new: Any) -> int:
    if isinstance(old, dict) and isinstance(new, dict):
        return sum(_changed(value, new.get(key, _SAME)) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return sum(map(_changed, old, new))
    return int(old != new)


def _raw(value: dict[str, Any]) -> Raw:
    return Raw(msgspec.json.encode(value)) if value else EMPTY


def _alarming(data: bytes) -> bool:
    """Return whether bytes of JSON may hold an e-mail address or a blob, even in a quiet field."""
    # One byte is found many times sooner than three.
    return (
        len(data) > BLOB_CHARS
        or data.find(_AT) >= 0
        or (data.find(_PERCENT) >= 0 and b"%40" in data)
        or (not data.isascii() and b"\xef\xbc\xa0" in data)
    )


def _quiet_fields(properties: type[Struct]) -> list[str]:
    """Return the fields that hold numbers, short words, or one of a set: no room for a text."""
    fields = properties_schema(properties)["properties"]
    return [name for name, field in fields.items() if _is_quiet(field)]


def _is_quiet(field: dict[str, Any]) -> bool:
    if "anyOf" in field:
        return all(_is_quiet(kind) for kind in field["anyOf"])
    if field.get("type") == "array":
        return _is_quiet(field.get("items", {}))
    if field.get("type") == "string" and "enum" not in field:
        return bool(field.get("maxLength", TOKEN_CHARS_MAX + 1) <= TOKEN_CHARS_MAX)
    return "enum" in field or field.get("type") in ("integer", "number", "boolean", "null")
