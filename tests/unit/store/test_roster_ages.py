from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from mlc_broker.model.person import User, has_parental_consent, is_child
from mlc_broker.model.principal import Role

TODAY = date(2026, 3, 1)


def test_of_whom_nobody_knows_the_age_nobody_says_one() -> None:
    unknown = User(organization_id="o", role=Role.STUDENT)
    assert is_child(None, TODAY) is None
    assert is_child(unknown, TODAY) is None
    assert is_child(User(organization_id="o", role=Role.TEACHER), TODAY) is False
    assert is_child(User(organization_id="o", role=Role.TEACHER, generic=True), TODAY) is None
    banded = User(organization_id="o", role=Role.STUDENT, age_band="under_13")
    assert is_child(banded, TODAY) is True


@pytest.mark.parametrize(
    ("state", "enough"),
    [
        ("not_required", True),
        ("verified", True),
        ("certified_by_school", True),
        ("pending", False),
        ("declined", False),
    ],
)
def test_parental_consent_is_there_or_it_is_not(state: Any, enough: bool) -> None:
    user = User(organization_id="o", role=Role.STUDENT, parental_consent=state)
    assert has_parental_consent(user) is enough
    assert not has_parental_consent(None)
