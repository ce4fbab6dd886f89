"""`serve --dev`: a throw-away secret, a key of each kind, a demo organization; loopback only."""

from __future__ import annotations

import ipaddress
import tempfile
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from mlc_broker.config import Config, address
from mlc_broker.config_files import ensure_secret, read_secret
from mlc_broker.edge.credentials import make_token
from mlc_broker.edge.keys import create_key, list_keys, load_pepper, revoke_key
from mlc_broker.model.errors import ConfigError
from mlc_broker.model.person import Class, Enrollment, Organization, User
from mlc_broker.model.principal import CATEGORIES, Role
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.roster import Roster

ORGANIZATION = "org_demo"
PEOPLE: dict[str, tuple[str, Role]] = {
    "system_admin": ("usr_demo_system_admin", Role.SYSTEM_ADMIN),
    "subscriber_admin": ("usr_demo_admin", Role.SUBSCRIBER_ADMIN),
    "teacher_admin": ("usr_demo_head", Role.TEACHER_ADMIN),
    "teacher": ("usr_demo_teacher", Role.TEACHER),
    "student": ("usr_demo_student", Role.STUDENT),
}
_NAME = "serve --dev"


class Guests(Struct, kw_only=True):
    """What a developer gets: printed before the ready line, gone with the process."""

    config: Config
    text: str
    secret: bytes
    folder: str

    def token(self, role: str) -> str:
        """Return a fresh token of the demo person of this role."""
        sub, kind = PEOPLE[role]
        now = SystemClock().now()
        issuer = self.config.auth.issuer
        return make_token(self.secret, sub=sub, org=ORGANIZATION, role=kind, now=now, issuer=issuer)

    def enroll(self, roster: Roster) -> None:
        """Put the demo organization, its people and its class into the roster."""
        enroll_demo(roster)


def prepare(config: Config) -> Guests:
    """Make the secret and the keys; ConfigError unless both doors are on loopback."""
    for section, listen in (("http", config.http.listen), ("websocket", config.websocket.listen)):
        host, _ = address(listen)
        if not _is_loopback(host):
            raise ConfigError(
                f"[{section}] listen: serve --dev opens loopback addresses only, not {host}; "
                'write "127.0.0.1:0", or serve without --dev'
            )
    folder = tempfile.mkdtemp(prefix="mlc-broker-dev-")
    secret_file = Path(folder) / "jwt.secret"
    ensure_secret(secret_file)
    auth = msgspec.structs.replace(config.auth, secret_file=str(secret_file))
    config = msgspec.structs.replace(config, auth=auth)
    guests = Guests(config=config, text="", secret=read_secret(secret_file), folder=folder)
    ingest, anonymous = _fresh_keys(config)
    lines = [
        f"organization {ORGANIZATION}",
        f"secret {guests.secret.decode()}",
        f"ingest_key {ingest}",
        f"anonymous_key {anonymous}",
        *(f"token {role} {guests.token(role)}" for role in PEOPLE),
    ]
    guests.text = "\n".join(lines)
    return guests


def enroll_demo(roster: Roster) -> None:
    """Put the demo organization, its people and its class into a roster."""
    roster.put("organizations", ORGANIZATION, Organization(name="Demo", subscription="ensemble"))
    for sub, role in PEOPLE.values():
        grown = role is not Role.STUDENT
        user = User(
            organization_id=ORGANIZATION,
            role=role,
            age_band="16_plus" if grown else "under_13",
            parental_consent="not_required" if grown else "certified_by_school",
            manages=("*",) if role is Role.TEACHER_ADMIN else (),
        )
        roster.put("users", sub, user)
    teacher, student = PEOPLE["teacher"][0], PEOPLE["student"][0]
    demo = Class(organization_id=ORGANIZATION, name="Demo class", teacher_ids=(teacher,))
    roster.put("classes", "cls_demo", demo)
    roster.put("enrollments", "enr_demo", Enrollment(class_id="cls_demo", user_id=student))


def _fresh_keys(config: Config) -> tuple[str, str]:
    """Revoke the keys of earlier `--dev` runs; make one of each kind."""
    config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = SystemClock().now()
    pepper = load_pepper(config.secret_path(config.auth.pepper_file))
    for key in list_keys(config.keys_path):
        if key.name == _NAME and key.revoked_at is None:
            revoke_key(config.keys_path, key.id, now)
    create = partial(
        create_key, config.keys_path, pepper, organization_id=ORGANIZATION, name=_NAME, now=now
    )
    return (
        create(may_write_roster=True),
        create(anonymous=True, categories=frozenset(CATEGORIES)),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
