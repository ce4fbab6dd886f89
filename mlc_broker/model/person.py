"""People and their places: the records of the roster, as `PUT /v1/roster/{kind}/{id}` takes them."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from msgspec import Meta, Struct

from mlc_broker.model.event import Id
from mlc_broker.model.principal import Role

AgeBand = Literal["under_13", "13_to_15", "16_plus"]
ParentalConsent = Literal["not_required", "pending", "verified", "certified_by_school", "declined"]
Days = Annotated[int, Meta(ge=1, le=36_500)]


class Organization(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A school or a district: the tenant."""

    name: str = ""
    subscription: Literal["prelude", "solo", "ensemble"] = "prelude"
    seats: Annotated[int, Meta(ge=0)] = 0
    time_zone: str = "UTC"  # an IANA name
    retention_days: dict[Literal["standard", "sensitive", "pii", "system"], Days] = {}


class User(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person, or a shared login."""

    organization_id: Id
    role: Role
    birth_date: date | None = None
    age_band: AgeBand | None = None  # where there is no birth date
    parental_consent: ParentalConsent = "pending"
    manages: tuple[str, ...] = ()  # a teacher-admin's teachers; ("*",): all
    generic: bool = False
    active: bool = True


class Class(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class of one organization."""

    organization_id: Id
    name: str = ""
    teacher_ids: tuple[str, ...] = ()


class Enrollment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who was in which class, and when. No begin or end: always."""

    class_id: Id
    user_id: Id
    begin: date | None = None  # inclusive
    end: date | None = None  # inclusive
