"""The packed columns of events: what filters, scopes, expiry and sealing look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct as Layout
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from mlc_broker.model.event import EMPTY, Event, Facts
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
DAYS_DEFAULT = 365  # where admission named none: the shortest of the classes
DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)

_CODE_OF_ROLE = {str(role): code for code, role in enumerate(Role, 1)}
_CODE_OF_CATEGORY = {name: code for code, name in enumerate(CATEGORIES, 1)}
_CODE_OF_RETENTION = {name: code for code, name in enumerate(RETENTIONS)}
_pack_row = Layout("<q10I3BHf").pack


class Keys(Struct, frozen=True, gc=False):
    """The ids that stand inside the context of an event."""

    class_id: str | None = None
    teacher_id: str | None = None
    assignment_id: str | None = None
    sequence_id: str | None = None


class _Game(Struct, gc=False):
    game_id: str | None = None


_decode_keys = msgspec.json.Decoder(Keys).decode
_decode_game = msgspec.json.Decoder(_Game).decode


def keys_of(context: bytes) -> Keys:
    """Return the ids in a context."""
    try:
        return _decode_keys(context)
    except msgspec.MsgspecError:  # an id that is no text: the others still count
        value = msgspec.json.decode(context)
        return Keys(*(_text(value, name) for name in Keys.__struct_fields__))


def game_of(properties: Raw) -> str | None:
    """Return `properties.game_id`, where it is text."""
    try:
        return _decode_game(properties).game_id
    except msgspec.MsgspecError:
        return _text(msgspec.json.decode(properties), "game_id")


class Dictionary:
    """The words of one file and their codes; a word keeps its code as long as the file lives."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words: list[str] = [""]
        self.code = _Codes(self.words)  # code[word]: a new code for a new word, 0 for None and ""
        self._sets_seen = 1
        self._sets: list[int] = []
        self.extend(words)

    def __len__(self) -> int:
        return len(self.words)

    def extend(self, words: Iterable[str]) -> None:
        """Add words in order; the first new one gets the code `len(self)`."""
        for word in words:
            _ = self.code[word]

    def code_of_set(self, class_ids: Sequence[str]) -> int:
        """Return the code of a set of classes."""
        return self.code[SET_MARK + SET_MARK.join(class_ids)] if class_ids else 0

    def codes(self, words: Iterable[str]) -> list[int]:
        """Return the codes of those words that the file knows."""
        return [code for word in words if (code := self.code.get(word))]

    def sets_with(self, class_ids: frozenset[str]) -> list[int]:
        """Return the codes of the class sets that hold any of these classes."""
        # Readers' threads ask while the loop adds words: take the end once, so that none is missed.
        words, end = self.words, len(self.words)
        self._sets += [c for c in range(self._sets_seen, end) if words[c][0] == SET_MARK]
        self._sets_seen = end
        return [c for c in self._sets if not class_ids.isdisjoint(words[c].split(SET_MARK))]


class _Codes(dict[str | None, int]):
    def __init__(self, words: list[str]) -> None:
        super().__init__({None: 0, "": 0})
        self._words = words

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self._words)
        self._words.append(word)
        return code


class RowWriter:
    """Makes rows of events; what repeats is looked up once."""

    def __init__(self, dictionary: Dictionary, categories: Callable[[str], str | None]) -> None:
        self._dictionary = dictionary
        self._code = dictionary.code
        self._ask_category = categories
        self._types: dict[str, tuple[int, int]] = {}
        self._contexts: dict[bytes, tuple[int, int, int, int]] = {}
        self._last: tuple[Raw, tuple[int, int, int, int]] = (EMPTY, (0, 0, 0, 0))

    def row(self, event: Event, timestamp_ms: int, by_facts: FactCodes) -> bytes:
        """Return the event's packed columns, as one item of ROW."""
        # On the way to every acknowledgement: calls are spared here, not lines.
        code = self._code
        raw, properties = event.context_json, event.properties_json
        if raw is not self._last[0]:  # those of one submission share theirs
            context = bytes(raw)
            self._last = (raw, self._contexts.get(context) or self._context(context))
        context_class, teacher, assignment, sequence = self._last[1]
        if properties is EMPTY:
            game = None
        else:
            try:
                game = _decode_game(properties).game_id
            except msgspec.MsgspecError:
                game = game_of(properties)
        kind, category = self._types.get(event.event_type) or self._type(event.event_type)
        classes, role, retention, days, rate = by_facts
        return _pack_row(
            timestamp_ms,
            kind,
            code[event.organization_id],
            code[event.user_id],
            code[event.session_id],
            classes,
            context_class,
            teacher,
            assignment,
            sequence,
            code[game],
            role,
            category,
            retention,
            days or event.retention_days or DAYS_DEFAULT,
            rate,
        )

    def facts(self, facts: Facts) -> FactCodes:
        """Return what an event's facts say in a row: class set, role, retention, days, rate."""
        return (
            self._dictionary.code_of_set(facts.class_ids),
            code_of_role(facts.role),
            _CODE_OF_RETENTION[facts.retention],
            facts.retention_days,
            facts.sample_rate,
        )

    def _type(self, event_type: str) -> tuple[int, int]:
        category = code_of_category(self._ask_category(event_type))
        found = (self._dictionary.code[event_type], category)
        if category:  # a type that is not known yet may be soon
            self._types[event_type] = found
        return found

    def _context(self, context: bytes) -> tuple[int, int, int, int]:
        if len(self._contexts) >= _CONTEXTS_MAX:
            self._contexts.clear()
        keys, code = keys_of(context), self._code
        found = self._contexts[context] = (
            code[keys.class_id],
            code[keys.teacher_id],
            code[keys.assignment_id],
            code[keys.sequence_id],
        )
        return found


FactCodes = tuple[int, int, int, int, float]
_CONTEXTS_MAX = 4096


def epoch_ms(event: Event) -> int:
    """Return the event's timestamp in ms since 1970, cut as `rfc3339` cuts it."""
    return (event.timestamp - EPOCH) // MS


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
    for name, column in columns_of(columns, count).items():
        rows[name] = column
    return rows


def columns_of(columns: bytes, count: int) -> dict[str, NDArray[Any]]:
    """Return the columns of what `by_column` wrote, without putting rows together."""
    found, at = {}, 0
    for name, kind in _KINDS:
        found[name] = np.frombuffer(columns, kind, count, at)
        at += kind.itemsize * count
    return found


_KINDS = [(name, ROW[name]) for name in ROW.names or ()]


def _text(value: Any, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
