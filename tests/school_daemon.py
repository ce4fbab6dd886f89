"""A school of two organizations in a real daemon, with events of everybody in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from mlc_broker.model.catalog import Catalog
from tests.daemon import Daemon
from tests.oracle_scopes import School

ROLES = {
    "ada": ("north", "student"),
    "ben": ("north", "student"),
    "cleo": ("north", "student"),
    "tess": ("north", "teacher"),
    "tom": ("north", "teacher"),
    "thea": ("north", "teacher_admin"),
    "sam": ("north", "subscriber_admin"),
    "root": ("north", "system_admin"),
    "sid": ("south", "student"),
    "tova": ("south", "teacher"),
    "sue": ("south", "subscriber_admin"),
}
STUDIES = {"ada": "c1", "ben": "c2", "cleo": "c3", "sid": "c9"}
TYPES: dict[str, dict[str, Any]] = {
    "game_stage_complete": {"game_id": "g1", "stage_type": "quiz", "score": 82},
    "user_login": {},
    "javascript_error": {"message": "x"},
    "feature_adoption": {"feature_name": "reports"},
}
CATEGORIES = {name: kind.category for name, kind in Catalog.standard().types.items()}


class World(School):
    """As in the roster below."""

    teaches: ClassVar[Mapping[str, Mapping[str, set[str]]]] = {
        "north": {"tess": {"c1", "c3"}, "tom": {"c2"}},
        "south": {"tova": {"c9"}},
    }
    manages: ClassVar[Mapping[str, Mapping[str, set[str]]]] = {
        "north": {"thea": {"tess"}},
        "south": {},
    }


class SchoolDaemon:
    """The daemon, tokens of everybody, and all events as they are stored."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.events: list[dict[str, Any]] = []

    def token(self, who: str) -> str:
        org, role = ROLES[who]
        return self.daemon.token(who, org, role)

    def get(self, who: str, path: str) -> Any:
        return self.daemon.get(path, self.token(who))

    def ids(self, who: str, path: str) -> list[str]:
        answer = self.get(who, path)
        assert answer.status == 200, answer
        return [event["event_id"] for event in answer.json()["events"]]


@contextmanager
def school(directory: Path) -> Iterator[SchoolDaemon]:
    """Start it, enroll everybody, publish, and end it afterwards."""
    daemon = Daemon(directory, environment="development")
    daemon.start()
    try:
        whole = SchoolDaemon(daemon)
        daemon.roster(_records())
        for org in World.teaches:
            ack = daemon.publish(_events(org), daemon.key(org))
            assert ack["stored"] == len(_events(org)), ack
        for org in World.teaches:
            found = whole.get("root", f"/v1/events?limit=1000&organization_id={org}")
            whole.events += found.json()["events"]
        yield whole
    finally:
        daemon.kill()


def _records() -> dict[str, dict[str, Any]]:
    users = {
        name: {"organization_id": org, "role": role, "age_band": "16_plus"}
        for name, (org, role) in ROLES.items()
    }
    users["thea"]["manages"] = sorted(World.manages["north"]["thea"])  # type: ignore[assignment]
    classes = {
        name: {"organization_id": org, "name": name, "teacher_ids": [teacher]}
        for org, teaches in World.teaches.items()
        for teacher, names in teaches.items()
        for name in names
    }
    enrollments = {
        f"e-{user}": {"class_id": name, "user_id": user} for user, name in STUDIES.items()
    }
    organizations = {org: {"name": org} for org in World.teaches}
    return {
        "organizations": organizations,
        "users": users,
        "classes": classes,
        "enrollments": enrollments,
    }


def _events(org: str) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    people = [name for name, (where, _) in ROLES.items() if where == org]
    made: list[dict[str, Any]] = []
    for user in [*people, "stranger", None]:
        for kind, properties in TYPES.items():
            for teacher in (None, *World.teaches[org]):
                number = len(made)
                made.append(
                    {
                        "event_id": f"{org}-{number:06d}",
                        "event_type": kind,
                        "timestamp": (now - timedelta(seconds=number)).isoformat(),
                        "user_id": user,
                        "session_id": f"session-{number % 3}",
                        "properties": properties,
                        "context": {"class_id": "c1", "teacher_id": teacher},
                    }
                )
    return made
