"""People and their places: the records of the roster, as `PUT /v1/roster/{kind}/{id}` takes them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from mlc_broker.model.event import Id
from mlc_broker.model.principal import Role

AgeBand = Literal["under_13", "13_to_15", "16_plus"]
ParentalConsent = Literal["not_required", "pending", "verified", "certified_by_school", "declined"]
Days = Annotated[int, Meta(ge=1, le=36_500)]
Text = Annotated[str, Meta(max_length=200)]
PeopleIds = Annotated[tuple[Id, ...], Meta(max_length=10_000)]
Kind = Literal["organizations", "users", "classes", "enrollments"]
Category = Literal[
    "user_interaction", "learning_progress", "system_performance", "business_intelligence"
]
Word = Literal["granted", "denied"]

KINDS: tuple[Kind, ...] = ("organizations", "users", "classes", "enrollments")

# Events arrive up to 90 days late; an age that was passed longer ago than this decides nothing.
DAYS_A_PASSED_AGE_MATTERS = 400


class Organization(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A school or a district: the tenant."""

    name: Text = ""
    subscription: Literal["prelude", "solo", "ensemble"] = "prelude"
    seats: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    time_zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"  # an IANA name
    retention_days: dict[Literal["standard", "sensitive", "pii", "system"], Days] = {}


class User(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person, or a shared login.

    A birth date is taken and not kept: `reduced` leaves the two dates that decide something, and
    these only as long as they do.
    """

    organization_id: Id
    role: Role
    birth_date: date | None = None  # never stored
    under_13_until: date | None = None  # the first day on which the person is 13
    under_16_until: date | None = None  # the first day on which the person is 16
    age_band: AgeBand | None = None  # where there is no date
    parental_consent: ParentalConsent = "pending"
    manages: PeopleIds = ()  # a teacher-admin's teachers; ("*",): all
    generic: bool = False
    active: bool = True


class Class(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class of one organization."""

    organization_id: Id
    name: Text = ""
    teacher_ids: PeopleIds = ()


class Enrollment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who was in which class, and when. No begin or end: always.

    The days are those of the organization's time zone.
    """

    class_id: Id
    user_id: Id
    begin: date | None = None  # inclusive
    end: date | None = None  # inclusive


Record: TypeAlias = Organization | User | Class | Enrollment

RECORD_TYPES: dict[Kind, type[Record]] = {
    "organizations": Organization,
    "users": User,
    "classes": Class,
    "enrollments": Enrollment,
}


class ConsentForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `PUT /v1/consents/{user_id}` takes: a word for each category that is named.

    `disclose` is the second bit: leave to hand events of a category to third parties.
    """

    user_interaction: Word | None = None
    learning_progress: Word | None = None
    system_performance: Word | None = None
    business_intelligence: Word | None = None
    disclose: dict[Category, Word] = {}
    given_by: Text = ""
    basis: Text = ""  # parent, person, contract, …: in the school's words

    def collect(self) -> dict[Category, Word]:
        """Return the words about collecting, by category."""
        words: dict[Category, Word | None] = {
            "user_interaction": self.user_interaction,
            "learning_progress": self.learning_progress,
            "system_performance": self.system_performance,
            "business_intelligence": self.business_intelligence,
        }
        return {category: word for category, word in words.items() if word is not None}


class ConsentEntry(Struct, frozen=True, kw_only=True):
    """One word of the consent history. `purpose`: to collect, or to disclose to third parties."""

    category: Category
    purpose: Literal["collect", "disclose"]
    word: Word
    given_by: str
    basis: str
    at: datetime


class ConsentState(Struct, frozen=True, kw_only=True):
    """What holds for one category of one person, and the last word that was given on it."""

    collect: bool
    disclose: bool
    follows_consent: bool  # False: the school's authorization covers it
    word: Word | None = None
    given_by: str | None = None
    basis: str | None = None
    at: datetime | None = None


def age_band(user: User | None, on: date) -> AgeBand | None:
    """Return how old the person is on that day; None: nobody knows.

    Staff whose age nobody stated are adults: schools do not employ children.
    """
    if user is None:
        return None
    thirteen, sixteen = _birthdays(user)
    if thirteen is not None and on < thirteen:
        return "under_13"
    if sixteen is not None:
        return "13_to_15" if on < sixteen else "16_plus"
    if thirteen is not None:
        return "13_to_15"  # at least 13, and nothing says more
    if user.age_band is None and user.role is not Role.STUDENT and not user.generic:
        return "16_plus"
    return user.age_band


def is_child(user: User | None, on: date) -> bool | None:
    """Return whether the person is under 13 on that day; None: nobody knows."""
    band = age_band(user, on)
    return None if band is None else band == "under_13"


def has_parental_consent(user: User | None) -> bool:
    """Return whether a parent's or the school's consent is on file, or none is required."""
    return user is not None and user.parental_consent in {
        "not_required",
        "verified",
        "certified_by_school",
    }


def reduced(user: User, today: date) -> User:
    """Return the record as it may be stored: without the birth date, and without spent dates."""
    thirteen, sixteen = _birthdays(user)
    if sixteen is None and thirteen is None:
        return user
    spent = today - timedelta(days=DAYS_A_PASSED_AGE_MATTERS)
    band: AgeBand | None = None
    if sixteen is not None and sixteen < spent:
        thirteen = sixteen = None
        band = "16_plus"
    elif thirteen is not None and sixteen is not None and thirteen < spent:
        thirteen = None
    return msgspec.structs.replace(
        user, birth_date=None, under_13_until=thirteen, under_16_until=sixteen, age_band=band
    )


def _birthdays(user: User) -> tuple[date | None, date | None]:
    if user.birth_date is None:
        return user.under_13_until, user.under_16_until
    return _birthday(user.birth_date, 13), _birthday(user.birth_date, 16)


def _birthday(born: date, years: int) -> date:
    if born.year + years > date.max.year:
        return date.max
    try:
        return born.replace(year=born.year + years)
    except ValueError:  # born on 29 February: a day longer a child, rather than one too short
        return date(born.year + years, 3, 1)
