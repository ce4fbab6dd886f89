"""What a load generator sends: messages encoded once, whose event ids are made new before each use.

A page is a run of such messages in one buffer. Making a hundred ids new costs about 15 µs, so that
one core sends some millions of events a second, each with an id of its own, already masked.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlc_broker.model.event import rfc3339

Protocol: TypeAlias = Literal["websocket", "http", "nats", "plain"]  # plain: no frame around
_OF_A_GAME = ("websocket", "plain")
STUDENTS, CLASSES, GAMES = 2_000, 70, 300
ORGANIZATION = "org_bench"
AGENT = "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36"
PLACE = b"00000000-0000-4000-8000-000000000000"  # where an id goes
PAGE_MESSAGES = 64  # of one event; larger ones stand alone
_DIGITS = [at for at, sign in enumerate(PLACE) if sign != ord("-")]
_HEX = np.frombuffer("".join(f"{n:02x}" for n in range(256)).encode(), np.uint16)


class Page:
    """Messages in one buffer; `renew` gives every event in it a new id."""

    def __init__(self, messages: Sequence[bytes], events: int, *, mask: bytes = b"") -> None:
        """`mask`: the messages are payloads, to be sent as masked WebSocket text frames."""
        self.buffer = bytearray()
        self.parts: list[tuple[int, int]] = []
        self.events = events  # of each message
        positions: list[NDArray[np.int64]] = []
        masks: list[NDArray[np.uint8]] = []
        for message in messages:
            began = len(self.buffer)
            found, covers = _places(message, mask)
            head, body = _framed(message, mask) if mask else (b"", message)
            positions.append(found + began + len(head))
            masks.append(covers)
            self.buffer += head + body
            self.parts.append((began, len(self.buffer)))
        self._positions = np.concatenate(positions)
        self._masks = np.concatenate(masks)
        self._bytes = np.frombuffer(self.buffer, np.uint8)
        # A message may name an event's id more than once, as NATS does in its headers.
        self._copies = len(self._positions) // (len(messages) * events)

    def renew(self) -> None:
        """Give every event a new random id."""
        count = len(self._positions) // self._copies
        digits = _HEX[np.frombuffer(os.urandom(16 * count), np.uint8)].view(np.uint8)
        digits = digits.reshape(count, 32).repeat(self._copies, axis=0)
        self._bytes[self._positions] = digits ^ self._masks

    def message(self, number: int) -> bytes:
        """Return a copy of one message as it goes over the wire."""
        began, ended = self.parts[number]
        return bytes(self.buffer[began:ended])


def pages(
    protocol: Protocol,
    events_each: int,
    count: int,
    *,
    path: str = "/v1/events",
    bearer: str = "",
    shape: Literal["event", "xapi"] = "event",
    now: datetime | None = None,
    spread_seconds: float = 3_600.0,
    seed: int = 1,
) -> list[Page]:
    """Return `count` pages of messages of `events_each` events, all of one school.

    A WebSocket message is what one game reports: one student, session, device and assignment within
    two minutes. The other protocols carry what a server relays: events of many students.
    `bearer` is the Authorization header of HTTP, or the subject that NATS answers to.
    """
    chance = Random(seed)  # noqa: S311 (made-up events, no secrets)
    moment = now or datetime.now(UTC)
    made = []
    for _ in range(count):
        messages = []
        for _ in range(PAGE_MESSAGES if events_each == 1 else 1):
            events = [school_event(chance, moment, spread_seconds) for _ in range(events_each)]
            if protocol in _OF_A_GAME:
                events = _of_one_game(events, moment)
            if shape == "xapi":
                events = [_statement(event) for event in events]
            messages.append(_message(protocol, events, path, bearer))
        mask = chance.randbytes(4) if protocol == "websocket" else b""
        made.append(Page(messages, events_each, mask=mask))
    return made


def school_event(chance: Random, now: datetime, spread_seconds: float = 3_600.0) -> dict[str, Any]:
    """Return an event of the specification's shape (about 730 bytes), its id still to be filled in."""
    student = chance.randrange(STUDENTS)
    class_ = student * CLASSES // STUDENTS
    game = f"G-{chance.randrange(GAMES):05d}"
    score = chance.randrange(9000)
    kind = "game_stage_complete" if chance.random() < 0.8 else "target_met"
    properties: dict[str, Any] = {
        "game_id": game,
        "stage_id": f"{game}-quiz",
        "stage_type": "quiz",
        "score": score,
        "max_score": 9000,
        "target_score": 6000,
        "duration_ms": chance.randrange(200_000),
    }
    if kind == "game_stage_complete":
        properties |= {"passed": score >= 6000, "attempt_number": chance.randrange(1, 9)}
    return {
        "event_id": PLACE.decode(),
        "event_type": kind,
        "timestamp": rfc3339(now - timedelta(seconds=chance.uniform(0, spread_seconds))),
        "user_id": f"usr_{student:05d}",
        "session_id": f"sess_{student * 7919:016x}",
        "organization_id": ORGANIZATION,
        "device_info": {
            "user_agent": AGENT,
            "platform": chance.choice(("desktop", "tablet", "mobile")),
            "browser": "chrome",
            "version": "120.0.0.0",
            "screen_resolution": "1366x768",
            "timezone": "America/Chicago",
        },
        "context": {
            "page_url": "/student/assignment-play",
            "assignment_id": f"asg_{class_}_{chance.randrange(20)}",
            "sequence_id": f"seq_{class_ % 9}",
            "class_id": f"cls_{class_}",
            "teacher_id": f"tch_{class_ // 2}",
        },
        "properties": properties,
    }


