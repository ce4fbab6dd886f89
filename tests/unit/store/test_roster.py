from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc_broker.model.errors import Forbidden, Malformed, NotFound, StoreError
from mlc_broker.model.person import User, age_band, is_child
from mlc_broker.model.principal import Principal, Role, scope_for
from mlc_broker.store.roster import Roster
from mlc_broker.store.roster_memory import Memory
from mlc_broker.testing import FixedClock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = NOW.date()
QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def opened(path: Path, **limits: Any) -> Roster:
    roster = Roster(path / "roster.db", clock=FixedClock(NOW), **limits)
    roster.open()
    return roster


@pytest.fixture
def roster(tmp_path: Path) -> Any:
    roster = opened(tmp_path)
    roster.put("organizations", "org_1", {"name": "One", "time_zone": "Europe/Berlin"})
    roster.put("organizations", "org_2", {"name": "Two"})
    yield roster
    roster.close()


def student(org: str = "org_1", **more: Any) -> dict[str, Any]:
    return {"organization_id": org, "role": "student", **more}


def school(roster: Roster) -> None:
    roster.put("users", "t1", {"organization_id": "org_1", "role": "teacher"})
    roster.put("users", "s1", student())
    roster.put("classes", "c1", {"organization_id": "org_1", "teacher_ids": ["t1"]})
    roster.put("enrollments", "e1", {"class_id": "c1", "user_id": "s1"})


def everything(roster: Roster) -> bytes:
    return msgspec.json.encode(
        [roster.export(org) for org in roster.organization_ids()], order="deterministic"
    )


def test_a_record_is_in_force_when_put_returns_and_after_a_restart(
    roster: Roster, tmp_path: Path
) -> None:
    school(roster)
    assert roster.membership("org_1", "s1", NOW) == (("c1",), ("t1",))
    assert roster.classes_taught_by("org_1", frozenset({"t1"})) == {"c1"}
    again = opened(tmp_path)
    assert everything(again) == everything(roster)
    assert again.membership("org_1", "s1", NOW) == (("c1",), ("t1",))
    again.close()


def test_a_new_teacher_of_a_class_is_in_the_very_next_answer(roster: Roster) -> None:
    school(roster)
    roster.membership("org_1", "s1", NOW)  # remembered
    roster.put("classes", "c1", {"organization_id": "org_1", "teacher_ids": ["t2"]})
    assert roster.membership("org_1", "s1", NOW) == (("c1",), ("t2",))
    assert roster.classes_taught_by("org_1", frozenset({"t1"})) == frozenset()


def test_an_answer_worked_out_during_a_change_is_not_remembered(roster: Roster) -> None:
    school(roster)
    memory = roster._memory
    honest = Memory._intervals

    def interrupted(self: Memory, org: str, user_id: str) -> Any:
        found = honest(self, org, user_id)
        roster.delete("enrollments", "org_1", "e1")  # the writer comes in between
        return found

    Memory._intervals = interrupted  # type: ignore[method-assign]
    try:
        assert memory.membership("org_1", "s1", NOW)[0] == ("c1",)
    finally:
        Memory._intervals = honest  # type: ignore[method-assign]
    assert memory.membership("org_1", "s1", NOW) == ((), ())


days = st.dates(date(2026, 1, 1), date(2026, 1, 12))
spans = st.tuples(st.none() | days, st.none() | days).filter(
    lambda span: span[0] is None or span[1] is None or span[0] <= span[1]
)


