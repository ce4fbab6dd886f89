"""The packed columns of events: what filters, scopes, expiry and sealing look at."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor
from struct import Struct as Layout
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from mlc_broker.model.event import EMPTY, Event
from mlc_broker.model.principal import CATEGORIES, Role

Rows = NDArray[Any]  # of ROW

# One row an event. Words are codes of the file's dictionary; 0 is absent.
ROW = np.dtype(
    [
        ("ts", "<i8"),  # the event's timestamp, epoch ms
        ("type", "<u4"),
        ("organization", "<u4"),
        ("user", "<u4"),
        ("session", "<u4"),
        ("classes", "<u4"),  # of the user at the time, by the roster: the sorted set as one word
        ("context_class", "<u4"),
        ("teacher", "<u4"),  # context.teacher_id
        ("assignment", "<u4"),
        ("sequence", "<u4"),
        ("game", "<u4"),
        ("role", "u1"),
        ("category", "u1"),
        ("retention", "u1"),
        ("days", "<u2"),  # kept for, from the timestamp
        ("rate", "<f4"),
    ]
)
WORD_COLUMNS = tuple(name for name in ROW.names or () if ROW[name] == np.dtype("<u4"))
SET_MARK = "\x1f"  # begins a word that is a set of classes, and stands between its members
RETENTIONS = ("standard", "sensitive", "pii", "system")
DAYS_DEFAULT = {"standard": 2555, "sensitive": 1095, "pii": 365, "system": 365}
DAY_MS = 86_400_000

_CODE_OF_ROLE = {str(role): code for code, role in enumerate(Role, 1)}
_CODE_OF_CATEGORY = {name: code for code, name in enumerate(CATEGORIES, 1)}
_CODE_OF_RETENTION = {name: code for code, name in enumerate(RETENTIONS)}
_pack_row = Layout("<q10I3BHf").pack


class Keys(Struct, frozen=True, gc=False):
    """The ids that stand inside the open parts of an event."""

    class_id: str | None = None
    teacher_id: str | None = None
    assignment_id: str | None = None
    sequence_id: str | None = None


class _Game(Struct, gc=False):
    game_id: str | None = None


NO_KEYS = Keys()
_CONTEXTS_MAX = 4096
_contexts: dict[bytes, Keys] = {}
_decode_keys = msgspec.json.Decoder(Keys).decode
_decode_game = msgspec.json.Decoder(_Game).decode


def keys_of(context: Raw) -> Keys:
    """Return the ids in a context; the last few thousand different ones are remembered."""
    if context is EMPTY:
        return NO_KEYS
    raw = bytes(context)
    keys = _contexts.get(raw)
    if keys is None:
        if len(_contexts) >= _CONTEXTS_MAX:
            _contexts.clear()
        keys = _contexts[raw] = _keys(raw)
    return keys


def game_of(properties: Raw) -> str | None:
    """Return `properties.game_id`, where it is text."""
    if properties is EMPTY:
        return None
    try:
        return _decode_game(properties).game_id
    except msgspec.MsgspecError:
        return _text(msgspec.json.decode(properties), "game_id")


class Dictionary:
    """The words of one file and their codes; a word keeps its code as long as the file lives."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words: list[str] = [""]
        self._codes: dict[str, int] = {}
        self._sets: list[int] = []
        self.extend(words)

    def __len__(self) -> int:
        return len(self.words)

    def extend(self, words: Iterable[str]) -> None:
        """Add words in order; the first new one gets the code `len(self)`."""
        for word in words:
            self.code(word)

    def code(self, word: str | None) -> int:
        """Return the word's code, a new one for a new word; 0 for None and the empty word."""
        if not word:
            return 0
        code = self._codes.get(word)
        if code is None:
            code = self._codes[word] = len(self.words)
            self.words.append(word)
            if word[0] == SET_MARK:
                self._sets.append(code)
        return code

    def codes(self, words: Iterable[str]) -> list[int]:
        """Return the codes of those words that the file knows."""
        return [code for word in words if (code := self._codes.get(word))]

    def sets_with(self, class_ids: frozenset[str]) -> list[int]:
        """Return the codes of the class sets that hold any of these classes."""
        words = self.words
        return [c for c in self._sets if not class_ids.isdisjoint(words[c].split(SET_MARK))]


class RowWriter:
    """Makes rows of events; codes of what repeats in a commit are looked up once."""

    def __init__(self, dictionary: Dictionary, categories: dict[str, str]) -> None:
        self._dictionary = dictionary
        self._categories = categories
        self._sets: dict[tuple[str, ...], int] = {}

    def row(self, event: Event, timestamp_ms: int) -> bytes:
        """Return the event's packed columns, as one item of ROW."""
        facts = event.facts
        code = self._dictionary.code
        keys = keys_of(event.context_json)
        return _pack_row(
            timestamp_ms,
            code(event.event_type),
            code(event.organization_id),
            code(event.user_id),
            code(event.session_id),
            self._set(facts.class_ids) if facts.class_ids else 0,
            code(keys.class_id) if keys.class_id else 0,
            code(keys.teacher_id) if keys.teacher_id else 0,
            code(keys.assignment_id) if keys.assignment_id else 0,
            code(keys.sequence_id) if keys.sequence_id else 0,
            code(game_of(event.properties_json)),
            code_of_role(facts.role),
            code_of_category(self._categories.get(event.event_type)),
            _CODE_OF_RETENTION[facts.retention],
            facts.retention_days or event.retention_days or DAYS_DEFAULT[facts.retention],
            facts.sample_rate,
        )

    def _set(self, class_ids: tuple[str, ...]) -> int:
        code = self._sets.get(class_ids)
        if code is None:
            word = SET_MARK + SET_MARK.join(class_ids) if class_ids else ""
            code = self._sets[class_ids] = self._dictionary.code(word)
        return code


def epoch_ms(event: Event) -> int:
    """Return the event's timestamp in ms since 1970, cut as `rfc3339` cuts it."""
    return floor(event.timestamp.timestamp() * 1000 + 0.0005)


def code_of_role(role: str | None) -> int:
    """Return the code of a role; 0 for none and for one that we do not know."""
    return _CODE_OF_ROLE.get(role, 0) if role else 0


def code_of_category(category: str | None) -> int:
    """Return the code of a category; 0 for none and for one that we do not know."""
    return _CODE_OF_CATEGORY.get(category, 0) if category else 0


def by_column(rows: Rows) -> bytes:
    """Return the rows column after column: that is how they compress best."""
    return b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in ROW.names or ())


def by_row(columns: bytes, count: int) -> Rows:
    """Return the rows of what `by_column` wrote."""
    rows = np.empty(count, ROW)
    at = 0
    for name in ROW.names or ():
        kind = ROW[name]
        rows[name] = np.frombuffer(columns, kind, count, at)
        at += kind.itemsize * count
    return rows


def _keys(raw: bytes) -> Keys:
    try:
        return _decode_keys(raw)
    except msgspec.MsgspecError:  # an id that is no text: the others still count
        value = msgspec.json.decode(raw)
        return Keys(*(_text(value, name) for name in Keys.__struct_fields__))


def _text(value: Any, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
