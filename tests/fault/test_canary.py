"""What a child or a personal event carried stands in no file that the daemon wrote, and in no log."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard
from sqlite_utils.utils import sqlite3

from mlc_broker.store.pack import Pack
from tests.daemon import Daemon, wait_until

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def canary(kind: str) -> str:
    return f"Canary{kind}{secrets.token_hex(6)}"


def event(event_type: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"evt_{secrets.token_hex(8)}",
        "event_type": event_type,
        "timestamp": datetime.now(UTC).isoformat(),
    } | more


def told_by_a_careless_client(words: dict[str, str]) -> list[dict[str, Any]]:
    """Return events with every canary in every place that a client could think of."""
    device = {
        "user_agent": f"Mozilla/5.0 {words['agent']} Safari",
        "platform": "tablet",
        "device_id": words["device"],
        "model": f"Ann's {words['device']}",
    }
    context = {
        "page_url": f"https://school.example/play?name={words['name']}#{words['name']}",
        "referrer": f"/search?q={words['text']}",
        "student_name": words["name"],
        "own": {"deep": [{"full_name": words["name"], "ip": words["address"]}]},
    }
    game = {"game_id": "G-01542", "stage_id": "G-01542-quiz", "stage_type": "quiz", "score": 81}
    personal = {
        "email": f"{words['mail']}@example.org",
        "note": f"I am {words['name']}, {words['mail']}@example.org",
        "full_name": words["name"],
        "homeAddress": words["address"],
        "list": [f"{words['mail']}@example.org", {"parent": {"phone": words["address"]}}],
        "photo": words["blob"] * 120,
        "blob": words["blob"] * 120,
    }
    page = {"page_url": f"/a?x={words['text']}", "page_title": f"About {words['text']}"}
    page["search_query"] = f"where is {words['text']}"
    shared = {"device_info": device, "context": context}
    return [
        event("game_stage_complete", properties=game | personal, **shared),
        event("page_view", properties=page, **shared),
        event("message_sent", properties={"subject": f"Dear {words['name']}"}, **shared),
        event("javascript_error", properties={"message": f"x {words['text']} y"}, **shared),
        event("game_stage_complete", properties=game | personal, privacy_level="pii", **shared),
        event("no_such_" + words["type"].lower(), properties=personal, **shared),
        event("game_stage_complete", properties={"score": words["text"]}, **shared),
        event("game_stage_complete", properties=game, odd=words["odd"]),
    ]


def test_a_childs_canaries_are_in_no_file_and_in_no_log(
    make_daemon: Callable[..., Daemon],
) -> None:
    kinds = ("agent", "device", "name", "text", "address", "mail", "blob", "type", "odd")
    words = {kind: canary(kind) for kind in kinds}
    daemon = make_daemon(environment="development")
    daemon.roster(
        {
            "organizations": {"org_1": {}},
            "users": {"usr_child": {"organization_id": "org_1", "role": "student"}},
        }
    )
    key = daemon.key("org_1")
    for user in ("usr_child", "usr_unknown"):
        told = [{"user_id": user} | each for each in told_by_a_careless_client(words)]
        ack = daemon.publish(told, key)
        assert (ack["stored"], ack["dropped"], ack["rejected"]) == (4, 1, 3), ack
        daemon.publish(told, key)  # and again: a duplicate leaves no more than the first
    wait_until(lambda: rows_of(daemon.directory / "data" / "quarantine.db", "kept"))
    found = list(places_of([*words.values()], daemon.directory))  # as it lies there while it runs
    assert found == []
    assert daemon.stop() == 0
    assert list(places_of([*words.values()], daemon.directory)) == []
    said = "".join(daemon.lines).lower()
    assert not [word for word in words.values() if word.lower() in said]
    assert list(places_of(["G-01542-quiz"], daemon.directory))  # the search does find what is there


def test_a_grown_ups_personal_event_names_nobody_in_any_file(
    make_daemon: Callable[..., Daemon],
) -> None:
    words = {kind: canary(kind) for kind in ("agent", "name", "session", "mail", "user")}
    daemon = make_daemon()
    user = {"organization_id": "org_1", "role": "student", "age_band": "16_plus"}
    daemon.roster({"organizations": {"org_1": {}}, "users": {f"usr_{words['user']}": user}})
    personal = event(
        "user_login",
        user_id=f"usr_{words['user']}",
        session_id=words["session"],
        privacy_level="pii",
        device_info={"user_agent": words["agent"]},
        properties={"full_name": words["name"], "mail": f"{words['mail']}@example.org"},
        context={"actor_id": f"usr_{words['user']}"},
    )
    assert daemon.publish([personal], daemon.key("org_1"))["stored"] == 1
    daemon.stop()
    found = list(places_of([*words.values()], daemon.directory))
    assert {place for place, _ in found} <= {"roster.db", "roster.db-wal"}, found


def places_of(words: list[str], directory: Path) -> Iterator[tuple[str, str]]:
    """Yield (file, word) for every word that lies anywhere: raw, in a frame, in a pack."""
    wanted = [word.lower().encode() for word in words]
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or path.stat().st_size > 1 << 28:
            continue
        for data in contents(path):
            low = data.lower()
            for word in wanted:
                if word in low or word.decode().encode("utf-16-le") in low:
                    yield path.name, word.decode()


def contents(path: Path) -> Iterator[bytes]:
    """Yield the file's bytes, and all that is compressed in it: frames where they begin, packs."""
    data = path.read_bytes()
    yield data
    at = data.find(ZSTD_MAGIC)
    while at >= 0:  # frames in one piece, of the database and its WAL alike, freed pages included
        with contextlib.suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(data[at : at + (1 << 20)])
        at = data.find(ZSTD_MAGIC, at + 1)
    if path.suffix == ".db":
        yield from packs(path)


def packs(path: Path) -> Iterator[bytes]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "pack" not in tables:
            return
        for row in connection.execute(
            "SELECT n, t0, t1, recv, ids, cols, frames, offs, crc FROM pack"
        ):
            yield b"\n".join(Pack.from_row(row).lines())
    finally:
        connection.close()


def rows_of(path: Path, table: str) -> int:
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count
    finally:
        connection.close()


def test_the_search_finds_a_word_in_a_compressed_frame(tmp_path: Path) -> None:
    word = canary("frame")
    framed = zstandard.compress(json.dumps([f"{word[:-4]}-", word] * 40).encode(), 19)
    (tmp_path / "x.db-wal").write_bytes(b"before" + framed + b"after")
    assert set(places_of([word], tmp_path)) == {("x.db-wal", word.lower())}