@QUICK
@given(
    rows=st.lists(st.tuples(st.sampled_from(["c1", "c2", "c3"]), spans), max_size=8),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles"]),
    at=st.datetimes(datetime(2025, 12, 30), datetime(2026, 1, 15), timezones=st.just(UTC)),
)
def test_membership_is_what_a_look_at_every_enrolment_says(
    roster: Roster, rows: list[Any], zone: str, at: datetime
) -> None:
    roster.delete("organizations", "org_3", "org_3")
    roster.put("organizations", "org_3", {"time_zone": zone})
    taught = {"c1": ["t1", "t3"], "c2": ["t2", "t1"]}  # c3 is no class of this organization
    records = [
        *(
            ("classes", key, {"organization_id": "org_3", "teacher_ids": ids})
            for key, ids in taught.items()
        ),
        *(
            ("enrollments", f"e{n}", {"class_id": key, "user_id": "s1", "begin": b, "end": e})
            for n, (key, (b, e)) in enumerate(rows)
        ),
    ]
    roster.put_many(records, within="org_3")
    local = at.astimezone(ZoneInfo(zone)).date()
    classes = {
        key
        for key, (begin, end) in rows
        if key in taught and (begin is None or begin <= local) and (end is None or local <= end)
    }
    teachers = {teacher for key in classes for teacher in taught[key]}
    expected = (tuple(sorted(classes)), tuple(sorted(teachers)))
    assert roster.membership("org_3", "s1", at) == expected
    assert roster.membership("org_3", "s1", at) == expected  # as remembered


def test_the_last_day_of_an_enrolment_is_a_day_of_the_school_not_of_greenwich(
    roster: Roster,
) -> None:
    school(roster)
    roster.put("enrollments", "e1", {"class_id": "c1", "user_id": "s1", "end": "2026-01-31"})
    end = datetime.combine(date(2026, 2, 1), time(), ZoneInfo("Europe/Berlin"))
    assert roster.membership("org_1", "s1", end - timedelta(milliseconds=1))[0] == ("c1",)
    assert roster.membership("org_1", "s1", end)[0] == ()


ids = st.sampled_from(["a", "b", "c"])
orgs = st.sampled_from(["org_1", "org_2"])
steps = st.one_of(
    st.tuples(st.just("put"), st.just("users"), ids, st.builds(student, orgs)),
    st.tuples(
        st.just("put"),
        st.just("classes"),
        ids,
        st.fixed_dictionaries({"organization_id": orgs, "teacher_ids": st.lists(ids, max_size=2)}),
    ),
    st.tuples(
        st.just("put"),
        st.just("enrollments"),
        ids,
        st.fixed_dictionaries({"class_id": ids, "user_id": ids}),
    ),
    st.tuples(
        st.just("delete"),
        st.sampled_from(["users", "classes", "enrollments", "organizations"]),
        ids,
        orgs,
    ),
)