def school_roster() -> dict[str, dict[str, Any]]:
    """Return the school whose events these are, for a roster."""
    return {
        "organizations": {ORGANIZATION: {"name": "A school that plays fast"}},
        "users": {
            f"usr_{n:05d}": {
                "organization_id": ORGANIZATION,
                "role": "student",
                "age_band": "13_to_15",
                "parental_consent": "certified_by_school",
            }
            for n in range(STUDENTS)
        }
        | {
            f"tch_{n}": {"organization_id": ORGANIZATION, "role": "teacher"}
            for n in range(CLASSES // 2 + 1)
        },
        "classes": {
            f"cls_{n}": {"organization_id": ORGANIZATION, "teacher_ids": [f"tch_{n // 2}"]}
            for n in range(CLASSES)
        },
        "enrollments": {
            f"enr_{n}": {"class_id": f"cls_{n * CLASSES // STUDENTS}", "user_id": f"usr_{n:05d}"}
            for n in range(STUDENTS)
        },
    }


def _of_one_game(events: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    first = events[0]
    shared = {name: first[name] for name in ("user_id", "session_id", "device_info", "context")}
    began = datetime.fromisoformat(first["timestamp"])
    step = min((now - began) / len(events), timedelta(seconds=120) / len(events))
    return [
        event | shared | {"timestamp": rfc3339(began + number * step)}
        for number, event in enumerate(events)
    ]


# ── messages ──────────────────────────────────────────────────────────────────────────────────


def _message(protocol: Protocol, events: list[dict[str, Any]], path: str, bearer: str) -> bytes:
    match protocol:
        case "websocket" | "plain":
            return msgspec.json.encode({"op": "publish", "id": "b-1", "events": events})
        case "http":
            body = msgspec.json.encode(events[0] if len(events) == 1 else events)
            head = (
                f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {bearer}\r\n"
                f"Content-Type: application/json\r\nX-Experience-API-Version: 1.0.3\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            return head.encode() + body
        case "nats":
            return b"".join(_publication(event, bearer) for event in events)


def _publication(event: dict[str, Any], inbox: str) -> bytes:
    head = b"NATS/1.0\r\nNats-Msg-Id: " + PLACE + b"\r\n\r\n"
    body = msgspec.json.encode(event)
    sizes = f"{len(head)} {len(head) + len(body)}"
    return f"HPUB events.school {inbox} {sizes}\r\n".encode() + head + body + b"\r\n"


def _statement(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event as an xAPI statement: what a learning record store takes."""
    home = "https://lms.example"
    return {
        "id": event["event_id"],
        "timestamp": event["timestamp"],
        "actor": {"objectType": "Agent", "account": {"homePage": home, "name": event["user_id"]}},
        "verb": {"id": f"{home}/verbs/{event['event_type']}"},
        "object": {"objectType": "Activity", "id": f"{home}/{event['properties']['game_id']}"},
        "context": {
            "platform": event["device_info"]["platform"],
            "extensions": {
                f"{home}/context": event["context"],
                f"{home}/device": event["device_info"],
                f"{home}/properties": event["properties"],
            },
        },
    }


def _framed(payload: bytes, mask: bytes) -> tuple[bytes, bytes]:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
    cover = np.resize(np.frombuffer(mask, np.uint8), size)
    return head + mask, (np.frombuffer(payload, np.uint8) ^ cover).tobytes()


def _places(message: bytes, mask: bytes) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return where the digits of each id stand in a message, and what masks them."""
    starts = []
    at = message.find(PLACE)
    while at >= 0:
        starts.append(at)
        at = message.find(PLACE, at + len(PLACE))
    found = np.array(starts, np.int64)[:, None] + np.array(_DIGITS, np.int64)[None, :]
    cover = np.frombuffer(mask or bytes(4), np.uint8)
    return found, cover[found % 4]
