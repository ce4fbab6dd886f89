"""Which rows a reader may see and asked for: the one place where a Scope meets packed columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from math import ceil
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Grant, Scope
from mlc_broker.store.columns import DAY_MS, Rows, code_of_category, code_of_role

Mask = NDArray[np.bool_]
_BY_WORD = {  # the axes of a filter that are one column of words
    "event_type": "type",
    "user_id": "user",
    "teacher_id": "teacher",
    "assignment_id": "assignment",
    "sequence_id": "sequence",
    "game_id": "game",
    "session_id": "session",
    "organization_id": "organization",
}


class Words(Protocol):
    """The dictionary of one file, as far as a selection needs it."""

    def codes(self, words: Iterable[str]) -> list[int]:
        """Return the codes of those words that the file knows."""

    def sets_with(self, class_ids: frozenset[str]) -> list[int]:
        """Return the codes of the class sets that hold any of these classes."""


class Selection(Struct, frozen=True, kw_only=True):
    """What a reader asked for, what they may see, and what is gone already."""

    scope: Scope
    filter: Filter = Filter()
    now_ms: int  # what has expired by then is invisible
    hidden: frozenset[tuple[str, str]] = frozenset()  # (organization, user) being erased

    @property
    def begin_ms(self) -> int | None:
        """Return the first ms asked for."""
        return _ms(self.filter.begin)

    @property
    def end_ms(self) -> int | None:
        """Return the first ms not asked for any more."""
        return _ms(self.filter.end)


def select(rows: Rows, words: Words, wanted: Selection) -> Mask:
    """Return for each row whether it is in scope, asked for, not expired and not being erased."""
    mask = _alive(rows, words, wanted.now_ms, wanted.hidden)
    if mask.any():
        mask &= _in_scope(rows, words, wanted.scope)
    if mask.any():
        mask &= _asked_for(rows, words, wanted)
    return mask


def gone_for(
    now_ms: int,
    hidden: frozenset[tuple[str, str]],
    held: frozenset[tuple[str, str]] = frozenset(),
) -> Callable[[Rows, Words], Mask]:
    """Return what says of rows whether they have expired by then, or their person is erased.

    Nothing of what is `held` is gone, see holds.py.
    """

    def gone(rows: Rows, words: Words) -> Mask:
        mask = ~_alive(rows, words, now_ms, hidden)
        if held and mask.any():
            mask &= ~_held(rows, words, held)
        return mask

    return gone


def mentions(words: Words, wanted: Selection) -> list[list[int]]:
    """Return sets of codes of which a pack must mention one each, or it holds nothing wanted.

    Codes of users, teachers, classes and class sets: what the index of a file knows.
    """
    needs = []
    asked = wanted.filter
    if asked.user_id is not None:
        needs.append(words.codes(asked.user_id))
    if asked.teacher_id is not None:
        needs.append(words.codes(asked.teacher_id))
    if asked.class_id is not None:
        needs.append(words.sets_with(asked.class_id) + words.codes(asked.class_id))
    grants = [_mentions_of(grant, words) for grant in wanted.scope.grants]
    if all(codes is not None for codes in grants):
        needs.append([code for codes in grants for code in codes or ()])
    return needs


def _mentions_of(grant: Grant, words: Words) -> list[int] | None:
    for axis in (grant.user_ids, grant.teacher_ids):
        if axis is not None:
            return words.codes(axis)
    return None if grant.class_ids is None else words.sets_with(grant.class_ids)


def _alive(rows: Rows, words: Words, now_ms: int, hidden: Iterable[tuple[str, str]]) -> Mask:
    mask: Mask = rows["ts"] + rows["days"].astype(np.int64) * DAY_MS > now_ms
    for organization, user in hidden:
        user_codes, organization_codes = words.codes([user]), words.codes([organization])
        if user_codes and (organization_codes or not organization):
            own = rows["organization"] == (organization_codes[0] if organization else 0)
            mask &= ~((rows["user"] == user_codes[0]) & own)
    return mask


def _held(rows: Rows, words: Words, held: Iterable[tuple[str, str]]) -> Mask:
    mask = np.zeros(len(rows), np.bool_)
    for organization, user in held:
        own = _any_of(rows["organization"], words.codes([organization]))
        mask |= own & _any_of(rows["user"], words.codes([user])) if user else own
    return mask


def _in_scope(rows: Rows, words: Words, scope: Scope) -> Mask:
    mask = np.zeros(len(rows), np.bool_)
    for grant in scope.grants:
        mask |= _granted(rows, words, grant)
    if scope.organization_id is not None:
        mask &= _any_of(rows["organization"], words.codes([scope.organization_id]))
    return mask


def _granted(rows: Rows, words: Words, grant: Grant) -> Mask:
    mask = np.ones(len(rows), np.bool_)
    if grant.user_ids is not None:
        mask &= _any_of(rows["user"], words.codes(grant.user_ids))
    if grant.class_ids is not None:
        mask &= _any_of(rows["classes"], words.sets_with(grant.class_ids))
    if grant.teacher_ids is not None:
        mask &= _any_of(rows["teacher"], words.codes(grant.teacher_ids))
    if grant.categories is not None:
        mask &= _any_of(rows["category"], _known(map(code_of_category, grant.categories)))
    if grant.roles is not None:
        mask &= _any_of(rows["role"], _known(map(code_of_role, grant.roles)))
    return mask


def _asked_for(rows: Rows, words: Words, wanted: Selection) -> Mask:
    asked = wanted.filter
    mask = np.ones(len(rows), np.bool_)
    if (begin := wanted.begin_ms) is not None:
        mask &= rows["ts"] >= begin
    if (end := wanted.end_ms) is not None:
        mask &= rows["ts"] < end
    for axis, column in _BY_WORD.items():
        if (values := getattr(asked, axis)) is not None:
            mask &= _any_of(rows[column], words.codes(values))
    if asked.category is not None:
        mask &= _any_of(rows["category"], _known(map(code_of_category, asked.category)))
    if asked.class_id is not None:
        own = _any_of(rows["classes"], words.sets_with(asked.class_id))
        mask &= own | _any_of(rows["context_class"], words.codes(asked.class_id))
    return mask


def _any_of(column: NDArray[Any], codes: list[int]) -> Mask:
    if not codes:
        return np.zeros(len(column), np.bool_)
    if len(codes) == 1:
        return np.asarray(column == codes[0])
    return np.isin(column, np.array(codes, column.dtype))


def _known(codes: Iterable[int]) -> list[int]:
    return [code for code in codes if code]


def _ms(moment: datetime | None) -> int | None:
    # Up, not down: stored times are whole ms, so `>= begin` and `< end` need the next one.
    return None if moment is None else ceil(moment.timestamp() * 1000 - 0.0005)
