"""The roster over HTTP: who may write it, and that it holds for the next event."""

from __future__ import annotations

import io
import secrets
import zipfile
from datetime import UTC, datetime
from typing import Any

from tests.daemon import Daemon


def lesson(event_id: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "game_stage_start",
        "timestamp": datetime.now(UTC).isoformat(),
        "properties": {"game_id": "G-01542", "stage_id": "G-01542-quiz", "stage_type": "quiz"},
    } | more


def test_a_record_that_was_put_is_there_for_the_next_event(daemon: Daemon) -> None:
    admin = daemon.token("usr_admin", "org_1", "subscriber_admin")
    assert daemon.put("/v1/roster/organizations/org_1", {"name": "School"}, admin).status == 204
    user = {"organization_id": "org_1", "role": "student", "age_band": "16_plus"}
    assert daemon.put("/v1/roster/users/usr_1", user, admin).status == 204
    consent = {"user_interaction": "denied"}
    assert daemon.put("/v1/consents/usr_1", consent, admin).status == 200
    ack = daemon.publish(
        [lesson("evt_login_1", event_type="user_login", properties={}), lesson("evt_game_1")],
        daemon.token("usr_1"),
    )
    assert (ack["stored"], ack["dropped"]) == (1, 1)
    assert ack["receipts"][0]["reason"] == "consent"


def test_nobody_else_writes_the_roster(daemon: Daemon) -> None:
    user = {"organization_id": "org_1", "role": "student"}
    for role in ("student", "teacher", "teacher_admin"):
        token = daemon.token("usr_x", "org_1", role)
        assert daemon.put("/v1/roster/users/usr_1", user, token).status == 403
    assert daemon.put("/v1/roster/users/usr_1", user, daemon.key("org_1")).status == 403
    assert daemon.put("/v1/roster/users/usr_1", user).status == 401


def test_a_roster_key_writes_its_own_organization_alone(daemon: Daemon) -> None:
    key = daemon.key("org_1", "--roster")
    daemon.organization("org_2")
    own = {"organization_id": "org_1", "role": "student"}
    assert daemon.put("/v1/roster/users/usr_1", own, key).status == 204
    other = own | {"organization_id": "org_2"}
    assert daemon.put("/v1/roster/users/usr_2", other, key).status == 403
    system = daemon.token("root", "org_1", "system_admin")
    assert daemon.put("/v1/roster/users/usr_2", other, system).status == 204


def test_what_is_no_record_is_told_with_its_place(daemon: Daemon) -> None:
    admin = daemon.token("usr_admin", "org_1", "subscriber_admin")
    wrong = daemon.put("/v1/roster/users/usr_1", {"organization_id": "org_1", "role": "x"}, admin)
    assert wrong.status == 400
    assert "role" in wrong.json()["detail"]
    assert daemon.put("/v1/roster/pets/p_1", {}, admin).status == 404


def test_a_oneroster_zip_larger_than_other_bodies_is_loaded(daemon: Daemon) -> None:
    admin = daemon.token("usr_admin", "org_1", "subscriber_admin")
    rows = [f"u{i},active,org_1,student,u{i},Given{i},Family{i}" for i in range(300)]
    header = "sourcedId,status,orgSourcedIds,role,username,givenName,familyName"
    manifest = (
        "propertyName,value\noneroster.version,1.1\nfile.orgs,bulk\nfile.users,bulk\n"
        "file.academicSessions,absent\nfile.classes,absent\nfile.courses,absent\n"
        "file.enrollments,absent\n"
    )
    data = zipped(
        {
            "manifest.csv": manifest,
            "orgs.csv": "sourcedId,status,name,type\norg_1,active,School,school\n",
            "users.csv": "\n".join([header, *rows]) + "\n",
            "ballast.bin": secrets.token_hex(3 << 20),
        }
    )
    assert len(data) > 5 << 20 >> 1
    told = daemon.request(
        "POST", "/v1/roster/oneroster", admin, data, {"Content-Type": "application/zip"}
    )
    assert told.status == 200, told
    assert told.json()["loaded"]["users"] == 300
    again = daemon.request(
        "POST",
        "/v1/roster/oneroster?organization_id=org_2",
        admin,
        data,
        {"Content-Type": "application/zip"},
    )
    assert again.status == 403


def zipped(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


def test_consent_is_the_persons_own_and_its_history_is_kept(daemon: Daemon) -> None:
    me = daemon.token("usr_1")
    assert daemon.put("/v1/consents/usr_1", {"user_interaction": "denied"}, me).status == 200
    assert daemon.put("/v1/consents/usr_1", {"user_interaction": "granted"}, me).status == 200
    told = daemon.get("/v1/consents/usr_1", me).json()
    assert told["user_interaction"] == "granted"
    assert told["consents"]["user_interaction"]["given_by"] == "usr_1"
    assert [entry["word"] for entry in told["history"]] == ["denied", "granted"]
    assert daemon.get("/v1/consents/usr_1", daemon.token("usr_2")).status == 403
    assert daemon.put("/v1/consents/usr_1", {}, me).status == 400
    teacher = daemon.token("usr_t", "org_1", "teacher")
    assert daemon.put("/v1/consents/usr_1", {"user_interaction": "denied"}, teacher).status == 403


def test_what_is_held_about_me_is_counted(daemon: Daemon) -> None:
    me = daemon.token("usr_1")
    daemon.publish([lesson("evt_game_1"), lesson("evt_game_2")], me)
    told = daemon.get("/v1/me/data", me).json()
    assert told["events"]["by_type"] == {"game_stage_start": 2}
    assert told["events"]["by_privacy_level"] == {"standard": 2}
    assert told["retention_days"]["standard"] == 2555
    assert daemon.get("/v1/me/data", daemon.key("org_1")).status == 403
