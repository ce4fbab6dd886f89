"""Nothing unscrubbed goes past this room: law 5. It holds when it breaks; it never fails open."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from mlc_broker.model.event import EMPTY, Event
from mlc_broker.model.verdict import Drop, Verdict
from mlc_broker.pipeline.processor import Processor, Stage

# What is left of a device when its owner may not be recognized: coarse, shared by millions.
_COARSE_DEVICE = ("platform", "browser")


class Protect(Processor):
    """Anonymize what is personal; take from a child's events what points to the child.

    Decided by decisions.md ('Parental consent under 13', 'Anonymization', 'Consent').
    """

    name = "protect"
    stage = Stage.PROTECT
    pure: ClassVar[bool] = True

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """How people of unknown age are treated, and the key of the pseudonyms."""

        unknown_age: Literal["child", "adult"] = "child"
        pseudonym_key: Annotated[bytes, Meta(min_length=16, max_length=64)]

    settings: Settings

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return each event as it may be written, or its Drop."""
        return [self._protect(event) for event in events]

    def _protect(self, event: Event) -> Verdict:
        organization_id, user_id = event.organization_id, event.user_id
        if user_id is not None and organization_id is not None:
            if self.tools.roster.erased(organization_id, user_id, event.timestamp):
                return Drop("erased")
            if self._refused(event):
                return Drop("consent")
        child = self._is_unconsented_child(event)
        if event.privacy_level == "pii":
            return Drop("coppa") if child else self._anonymous(event)
        return _unrecognizable(event) if child else event

    def _refused(self, event: Event) -> bool:
        assert event.user_id is not None
        category = self.tools.catalog.types[event.event_type].category
        if event.organization_id is None:
            return False
        return not self.tools.roster.collects(event.organization_id, event.user_id, category)

    def _is_unconsented_child(self, event: Event) -> bool:
        facts = event.facts
        if facts.role is not None and facts.role != "student":
            return False
        if facts.age_band is None:
            return self.settings.unknown_age == "child" and not facts.consented
        return facts.age_band == "under_13" and not facts.consented

    def _anonymous(self, event: Event) -> Event:
        """Replace the person by a keyed hash, and drop what else points to them."""
        bare = _unrecognizable(event)
        return replace(
            bare,
            user_id=pseudonym(event.user_id, self.settings.pseudonym_key),
            session_id=None,
            facts=replace(bare.facts, class_ids=(), teacher_ids=(), age_band=None),
        )


def pseudonym(user_id: str | None, key: bytes) -> str | None:
    """Return `anon_` and a keyed BLAKE2b hash: the same for a person, of no use to others."""
    if user_id is None:
        return None
    return "anon_" + hashlib.blake2b(user_id.encode(), key=key, digest_size=16).hexdigest()


def _unrecognizable(event: Event) -> Event:
    """Keep of the device what millions share, and of addresses the path alone."""
    device = event.device_info
    coarse = {name: device[name] for name in _COARSE_DEVICE if name in device}
    context = event.context
    for name in ("page_url", "referrer"):
        if isinstance(context.get(name), str):
            context[name] = context[name].split("?", 1)[0].split("#", 1)[0]
    return replace(
        event,
        device_json=Raw(msgspec.json.encode(coarse)) if coarse else EMPTY,
        context_json=Raw(msgspec.json.encode(context)) if context else EMPTY,
    )
