"""Learning events as xAPI 1.0.3 statements.

A statement's id is made from the event's, so that sending it again is no second statement.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from mlc_broker.query.export.writer import JsonArray

HOME = "https://musiclearningcommunity.com"
ADL = "http://adlnet.gov/expapi"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, f"{HOME}/xapi/statements")
_ADL_VERBS = {"completed", "passed", "failed", "attempted", "experienced", "scored"}
_STAGE_VERBS = {
    "quiz": "completed",
    "review": "reviewed",
    "play": "practiced",
    "learn": "experienced",
    "challenge": "challenged",
}
_VERBS = {
    "game_stage_start": "attempted",
    "target_met": "passed",
    "concept_mastered": "mastered",
    "assignment_started": "attempted",
    "assignment_completed": "completed",
    "challenge_joined": "challenged",
    "challenge_completed": "challenged",
}
_TYPES = {
    "quiz": f"{ADL}/activities/assessment",
    "review": f"{ADL}/activities/assessment",
    "learn": f"{ADL}/activities/lesson",
    "play": f"{ADL}/activities/simulation",
    "challenge": f"{HOME}/xapi/activity-types/challenge",
}
_EXTENSIONS = {  # of `properties`
    "game_id": "game-id",
    "stage_type": "stage-type",
    "concept_tags": "concept-tags",
    "attempts": "attempts",
    "input_mode": "input-mode",
}

_decode_lines = msgspec.json.Decoder().decode_lines
_encode = msgspec.json.Encoder().encode


class Xapi(JsonArray):
    """One JSON array of statements; events that are no learning are left out."""

    extension = "xapi.json"

    def add(self, body: bytes) -> bytes:
        """Return the statements of these events."""
        lines = [_encode(told) for event in _decode_lines(body) for told in statements(event)]
        return super().add(b"".join(line + b"\n" for line in lines))


def statements(event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what an event (as readers see it) says as statements: none, one, or two.

    A quiz that was not passed is `completed` and `failed`.
    """
    properties: Mapping[str, Any] = event.get("properties") or {}
    verb = _verb(event["event_type"], properties)
    if verb is None or not event.get("user_id"):
        return
    yield _statement(event, properties, verb)
    if (
        verb == "completed"
        and properties.get("stage_type") == "quiz"
        and _passed(properties) is False
    ):
        yield _statement(event, properties, "failed")


def statement_id(event: Mapping[str, Any], verb: str = "") -> str:
    """Return the id of an event's statement: the same each time, in every system."""
    name = f"{event.get('organization_id') or ''}/{event['event_id']}"
    return str(uuid.uuid5(_NAMESPACE, f"{name}/{verb}" if verb == "failed" else name))


def _statement(
    event: Mapping[str, Any], properties: Mapping[str, Any], verb: str
) -> dict[str, Any]:
    context: Mapping[str, Any] = event.get("context") or {}
    account = {"homePage": HOME, "name": event["user_id"]}
    told: dict[str, Any] = {
        "id": statement_id(event, verb),
        "actor": {"objectType": "Agent", "account": account},
        "verb": {"id": _verb_id(verb), "display": {"en-US": verb}},
        "object": _object(event["event_type"], properties, context),
        "timestamp": event["timestamp"],
        "version": "1.0.3",
    }
    if result := _result(properties, verb):
        told["result"] = result
    told["context"] = _context(event, properties, context)
    if stored := (event.get("meta") or {}).get("stored_at"):
        told["stored"] = stored
    return told


def _verb(event_type: str, properties: Mapping[str, Any]) -> str | None:
    if event_type == "game_stage_complete":
        return _STAGE_VERBS.get(properties.get("stage_type") or "", "completed")
    if event_type == "game_stage_start" and properties.get("play_context") == "free_play":
        return "explored"
    return _VERBS.get(event_type)


def _verb_id(verb: str) -> str:
    return f"{ADL}/verbs/{verb}" if verb in _ADL_VERBS else f"{HOME}/xapi/verbs/{verb}"


