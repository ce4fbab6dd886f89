from __future__ import annotations

import zipfile

import pytest

from mlc_broker.model.errors import Malformed, TooLarge
from mlc_broker.store.oneroster import import_oneroster
from mlc_broker.store.oneroster_zip import ZipLimits
from mlc_broker.store.roster import Roster
from tests.unit.store.oneroster_school import (
    CLASSES,
    DISTRICT,
    USERS_12,
    a_class,
    school,
    user_12,
    zipped,
)
from tests.unit.store.test_oneroster import roster

__all__ = ["roster"]  # the fixture

LIMITS = ZipLimits(
    zip_bytes_max=100_000,
    entries_max=8,
    inflated_bytes_max=200_000,
    row_chars_max=1_000,
    rows_max=500,
)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(school(users=USERS_12 + "x" * 300_000), id="a bomb"),
        pytest.param(zipped(zipfile.ZIP_STORED, orgs="x" * 100_001), id="a large zip"),
        pytest.param(zipped(**{f"f{n}": "" for n in range(9)}), id="many entries"),
        pytest.param(zipped(**{f"f{n}": "" for n in range(300)}), id="a large directory"),
        pytest.param(school(users=USERS_12 + user_12("s") * 501), id="many rows"),
    ],
)
def test_what_is_over_a_limit_is_refused_and_changes_nothing(roster: Roster, bad: bytes) -> None:
    with pytest.raises(TooLarge):
        import_oneroster(roster, bad, limits=LIMITS)
    assert roster.organization_ids() == ()


def test_a_row_that_is_too_long_is_told(roster: Roster) -> None:
    classes = CLASSES + a_class("c1") + a_class("c2", "x" * 1_001)
    report = import_oneroster(roster, school(classes=classes), limits=LIMITS)
    assert [(row.file, row.line) for row in report.rejected] == [("classes.csv", 3)]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"PK nothing", id="no zip"),
        pytest.param(school()[:-30], id="cut short"),
        pytest.param(zipped(orgs="name\nx\n"), id="a column is missing"),
        pytest.param(school(users=(USERS_12 + user_12("s1")).encode("utf-16")), id="UTF-16"),
    ],
)
def test_what_cannot_be_read_is_refused_and_changes_nothing(roster: Roster, bad: bytes) -> None:
    with pytest.raises(Malformed):
        import_oneroster(roster, bad)
    assert roster.organization_ids() == ()


def test_a_damaged_entry_is_refused(roster: Roster) -> None:
    whole = bytearray(zipped(zipfile.ZIP_STORED, orgs=DISTRICT))
    whole[60] ^= 0xFF  # inside the stored text: the checksum tells
    with pytest.raises(Malformed, match="unpacked"):
        import_oneroster(roster, bytes(whole))
