"""Words as numbers, without a dictionary: 63 bits of a hash, the same in every file and recount."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import msgspec
from msgspec import Struct

from mlc_broker.model.event import Facts
from mlc_broker.store.rollups_schema import CLASS, CONCEPT, EXPERIMENT, OF_CONTEXT, TEACHER

CACHED_MAX = 200_000  # words kept at hand
_MASK = 2**63 - 1


class Device(Struct, gc=False, frozen=True):
    """What of a device is a dimension."""

    platform: str | None = None
    browser: str | None = None


class Place(Struct, gc=False, frozen=True):
    """What of a context is a dimension."""

    class_id: str | None = None
    teacher_id: str | None = None
    assignment_id: str | None = None
    sequence_id: str | None = None
    run_id: str | None = None
    experiments: dict[str, str] | None = None


NOWHERE, NO_DEVICE = Place(), Device()


def word_id(text: str | None) -> int:
    """Return the number of a word; 0 is no word."""
    if not text:
        return 0
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") & _MASK) or 1


class Words:
    """Numbers of words, and the rows of `word`, `standing` and `member` that they need."""

    def __init__(self) -> None:
        self.new: dict[int, str] = {}
        self.standings: dict[int, tuple[int, int, int, int, int]] = {}
        self.members: set[tuple[int, int, int]] = set()
        self._ids: dict[str, int] = {}
        self._standings: dict[tuple[object, ...], int] = {}
        self._sets: dict[tuple[str, ...], int] = {}
        self._short: dict[str, int] = {}

    def id(self, text: str | None) -> int:
        """Return the number of a word, and see to it that it can be read back."""
        if not text:
            return 0
        found = self._ids.get(text)
        if found is None:
            if len(self._ids) >= CACHED_MAX:
                self._ids.clear()
            found = self._ids[text] = word_id(text)
            self.new[found] = text
        return found

    def short(self, text: str) -> int:
        """Return the number of a word that nobody needs to read back."""
        found = self._short.get(text)
        if found is None:
            if len(self._short) >= CACHED_MAX:
                self._short.clear()
            found = self._short[text] = word_id(text)
        return found

    def concepts(self, tags: Iterable[str]) -> int:
        """Return the number of a set of concepts."""
        key = tuple(sorted(set(tags)))
        if not key:
            return 0
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= CACHED_MAX:
                self._sets.clear()
            found = self._sets[key] = word_id("\x1f".join(("concepts", *key)))
            self.members.update((found, CONCEPT, self.id(tag)) for tag in key)
        return found

    def standing(self, facts: Facts, device: Device, place: Place) -> int:
        """Return the number of who somebody is just then: role, classes, teachers, device, groups."""
        key = (
            facts.role,
            facts.class_ids,
            facts.teacher_ids,
            facts.generic,
            facts.impersonated,
            device,
            place.teacher_id,
            None if place.experiments is None else tuple(sorted(place.experiments.items())),
        )
        found = self._standings.get(key)
        return found if found is not None else self._stand(key, facts, device, place)

    def forget(self, text: str) -> None:
        """Forget a word, so that it is written again when it comes again."""
        self._ids.pop(text, None)

    def clear(self) -> None:
        """Forget all: what was noted is not in the file."""
        for memory in (
            self.new,
            self.standings,
            self.members,
            self._ids,
            self._standings,
            self._sets,
        ):
            memory.clear()

    def written(self) -> None:
        """Let go of the rows that are in the file now."""
        self.new, self.standings, self.members = {}, {}, set()

    def _stand(self, key: tuple[object, ...], facts: Facts, device: Device, place: Place) -> int:
        if len(self._standings) >= CACHED_MAX:
            self._standings.clear()
        number = word_id(msgspec.json.encode(key).decode())
        self._standings[key] = number
        person = not facts.generic and not facts.impersonated
        # A person who is not in the roster is treated as a child, and so as a student.
        learner = person and facts.role in (None, "student")
        self.standings[number] = (
            self.id(facts.role),
            int(learner),
            int(person),
            self.id(device.platform),
            self.id(device.browser),
        )
        members = [(CLASS, name) for name in facts.class_ids]
        members += [(TEACHER, name) for name in {*facts.teacher_ids, place.teacher_id or ""}]
        members += [(OF_CONTEXT, place.teacher_id or "")]
        groups = (place.experiments or {}).items()
        members += [(EXPERIMENT, f"{name}:{variant}") for name, variant in groups]
        self.members.update((number, axis, self.id(name)) for axis, name in members if name)
        return number
