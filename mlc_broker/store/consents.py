"""Consent: a word for each person, category and purpose, the latest of which is in force.

Two purposes: to collect, and to disclose to third parties. What holds where nobody gave a word
comes from the configuration; the history is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, get_args

from msgspec import Struct

from mlc_broker.model.person import Category, ConsentEntry, ConsentForm, ConsentState, Word
from mlc_broker.model.principal import BUSINESS, INTERACTION, LEARNING, PERFORMANCE

Person: TypeAlias = tuple[str, str]  # organization, user
Words: TypeAlias = dict[tuple[str, str], ConsentEntry]  # category, purpose

CATEGORIES: tuple[Category, ...] = get_args(Category)


class ConsentRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for one category.

    `follows_consent` is False where the school's authorization covers collecting: then a word is
    kept and shown, and collecting goes by `collect` alone. Disclosing always needs a word, or
    `disclose`.
    """

    collect: bool = True
    disclose: bool = False
    follows_consent: bool = True


RULES: Mapping[str, ConsentRule] = {
    LEARNING: ConsentRule(follows_consent=False),
    PERFORMANCE: ConsentRule(follows_consent=False),
    INTERACTION: ConsentRule(),
    BUSINESS: ConsentRule(),
}


class Consents:
    """The words in force, in memory, and what follows from them."""

    def __init__(self, rules: Mapping[str, ConsentRule] = RULES) -> None:
        self._rules = {**RULES, **rules}
        self._words: dict[Person, Words] = {}

    def word(self, organization_id: str, user_id: str, category: str) -> bool | None:
        """Return the person's word on collecting; None: never asked, or no consent is needed."""
        words = self._words.get((organization_id, user_id))
        if words is None or not self._rule(category).follows_consent:
            return None
        entry = words.get((category, "collect"))
        return None if entry is None else entry.word == "granted"

    def collects(self, organization_id: str, user_id: str, category: str) -> bool:
        """Return whether events of this category may be collected from the person."""
        word = self.word(organization_id, user_id, category)
        return self._rule(category).collect if word is None else word

    def discloses(self, organization_id: str, user_id: str, category: str) -> bool:
        """Return whether the person's events of this category may go to third parties.

        Never what may not be collected.
        """
        words = self._words.get((organization_id, user_id), {})
        entry = words.get((category, "disclose"))
        allowed = self._rule(category).disclose if entry is None else entry.word == "granted"
        return allowed and self.collects(organization_id, user_id, category)

    def state(self, organization_id: str, user_id: str) -> dict[str, ConsentState]:
        """Return what holds for each category, and the last word on collecting it."""
        words = self._words.get((organization_id, user_id), {})
        return {
            category: _state(
                words.get((category, "collect")),
                collect=self.collects(organization_id, user_id, category),
                disclose=self.discloses(organization_id, user_id, category),
                follows_consent=self._rule(category).follows_consent,
            )
            for category in CATEGORIES
        }

    def add(self, organization_id: str, user_id: str, entries: Sequence[ConsentEntry]) -> None:
        """Put words in force."""
        person = (organization_id, user_id)
        new: Words = {(entry.category, entry.purpose): entry for entry in entries}
        self._words[person] = {**self._words.get(person, {}), **new}

    def carry(self, user_id: str, *, old: str, new: str) -> None:
        """Let the words that a person gave in one organization hold in another as well."""
        words = self._words.get((old, user_id))
        if words is not None:
            self._words[new, user_id] = {**self._words.get((new, user_id), {}), **words}

    def forget(self, organization_id: str, user_id: str) -> None:
        """Forget the person's words."""
        self._words.pop((organization_id, user_id), None)

    def forget_organization(self, organization_id: str) -> None:
        """Forget the words of everyone in the organization."""
        for person in [each for each in self._words.copy() if each[0] == organization_id]:
            self._words.pop(person, None)

    def copy(self) -> Consents:
        """Return a copy to change, which shares the words and nothing else."""
        other = Consents(self._rules)
        other._words = self._words.copy()
        return other

    def _rule(self, category: str) -> ConsentRule:
        # A category that we do not know: like the ones that follow consent.
        return self._rules.get(category, _UNKNOWN_CATEGORY)


_UNKNOWN_CATEGORY = ConsentRule()


def entries_of(form: ConsentForm, at: datetime) -> list[ConsentEntry]:
    """Return the words of a form as entries of the history."""
    return [
        *(_entry(form, category, word, at, "collect") for category, word in form.collect().items()),
        *(_entry(form, category, word, at, "disclose") for category, word in form.disclose.items()),
    ]


def _entry(
    form: ConsentForm, category: Category, word: Word, at: datetime, purpose: str
) -> ConsentEntry:
    return ConsentEntry(
        category=category,
        purpose="collect" if purpose == "collect" else "disclose",
        word=word,
        given_by=form.given_by,
        basis=form.basis,
        at=at,
    )


def _state(
    entry: ConsentEntry | None, *, collect: bool, disclose: bool, follows_consent: bool
) -> ConsentState:
    return ConsentState(
        collect=collect,
        disclose=disclose,
        follows_consent=follows_consent,
        word=entry.word if entry else None,
        given_by=entry.given_by if entry else None,
        basis=entry.basis if entry else None,
        at=entry.at if entry else None,
    )
