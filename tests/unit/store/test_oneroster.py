from __future__ import annotations

import io
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc_broker.model.errors import Malformed
from mlc_broker.model.person import age_band
from mlc_broker.model.principal import Role
from mlc_broker.store.oneroster import import_oneroster
from mlc_broker.store.roster import Roster
from mlc_broker.store.roster_import import import_file
from mlc_broker.testing import FixedClock
from tests.unit.store.oneroster_school import (
    CLASSES,
    DEMOGRAPHICS,
    DISTRICT,
    ENROLLMENTS,
    ORGS,
    ROLES,
    TERMS,
    USERS_11,
    USERS_12,
    a_class,
    enrollment,
    manifest,
    role,
    school,
    user_11,
    user_12,
    zipped,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def roster(tmp_path: Path) -> Any:
    roster = Roster(tmp_path / "roster.db", clock=FixedClock(NOW))
    roster.open()
    yield roster
    roster.close()


def test_a_school_comes_in_under_its_topmost_org(roster: Roster) -> None:
    report = import_oneroster(roster, school())
    assert report.loaded == {"organizations": 1, "users": 3, "classes": 1, "enrollments": 2}
    assert (report.rejected, report.warnings) == ((), ())
    assert roster.membership("dist", "s1", NOW) == (("c1",), ("t1",))
    organization = roster.organization("dist")
    assert organization is not None
    assert organization.name == "The District"


def test_a_school_comes_in_under_the_organization_that_is_named(roster: Roster) -> None:
    roster.put("organizations", "org_1", {"name": "Ours", "subscription": "ensemble"})
    import_oneroster(roster, school(), organization_id="org_1")
    assert roster.membership("org_1", "s2", NOW) == (("c1",), ("t1",))
    organization = roster.organization("org_1")
    assert organization is not None
    assert (organization.name, organization.subscription) == ("Ours", "ensemble")
    assert roster.organization("dist") is None


def test_two_topmost_orgs_ask_for_a_name(roster: Roster) -> None:
    two = ORGS + "a,,,A,school,,\nb,,,B,school,,\n"
    with pytest.raises(Malformed, match="name the organization"):
        import_oneroster(roster, school(orgs=two))


def test_names_passwords_and_origins_are_in_no_byte_of_the_file(
    roster: Roster, tmp_path: Path
) -> None:
    demographics = DEMOGRAPHICS + "s1,,,2001-07-19,female,true,false\n"
    import_oneroster(roster, school(demographics=demographics))
    roster.close()
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"s1" in kept
    for secret in (
        b"Given",
        b"Family",
        b"mail.example",
        b"Secret",
        b"555-",
        b"login",
        b"female",
        b"2001-07-19",
    ):
        assert secret not in kept


def test_version_1_1_has_the_role_beside_the_user(roster: Roster) -> None:
    users = USERS_11 + user_11("t1", "teacher") + user_11("s1", "student") + user_11("m1", "parent")
    report = import_oneroster(
        roster,
        zipped(
            manifest=manifest("1.1", roles="absent"),
            orgs=DISTRICT,
            users=users + user_11("s2", "student", enabled="false"),
        ),
    )
    found = {key: (user.role, user.active) for key, user in roster.users_of("dist").items()}
    assert found == {
        "t1": (Role.TEACHER, True),
        "s1": (Role.STUDENT, True),
        "s2": (Role.STUDENT, False),
    }
    assert any("parent" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["student", "teacher"], Role.TEACHER),
        (["aide"], Role.TEACHER),
        (["teacher", "principal"], Role.TEACHER_ADMIN),
        (["districtAdministrator", "teacher"], Role.SUBSCRIBER_ADMIN),
        (["systemAdministrator"], Role.SUBSCRIBER_ADMIN),
        (["guardian"], None),
        (["ext:janitor"], None),
    ],
)
def test_of_several_roles_the_highest_counts_and_never_system_admin(
    roster: Roster, names: list[str], expected: Role | None
) -> None:
    roles = ROLES + "".join(role("s1", name) for name in names)
    import_oneroster(roster, school(roles=roles, enrollments=ENROLLMENTS))
    user = roster.user("dist", "s1")
    assert (user.role if user else None) == expected


def test_a_role_that_is_over_does_not_count(roster: Roster) -> None:
    roles = ROLES + role("s1", "teacher", "2024-01-01,2025-06-30") + role("s1", "student")
    import_oneroster(roster, school(roles=roles))
    user = roster.user("dist", "s1")
    assert user is not None
    assert user.role is Role.STUDENT


def test_ages_and_terms_come_with_the_file(roster: Roster) -> None:
    import_oneroster(
        roster,
        school(
            demographics=DEMOGRAPHICS + "s1,,,2015-07-19,,,\ns2,,,19.7.2015,,,\n",
            academicSessions=TERMS
            + "q1,,,Autumn,term,2025-08-01,2025-12-31,,2026\n"
            + "q2,,,Winter,term,2026-01-01,2026-02-15,,2026\n",
            classes=CLASSES + a_class("c1", terms="q1,q2"),
        ),
    )
    assert age_band(roster.user("dist", "s1"), NOW.date()) == "under_13"
    assert age_band(roster.user("dist", "s2"), NOW.date()) is None
    assert roster.membership("dist", "s1", NOW)[0] == ()
    assert roster.membership("dist", "s1", datetime(2026, 2, 15, 12, tzinfo=UTC))[0] == ("c1",)


