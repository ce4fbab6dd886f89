from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlc_broker.cli.main import run
from mlc_broker.model.errors import Malformed, StoreError
from mlc_broker.model.person import User, has_parental_consent
from mlc_broker.model.principal import Role
from mlc_broker.store.roster import Roster
from mlc_broker.store.roster_import import import_file, import_json
from mlc_broker.store.schema import sqlite3
from tests.unit.store.test_roster import everything, opened, roster, school, student

__all__ = ["roster"]  # the fixture

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_was_exported_can_be_imported_again(roster: Roster, tmp_path: Path) -> None:
    school(roster)
    roster.put("users", "s2", student(birth_date="2016-01-01", parental_consent="verified"))
    file = tmp_path / "roster.json"
    file.write_bytes(msgspec.json.encode(roster.export("org_1")))
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other")
    told: list[Any] = []
    report = import_file(file, other, lambda what, done: told.append((what, done)))
    assert report.loaded == {"organizations": 1, "users": 3, "classes": 1, "enrollments": 1}
    assert report.rejected == ()
    assert ("users", 3) in told
    assert other.export("org_1") == roster.export("org_1")
    other.close()


def test_bad_records_of_a_json_file_are_told_and_the_rest_are_loaded(roster: Roster) -> None:
    text = b"""{"enrollments": {"e1": {"class_id": "c1", "user_id": "s1"},
                               "e2": {"class_id": "nowhere", "user_id": "s1"}},
      "users": {"s1": {"organization_id": "org_1", "role": "student"}, "s2": {"role": 5}, "s3": 7},
      "classes": {"c1": {"organization_id": "org_1"}}}"""
    dry = import_json(roster, text, dry_run=True)
    assert roster.user("org_1", "s1") is None
    report = import_json(roster, text)
    assert [(row.file, row.line) for row in report.rejected] == [
        ("users", 2),
        ("users", 3),
        ("enrollments", 2),
    ]
    assert (
        report.loaded
        == dry.loaded
        == {
            "organizations": 0,
            "users": 1,
            "classes": 1,
            "enrollments": 1,
        }
    )
    assert roster.membership("org_1", "s1", NOW)[0] == ("c1",)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"pupils": {}}', b'{"users": []}', b"\xff\xfe{"])
def test_a_file_that_is_no_roster_is_refused(roster: Roster, text: bytes) -> None:
    with pytest.raises(Malformed):
        import_json(roster, text)


def test_without_a_listener_one_bad_record_stops_it_all(roster: Roster) -> None:
    before = everything(roster)
    with pytest.raises(Malformed):
        roster.put_many([("users", "s1", student()), ("users", "s2", {"role": "king"})])
    assert everything(roster) == before


def test_an_import_that_fails_in_the_middle_leaves_what_was_there(
    roster: Roster, tmp_path: Path
) -> None:
    school(roster)
    before = everything(roster)
    # A disk that fails on the enrolments, after the users were written in the same transaction.
    blade = sqlite3.connect(str(tmp_path / "roster.db"))
    blade.execute(
        "CREATE TRIGGER fail BEFORE INSERT ON enrollments BEGIN SELECT RAISE(ABORT, 'disk'); END"
    )
    blade.commit()
    blade.close()
    with pytest.raises(StoreError, match="disk"):
        roster.put_many(
            [
                ("users", "new", student()),
                ("enrollments", "e5", {"class_id": "c1", "user_id": "new"}),
            ]
        )
    assert everything(roster) == before
    assert roster.user("org_1", "new") is None
    again = opened(tmp_path)
    assert everything(again) == before
    again.close()


def test_a_change_worked_out_before_another_process_wrote_is_not_made(
    roster: Roster, tmp_path: Path
) -> None:
    school(roster)
    other = opened(tmp_path)
    with roster.writing():
        draft = roster.draft()
        stale = roster.change(draft, "users", "s1", User(**student_record), "org_1")
        other.put("users", "s1", student(parental_consent="verified"))
        with pytest.raises(StoreError, match="meanwhile"):
            roster.commit([stale])
    roster.put("classes", "c7", {"organization_id": "org_1"})  # looks first, and sees both
    assert has_parental_consent(roster.user("org_1", "s1"))
    other.close()


student_record: dict[str, Any] = {"organization_id": "org_1", "role": Role.STUDENT}


def test_the_command_loads_a_file_and_tells_what_it_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, config = tmp_path / "r.json", str(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text("")
    file.write_text(
        '{"organizations": {"org_1": {}}, "users": {"s1": {"organization_id": "org_1",'
        ' "role": "student"}, "s2": {}}}'
    )
    command = ["roster", "import", str(file), "--config", config]
    assert run([*command, "--dry-run"]) == 0
    assert "would load 1 organizations, 1 users" in capfd.readouterr().out
    assert run(command) == 0
    told = capfd.readouterr()
    assert "loaded 1 organizations, 1 users" in told.out
    assert "users:2: s2:" in told.err
    people = opened(tmp_path / "data")
    assert people.user("org_1", "s1") is not None
    people.close()
    file.write_text("no roster")
    assert run(command) == 69
    assert "Traceback" not in capfd.readouterr().err
