"""Across organizations nobody has a name: user ids become keyed hashes, wherever they stand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

PREFIX = "pseudo_"
# Keys whose value names a person: user_id, teacherId, actor_id, student_ids, created_by …
_PERSON = re.compile(
    r"(^|_)(user|teacher|student|actor|person|people|parent|guardian|admin|administrator|sender|"
    r"recipient|author|owner|member|learner|instructor|inviter|invitee|impersonator|reviewer|"
    r"target_user|winner|opponent|player|impersonation)(_?ids?|_?names?)?$"
    r"|(^|_)(by|email|e_mail|login|phone|(display|full|first|last|nick)_?name)$"
)
_SHORT = 4  # an id of fewer characters is replaced only where it stands alone
_PEOPLE_MAX = 20_000
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Pseudonyms:
    """The same person gets the same pseudonym, in another organization a different one."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(b"across organizations", key=key[:64]).digest()
        self._known: dict[tuple[str, str], str] = {}

    def of(self, organization_id: str | None, user_id: str) -> str:
        """Return a person's pseudonym."""
        who = (organization_id or "", user_id)
        found = self._known.get(who)
        if found is None:
            if len(self._known) >= _PEOPLE_MAX:
                self._known.clear()
            text = f"{len(who[0])}:{who[0]}:{user_id}".encode()
            digest = hashlib.blake2b(text, key=self._key, digest_size=16)
            found = self._known[who] = PREFIX + digest.hexdigest()
        return found

    def line(self, line: bytes) -> bytes:
        """Return a stored line with every person's id replaced."""
        return _encode(self.event(_decode(line)))

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return a decoded event with every person's id replaced."""
        organization = event.get("organization_id")
        people: dict[str, str] = {}
        _collect(event, people, lambda user: self.of(organization, user))
        changed: dict[str, Any] = _replaced(event, people, _pattern(people))
        # What identifies the event and its place is no person's, even where it reads like one.
        for name in ("event_id", "event_type", "timestamp", "organization_id"):
            if name in event:
                changed[name] = event[name]
        return changed


def _collect(value: Any, people: dict[str, str], name: Callable[[str], str]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if _is_person(key):
                for user in inner if isinstance(inner, list) else [inner]:
                    if user and isinstance(user, str | int | float) and not isinstance(user, bool):
                        people[str(user)] = name(str(user))
            _collect(inner, people, name)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, people, name)


def _replaced(
    value: Any, people: dict[str, str], inside: re.Pattern[str] | None, *, person: bool = False
) -> Any:
    if isinstance(value, str):
        if value in people:
            return people[value]
        return inside.sub(lambda m: people[m.group()], value) if inside is not None else value
    if isinstance(value, dict):
        return {
            people.get(key, key): _replaced(inner, people, inside, person=_is_person(key))
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_replaced(inner, people, inside, person=person) for inner in value]
    return people.get(str(value), value) if person else value


def _pattern(people: dict[str, str]) -> re.Pattern[str] | None:
    """Return what finds an id inside a longer text: `/students/usr_1/scores`."""
    long = sorted((user for user in people if len(user) >= _SHORT), key=len, reverse=True)
    if not long:
        return None
    return re.compile(
        r"(?<![A-Za-z0-9_-])(?:" + "|".join(map(re.escape, long)) + r")(?![A-Za-z0-9_-])"
    )


@lru_cache(4096)
def _is_person(key: str) -> bool:
    return _PERSON.search(_snake(key[:128])) is not None


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