def _object(
    event_type: str, properties: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    game, stage = properties.get("game_id"), properties.get("stage_type")
    assignment = context.get("assignment_id")
    if event_type.startswith("assignment_") and assignment:
        return _activity(f"assignments/{assignment}", f"{ADL}/activities/module")
    if event_type.startswith("challenge_") and (challenge := properties.get("challenge_id")):
        return _activity(f"challenges/{challenge}", _TYPES["challenge"])
    if game and stage:
        kind = _TYPES.get(stage, f"{HOME}/xapi/activity-types/game-stage")
        return _activity(f"games/{game}/{stage}", kind)
    if game:
        return _activity(f"games/{game}", f"{HOME}/xapi/activity-types/music-game")
    if concept := properties.get("concept_id"):
        return _activity(f"concepts/{concept}", f"{ADL}/activities/objective")
    name = properties.get("stage_id") or properties.get("run_id") or event_type
    return _activity(f"stages/{name}", f"{HOME}/xapi/activity-types/game-stage")


def _activity(path: str, kind: str | None = None) -> dict[str, Any]:
    activity: dict[str, Any] = {"objectType": "Activity", "id": f"{HOME}/{_iri(path)}"}
    if kind is not None:
        activity["definition"] = {"type": kind}
    return activity


def _result(properties: Mapping[str, Any], verb: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    score = properties.get("score", properties.get("actual_score"))
    if _number(score):
        most = properties.get("max_score") or 100
        told: dict[str, Any] = {"raw": score, "min": 0}
        if properties.get("stage_type") != "challenge" and 0 <= score <= most:
            told |= {"max": most, "scaled": round(score / most, 4)}
        result["score"] = told
    passed = False if verb == "failed" else _passed(properties)
    if passed is not None:
        result["success"] = passed
    if verb in ("completed", "reviewed", "mastered", "practiced", "passed"):
        result["completion"] = True
    if _number(properties.get("duration_ms")):
        result["duration"] = duration(properties["duration_ms"])
    if isinstance(properties.get("mastery_achieved"), bool):
        mastered = properties["mastery_achieved"]
        result["extensions"] = {f"{HOME}/xapi/mastery-achieved": mastered}
    return result


def _context(
    event: Mapping[str, Any], properties: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    told: dict[str, Any] = {"platform": "mlc"}
    session = event.get("session_id")
    if attempt := properties.get("run_id") or session:
        told["registration"] = str(uuid.uuid5(_NAMESPACE, f"registration/{attempt}"))
    if teacher := context.get("teacher_id"):
        account = {"homePage": HOME, "name": teacher}
        told["instructor"] = {"objectType": "Agent", "account": account}
    activities: dict[str, Any] = {}
    if game := properties.get("game_id"):
        activities["parent"] = [_activity(f"games/{game}")]
    groups = [
        _activity(f"{kind}/{context[name]}")
        for name, kind in _GROUPS.items()
        if isinstance(context.get(name), str)
    ]
    if groups:
        activities["grouping"] = groups
    if activities:
        told["contextActivities"] = activities
    named = {
        f"{HOME}/xapi/{new}": properties[old]
        for old, new in _EXTENSIONS.items()
        if old in properties
    }
    if session:
        named[f"{HOME}/xapi/session-id"] = session
    if assignment := context.get("assignment_id"):
        named[f"{HOME}/xapi/assignment-id"] = assignment
    if named:
        told["extensions"] = named
    return told


_GROUPS = {"sequence_id": "sequences", "assignment_id": "assignments", "class_id": "classes"}


def duration(milliseconds: float) -> str:
    """Return an ISO 8601 duration: 125000 ms are PT2M5S."""
    seconds, ms = divmod(int(milliseconds), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}H" if hours else ""
    text += f"{minutes}M" if minutes else ""
    if ms:
        text += f"{seconds}.{ms:03d}".rstrip("0") + "S"
    elif seconds or not text:
        text += f"{seconds}S"
    return f"PT{text}"


def _passed(properties: Mapping[str, Any]) -> bool | None:
    passed = properties.get("passed")
    if isinstance(passed, bool):
        return passed
    score, needed = (
        properties.get("score"),
        properties.get("pass_threshold", properties.get("target_score")),
    )
    if isinstance(score, int | float) and isinstance(needed, int | float):
        return score >= needed
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _iri(path: str) -> str:
    return quote(path, safe="/-._~")