@settings(QUICK, max_examples=60)
@given(st.lists(steps, max_size=25))
def test_memory_and_file_agree_after_any_changes(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("roster")
    roster = opened(path)
    for what, kind, key, given_ in changes:
        try:
            if what == "put":
                roster.put(kind, key, given_)
            else:
                roster.delete(kind, given_, given_ if kind == "organizations" else key)
        except Malformed:
            continue  # an enrolment into a class that nobody knows
    again = opened(path)
    for org in ("org_1", "org_2"):
        assert again.export(org) == roster.export(org)
        for key in "abc":
            assert again.membership(org, key, NOW) == roster.membership(org, key, NOW)
            one = frozenset({key})
            assert again.classes_taught_by(org, one) == roster.classes_taught_by(org, one)
    roster.close()
    again.close()


def test_a_person_put_into_another_organization_leaves_the_first(roster: Roster) -> None:
    school(roster)
    roster.put_consent("org_1", "s1", {"user_interaction": "denied"}, given_by="parent")
    roster.put("users", "s1", student("org_2"))
    assert roster.user("org_1", "s1") is None
    assert roster.user("org_2", "s1") is not None
    assert roster.membership("org_1", "s1", NOW) == ((), ())
    assert not roster.collects("org_2", "s1", "user_interaction")  # a word holds where one goes


def test_a_school_cannot_take_another_schools_person_or_class(roster: Roster) -> None:
    school(roster)
    with pytest.raises(Forbidden, match="org_2"):
        roster.put("users", "s1", student("org_1", role="teacher"), within="org_2")
    roster.put("users", "s1", student("org_2"), within="org_2")
    roster.put("classes", "c1", {"teacher_ids": ["spy"]}, within="org_2")
    assert roster.organizations_of("s1") == ["org_1", "org_2"]
    assert roster.membership("org_1", "s1", NOW) == (("c1",), ("t1",))
    assert roster.classes_taught_by("org_1", frozenset({"spy"})) == frozenset()


def test_a_school_cannot_make_a_system_admin(roster: Roster) -> None:
    with pytest.raises(Forbidden, match="system_admin"):
        roster.put("users", "x", {"role": "system_admin"}, within="org_1")


@pytest.mark.parametrize(
    ("kind", "key", "record", "error"),
    [
        ("pupils", "x", {}, NotFound),
        ("users", "", {"organization_id": "o", "role": "student"}, Malformed),
        ("users", "a\nb", {"organization_id": "o", "role": "student"}, Malformed),
        ("users", "x", {"role": "student"}, Malformed),
        ("users", "x", {"organization_id": "o", "role": "king"}, Malformed),
        ("users", "x", {"organization_id": "o", "role": "student", "e-mail": "a@b"}, Malformed),
        ("organizations", "x", {"time_zone": "Mars/Olympus"}, Malformed),
        ("organizations", "x", {"time_zone": "../../etc/passwd"}, Malformed),
        ("organizations", "x", {"seats": -1}, Malformed),
        ("enrollments", "x", {"class_id": "none", "user_id": "s1"}, Malformed),
        ("classes", "x", ["no", "object"], Malformed),
    ],
)
def test_a_record_that_is_not_one_is_refused_with_a_reason(
    roster: Roster, kind: str, key: str, record: Any, error: type[Exception]
) -> None:
    before = everything(roster)
    with pytest.raises(error, match=r"\w{3,}"):
        roster.put(kind, key, record)
    assert everything(roster) == before


@pytest.mark.parametrize(
    ("begin", "end"), [("2026-02-02", "2026-02-01"), ("9999-01-01", None), (None, "0001-01-01")]
)
def test_an_enrolment_that_never_was_is_refused(roster: Roster, begin: Any, end: Any) -> None:
    school(roster)
    with pytest.raises(Malformed):
        roster.put(
            "enrollments", "e2", {"class_id": "c1", "user_id": "s1", "begin": begin, "end": end}
        )


def test_an_enrolment_until_the_end_of_time_has_no_end(roster: Roster) -> None:
    school(roster)
    roster.put("enrollments", "e1", {"class_id": "c1", "user_id": "s1", "end": "9999-12-31"})
    assert roster.membership("org_1", "s1", NOW)[0] == ("c1",)


def test_a_person_has_so_many_enrolments_and_no_more(tmp_path: Path) -> None:
    roster = opened(tmp_path, enrollments_per_user_max=2)
    roster.put("classes", "c1", {"organization_id": "org_1"})
    for key in ("e1", "e2", "e1"):
        roster.put("enrollments", key, {"class_id": "c1", "user_id": "s1"})
    with pytest.raises(Malformed, match="2 enrolments"):
        roster.put("enrollments", "e3", {"class_id": "c1", "user_id": "s1"})
    roster.close()


def test_a_star_is_every_teacher_and_no_administrator(roster: Roster) -> None:
    school(roster)
    roster.put("users", "boss", {"organization_id": "org_1", "role": "subscriber_admin"})
    head = {"organization_id": "org_1", "role": "teacher_admin", "manages": ["*"]}
    roster.put("users", "head", head)
    roster.put("classes", "c2", {"organization_id": "org_1", "teacher_ids": ["guest", "boss"]})
    assert roster.teachers_managed_by("org_1", "head") == {"t1", "guest"}
    roster.put("users", "head", {**head, "active": False})
    assert roster.teachers_managed_by("org_1", "head") == frozenset()
    roster.put("users", "head", {**head, "role": "teacher"})
    assert roster.teachers_managed_by("org_1", "head") == frozenset()


def test_a_scope_follows_the_roster(roster: Roster) -> None:
    school(roster)
    teacher = Principal(kind="user", id="t1", organization_id="org_1", role=Role.TEACHER)
    assert any("c1" in (g.class_ids or ()) for g in scope_for(teacher, roster).grants)
    roster.delete("classes", "org_1", "c1")
    assert not any(g.class_ids for g in scope_for(teacher, roster).grants)


def test_the_birth_date_is_not_kept(roster: Roster, tmp_path: Path) -> None:
    day = f"{(datetime.now(UTC).month + 5) % 12 + 1:02}-23"  # no day that is written for itself
    roster.put("users", "s1", student(birth_date="2015-05-17"))
    roster.put("users", "s2", student(birth_date=f"2001-{day}"))
    child, adult = roster.user("org_1", "s1"), roster.user("org_1", "s2")
    assert child == User(
        organization_id="org_1",
        role=Role.STUDENT,
        under_13_until=date(2028, 5, 17),
        under_16_until=date(2031, 5, 17),
    )
    assert adult == User(organization_id="org_1", role=Role.STUDENT, age_band="16_plus")
    roster.close()
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"2015-05-17" not in kept
    assert day.encode() not in kept


@QUICK
@given(
    born=st.dates(date(1990, 1, 1), date(2026, 2, 28)),
    late_days=st.integers(0, 90),
)
def test_a_reduced_record_tells_the_same_age_as_the_birth_date(
    roster: Roster, born: date, late_days: int
) -> None:
    on = TODAY - timedelta(days=late_days)
    roster.put("users", "s1", student(birth_date=born.isoformat()))
    years = on.year - born.year - ((on.month, on.day) < (born.month, born.day))
    expected = "under_13" if years < 13 else "13_to_15" if years < 16 else "16_plus"
    user = roster.user("org_1", "s1")
    assert age_band(user, on) == expected
    assert is_child(user, on) is (years < 13)


def test_an_erased_person_is_in_no_byte_of_the_file(roster: Roster, tmp_path: Path) -> None:
    canary = "usr_canary_7f3a"
    school(roster)
    roster.put("users", canary, {"organization_id": "org_1", "role": "teacher"})
    roster.put("users", "t9", {"organization_id": "org_1", "role": "teacher", "manages": [canary]})
    roster.put("classes", "c1", {"organization_id": "org_1", "teacher_ids": ["t1", canary]})
    roster.put("enrollments", "e9", {"class_id": "c1", "user_id": canary})
    roster.put_consent("org_1", canary, {"user_interaction": "denied"}, given_by=canary)
    gone = roster.erase_person("org_1", canary)
    assert gone == {"users": 1, "enrollments": 1, "consents": 1, "mentions": 2}
    assert canary.encode() not in everything(roster)
    assert roster.classes_taught_by("org_1", frozenset({canary})) == frozenset()
    assert roster.consent_history("org_1", canary) == []
    assert roster.consent("org_1", canary, "user_interaction") is None
    for file in tmp_path.iterdir():
        if file.name.endswith(("-wal", ".db")):
            with file.open("rb") as bytes_:
                assert canary.encode() not in bytes_.read(), file.name


def test_another_process_s_changes_are_noticed(roster: Roster, tmp_path: Path) -> None:
    school(roster)
    assert not roster.refresh_if_changed()  # one's own changes are no news
    other = opened(tmp_path)
    other.put("users", "s2", student())
    other.put_consent("org_1", "s1", {"user_interaction": "denied"})
    other.close()
    assert roster.user("org_1", "s2") is None
    assert roster.refresh_if_changed()
    assert roster.user("org_1", "s2") is not None
    assert not roster.collects("org_1", "s1", "user_interaction")
    assert not roster.refresh_if_changed()


def test_a_file_that_is_no_database_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "roster.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError) as told:
        opened(tmp_path)
    assert "restore" in told.value.hint


def test_only_the_owner_can_read_the_file(roster: Roster, tmp_path: Path) -> None:
    assert (tmp_path / "roster.db").stat().st_mode & 0o077 == 0


def test_deleting_what_is_not_there_says_so(roster: Roster) -> None:
    school(roster)
    assert not roster.delete("users", "org_2", "s1")
    assert roster.delete("users", "org_1", "s1")
    assert roster.export("org_1")["enrollments"] == {}
    assert roster.delete("organizations", "org_1", "org_1")
    assert roster.export("org_1")["users"] == {}