def test_bad_rows_are_told_by_file_line_and_reason_and_the_rest_are_loaded(roster: Roster) -> None:
    enrollments = (
        ENROLLMENTS
        + enrollment("e2", "c1", "s1", "student")
        + enrollment("e4", "c9", "s1", "student")
        + enrollment("e5", "c1", "s9", "student")
        + enrollment("e6", "c1", "s1", "student", "soon,")
        + enrollment("e7", "c1", "s1", "student", "2026-02-02,2026-02-01")
        + "e8,,,c1\n"
        + ",,,c1,sch1,s1,student,,,\n"
        + "\n"
        + 'e9,,,c1,"sch"1,s1,student,,,\n'
        + enrollment("e3", "c1", "s2", "student")
    )
    report = import_oneroster(roster, school(enrollments=enrollments))
    told = [(row.file, row.line, row.reason) for row in report.rejected]
    assert [(file, line) for file, line, _ in told] == [
        ("enrollments.csv", line) for line in (3, 4, 5, 6, 7, 8, 10)
    ]
    for (_, _, reason), word in zip(
        told, ["c9", "s9", "date", "before", "4 columns", "sourcedid", "CSV"], strict=True
    ):
        assert word in reason
    assert report.rejected_total == 7
    assert set(roster.export("dist")["enrollments"]) == {"e2", "e3"}


def test_a_quote_that_is_never_closed_costs_its_own_file_and_is_told(roster: Roster) -> None:
    classes = CLASSES + a_class("c1") + 'c2,,,"Piano,5,,,scheduled,,sch1,,,,\n'
    report = import_oneroster(roster, school(classes=classes))
    assert [(row.file, row.line) for row in report.rejected] == [("classes.csv", 3)]
    assert roster.membership("dist", "s1", NOW)[0] == ("c1",)


@pytest.mark.parametrize(
    ("codec", "word"), [("utf-8-sig", "byte order mark"), ("cp1252", "Windows-1252")]
)
def test_other_encodings_are_read_and_told(roster: Roster, codec: str, word: str) -> None:
    classes = (CLASSES + a_class("c1", "Übung für Flöte")).encode(codec)
    report = import_oneroster(roster, school(classes=classes))
    assert any(word in warning for warning in report.warnings)
    assert getattr(roster.export("dist")["classes"]["c1"], "name", "") == "Übung für Flöte"


def test_headers_in_any_case_further_columns_and_a_folder_are_no_trouble(roster: Roster) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("Export/Orgs.CSV", "SOURCEDID,Name,metadata.x\nd,D,1\n")
        archive.writestr("Export/users.csv", "sourcedid,ROLE,metadata.race\ns1,Student,none\n")
        archive.writestr("__MACOSX/users.csv", "rubbish")
    report = import_oneroster(roster, packed.getvalue())
    assert roster.users_of("d")["s1"].role is Role.STUDENT
    assert any("manifest" in warning for warning in report.warnings)


def test_a_nightly_file_does_not_undo_what_the_school_said(roster: Roster) -> None:
    import_oneroster(roster, school())
    roster.put(
        "users",
        "s1",
        {
            "organization_id": "dist",
            "role": "student",
            "parental_consent": "verified",
            "age_band": "under_13",
        },
    )
    roster.put("users", "admin", {"organization_id": "dist", "role": "subscriber_admin"})
    roster.put_consent("dist", "s1", {"user_interaction": "denied"})
    import_oneroster(roster, school())
    user = roster.user("dist", "s1")
    assert user is not None
    assert (user.parental_consent, user.age_band) == ("verified", "under_13")
    assert not roster.collects("dist", "s1", "user_interaction")
    assert roster.users_of("dist")["admin"].active  # made by hand: not the file's to end


def test_who_is_missing_from_a_whole_file_is_inactive_and_the_enrolment_ends(
    roster: Roster,
) -> None:
    import_oneroster(roster, school())
    less = school(
        users=USERS_12 + user_12("t1") + user_12("s1"),
        enrollments=ENROLLMENTS + enrollment("e2", "c1", "s1", "student"),
    )
    import_oneroster(roster, less)
    assert not roster.users_of("dist")["s2"].active
    assert roster.membership("dist", "s2", NOW) == ((), ())
    assert roster.membership("dist", "s2", datetime(2026, 2, 20, tzinfo=UTC))[0] == ("c1",)
    assert roster.classes_taught_by("dist", frozenset({"t1"})) == frozenset()


def test_a_whole_file_that_lacks_most_is_taken_for_one_cut_short(roster: Roster) -> None:
    ids = [f"s{n}" for n in range(40)]
    roles = ROLES + "".join(role(key, "student") for key in ids)
    import_oneroster(
        roster,
        school(users=USERS_12 + "".join(map(user_12, ids)), roles=roles, enrollments=ENROLLMENTS),
    )
    report = import_oneroster(
        roster, school(users=USERS_12 + user_12("s1"), roles=roles, enrollments=ENROLLMENTS)
    )
    assert any("cut short" in warning for warning in report.warnings)
    assert all(user.active for user in roster.users_of("dist").values())


def test_a_delta_changes_what_it_names_and_deletes_what_it_says(roster: Roster) -> None:
    import_oneroster(roster, school())
    delta = zipped(
        manifest=manifest(mode="delta", classes="absent"),
        orgs=DISTRICT,
        users=USERS_12 + user_12("s2", status="tobedeleted") + user_12("s3", status="active"),
        roles=ROLES + role("s3", "student", status="active"),
        enrollments=ENROLLMENTS
        + enrollment("e2", "c1", "s1", "student", status="tobedeleted")
        + enrollment("e9", "c1", "s3", "student", status="active"),
        demographics=DEMOGRAPHICS + "s1,active,,2015-01-01,,,\n",
    )
    report = import_oneroster(roster, delta)
    assert report.deleted == {"users": 1, "enrollments": 1}
    assert set(roster.users_of("dist")) == {"t1", "s1", "s3"}
    assert set(roster.export("dist")["enrollments"]) == {"e9"}
    assert roster.membership("dist", "s3", NOW) == (("c1",), ("t1",))
    assert age_band(roster.user("dist", "s1"), NOW.date()) == "under_13"
    import_oneroster(
        roster,
        zipped(
            manifest=manifest(mode="delta"),
            orgs=DISTRICT,
            enrollments=ENROLLMENTS + enrollment("e1", "c1", "t1", "teacher", status="tobedeleted"),
        ),
    )
    assert roster.classes_taught_by("dist", frozenset({"t1"})) == frozenset()


def test_a_dry_run_tells_the_same_and_changes_nothing(roster: Roster) -> None:
    dry = import_oneroster(roster, school(), dry_run=True)
    assert roster.organization_ids() == ()
    real = import_oneroster(roster, school())
    assert (dry.loaded, dry.rejected, dry.dry_run) == (real.loaded, real.rejected, True)


def test_a_file_is_known_by_how_it_begins(roster: Roster, tmp_path: Path) -> None:
    (tmp_path / "export").write_bytes(school())
    assert import_file(tmp_path / "export", roster).loaded["users"] == 3


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_generated_school_comes_in_as_it_is(roster: Roster, data: st.DataObject) -> None:
    for org in roster.organization_ids():
        roster.delete("organizations", org, org)
    students = [f"s{n}" for n in range(data.draw(st.integers(1, 6)))]
    teachers = [f"t{n}" for n in range(data.draw(st.integers(1, 3)))]
    classes = [f"c{n}" for n in range(data.draw(st.integers(1, 4)))]
    title = data.draw(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"')))
    taught = {key: data.draw(st.sets(st.sampled_from(teachers))) for key in classes}
    member = {key: data.draw(st.sets(st.sampled_from(classes))) for key in students}
    born = {key: data.draw(st.dates(date(2012, 1, 1), date(2019, 1, 1))) for key in students}
    rows = [(key, who, "teacher") for key, whom in taught.items() for who in sorted(whom)]
    rows += [(key, who, "student") for who, ids in member.items() for key in sorted(ids)]
    report = import_oneroster(
        roster,
        school(
            users=USERS_12 + "".join(user_12(key) for key in students + teachers),
            roles=ROLES
            + "".join(role(key, "student") for key in students)
            + "".join(role(key, "teacher") for key in teachers),
            classes=CLASSES + "".join(a_class(key, title) for key in classes),
            enrollments=ENROLLMENTS
            + "".join(enrollment(f"e{n}", *row) for n, row in enumerate(rows)),
            demographics=DEMOGRAPHICS + "".join(f"{key},,,{day},,,\n" for key, day in born.items()),
        ),
    )
    assert report.rejected == ()
    assert set(roster.users_of("dist")) == {*students, *teachers}
    assert {getattr(each, "name", None) for each in roster.export("dist")["classes"].values()} == {
        title[:200]
    }
    for teacher in teachers:
        expected = {key for key, whom in taught.items() if teacher in whom}
        assert roster.classes_taught_by("dist", frozenset({teacher})) == expected
    for student in students:
        whom = {teacher for key in member[student] for teacher in taught[key]}
        assert roster.membership("dist", student, NOW) == (
            tuple(sorted(member[student])),
            tuple(sorted(whom)),
        )
        years = 2026 - born[student].year - ((born[student].month, born[student].day) > (3, 1))
        band = age_band(roster.user("dist", student), NOW.date())
        assert band == ("under_13" if years < 13 else "13_to_15")
