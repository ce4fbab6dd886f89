"""The HTTP door over real sockets: every body type, every limit, and only problems for errors."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from backports import zstd
from h11 import CLIENT, Connection, Data, EndOfMessage, Request, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc_broker.edge import bodies
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.http.app import make_app
from mlc_broker.edge.limits import Limiter, Rates
from mlc_broker.edge.server import serve_http
from mlc_broker.model.errors import ClientError
from tests.minimal_house import MinimalHouse, event

JSON = "application/json"


class Reply(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Awaitable[Reply]]


class Doors:
    """The house behind a real listener."""

    def __init__(self, house: MinimalHouse, port: int) -> None:
        self.house = house
        self.port = port

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, token: str | None = "", **headers: str
    ) -> Reply:
        """`token` is the house's key unless given; None sends none."""
        fields = {"host": "localhost", "connection": "close", "content-length": str(len(body))}
        if token is not None:
            fields["authorization"] = f"Bearer {token or self.house.key}"
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        client = Connection(CLIENT)
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            sent = client.send(Request(method=method, target=path, headers=list(fields.items())))
            await stream.send_all((sent or b"") + body)
            client.send(Data(data=body))
            client.send(EndOfMessage())
            return await _reply(client, stream)

    async def post(
        self, body: Any, kind: str = JSON, path: str = "/v1/events", **more: Any
    ) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask("POST", path, data, content_type=kind, **more)


async def _reply(client: Connection, stream: trio.SocketStream) -> Reply:
    status, headers, body = 0, {}, b""
    with trio.fail_after(5):
        while True:
            said = client.next_event()
            if isinstance(said, Response):
                status = said.status_code
                headers = {name.decode(): value.decode() for name, value in said.headers}
            elif isinstance(said, Data):
                body += said.data
            elif isinstance(said, EndOfMessage):
                return Reply(status, headers, body)
            else:
                client.receive_data(await stream.receive_some())


@pytest.fixture
async def doors(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Doors]:
    house = MinimalHouse(tmp_path)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    shutdown = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve_http(
            make_app(house.house), listeners, shutdown=shutdown, task_status=task_status
        )

    await nursery.start(serve)
    yield Doors(house, port)
    shutdown.set()
    house.keys.close()


def problem(reply: Reply, status: int, code: str) -> dict[str, Any]:
    told: dict[str, Any] = reply.json
    assert (reply.status, told["status"], told["code"]) == (status, status, code), told
    assert reply.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail"} <= set(told)
    assert "Traceback" not in str(told)
    return told


async def test_every_body_type_is_taken(doors: Doors) -> None:
    lines = b"\n".join(json.dumps(event(i)).encode() for i in (30, 31)) + b"\n\n"
    for body, kind, count in (
        (event(1), JSON, 1),
        ([event(2), event(3)], JSON, 2),
        (
            {"sent_at": "2025-01-27T14:30:45Z", "events": [event(4)]},
            "application/json; charset=utf-8",
            1,
        ),
        (lines, "application/x-ndjson", 2),
        (msgspec.msgpack.encode(event(5)), "application/msgpack", 1),
        (msgspec.msgpack.encode([event(6)]), "application/msgpack", 1),
        (msgspec.msgpack.encode({"events": [event(7)], "sent_at": None}), "application/msgpack", 1),
        ([], JSON, 0),
    ):
        reply = await doors.post(body, kind)
        assert reply.status == 200, reply.body
        assert reply.json == {
            "stored": count,
            "duplicate": 0,
            "dropped": 0,
            "rejected": 0,
            "quarantined": 0,
            "retry": 0,
            "receipts": [],
        }
    assert len(doors.house.kept) == 9
    assert doors.house.batches[2].origin.sent_at is not None


async def test_one_bad_event_costs_the_others_nothing(doors: Doors) -> None:
    bad = json.dumps(event(2, properties={"x": "ABCD"})).encode().replace(b"ABCD", b"A\xff\xfeD")
    good = json.dumps(event(1)).encode()
    for body, kind in (
        (b"[" + bad + b"," + good + b"]", JSON),
        (b'{"events": [' + bad + b"," + good + b"]}", JSON),
        (bad + b"\n" + good, "application/x-ndjson"),
        (b"garbage\n" + good, "application/x-ndjson"),
    ):
        reply = await doors.post(body, kind)
        assert reply.status == 200
        assert reply.json["rejected"] == 1
        assert reply.json["stored"] + reply.json["duplicate"] == 1
        assert reply.json["receipts"][0]["index"] == 0
        assert reply.json["receipts"][0]["reason"] == "malformed"


async def test_compressed_bodies_are_inflated_within_their_limit(doors: Doors) -> None:
    body = json.dumps([event(1)]).encode()
    for data, coding in (
        (gzip.compress(body), "gzip"),
        (zstd.compress(body), "zstd"),
        (gzip.compress(body[:7]) + gzip.compress(body[7:]), "gzip"),
        (body, "identity"),
    ):
        assert (await doors.post(data, content_encoding=coding)).status == 200
    bomb = b"[" + b" " * 50_000_000
    for data, coding in ((gzip.compress(bomb), "gzip"), (zstd.compress(bomb), "zstd")):
        assert len(data) < 100_000
        problem(await doors.post(data, content_encoding=coding), 413, "too_large")
    for data, coding, status, code in (
        (body, "gzip", 400, "malformed"),
        (gzip.compress(body)[:-9], "gzip", 400, "malformed"),
        (zstd.compress(body)[:-3], "zstd", 400, "malformed"),
        (zlib.compress(body), "deflate", 415, "unsupported"),
        (body, "gzip, zstd", 415, "unsupported"),
    ):
        problem(await doors.post(data, content_encoding=coding), status, code)


async def test_a_wrong_body_is_a_problem(doors: Doors) -> None:
    for body, kind, status, code in (
        (b"nonsense", JSON, 400, "malformed"),
        (b"", JSON, 400, "malformed"),
        (b"5", JSON, 400, "malformed"),
        (b'[{"a": }]', JSON, 400, "malformed"),
        (b'{"sent_at": "2025-01-27T14:30:45Z"}', JSON, 400, "malformed"),
        (b'{"sent_at": "noon", "events": []}', JSON, 400, "malformed"),
        (b'{"events": 5}', JSON, 400, "malformed"),
        (b"garbage", "application/x-ndjson", 400, "malformed"),
        (b"", "application/x-ndjson", 400, "malformed"),
        (b"\xc1", "application/msgpack", 400, "malformed"),
        (b"\x05", "application/msgpack", 400, "malformed"),
        (b"{}", "text/html", 415, "unsupported"),
        (b"{}", "application/json; charset=latin-1", 415, "unsupported"),
        (b"[" + b"5," * 50 + b"5]", JSON, 413, "too_many"),
        (b"[" + b" " * 100_000 + b"]", JSON, 413, "too_large"),
    ):
        problem(await doors.post(body, kind), status, code)
    assert not doors.house.batches


async def test_credentials_are_asked_for(doors: Doors) -> None:
    reply = await doors.post([event()], token=None)
    problem(reply, 401, "unauthenticated")
    assert reply.headers["www-authenticate"] == "Bearer"
    problem(await doors.post([event()], token="mlc_ik_0_0"), 401, "unauthenticated")
    reply = await doors.post([event(1), event(2, user_id="other")], token=doors.house.token())
    assert reply.json["rejected"] == 1
    assert reply.json["receipts"][0]["reason"] == "forbidden"
    assert doors.house.kept["evt_00000001"].user_id == "usr_1"


async def test_when_every_event_is_to_be_sent_again_it_is_503(doors: Doors) -> None:
    doors.house.full = True
    reply = await doors.post([event(1), event(2)])
    problem(reply, 503, "unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    reply = await doors.post([event(1), 5])
    assert reply.status == 200
    assert reply.json["retry"] == reply.json["rejected"] == 1
    assert reply.json["retry_after_ms"] == 1000


async def test_our_own_mistakes_are_told_without_their_words(doors: Doors) -> None:
    doors.house.broken = True
    told = problem(await doors.post([event(1)]), 500, "internal")
    assert "secret words" not in str(told)


async def test_too_much_in_too_short_a_time_is_429(doors: Doors) -> None:
    doors.house.house.limiter = Limiter(
        Rates(key_events_per_second_max=1, burst_seconds=1), trio.current_time
    )
    assert (await doors.post([event(i) for i in range(3)])).status == 200
    reply = await doors.post([event(9)])
    problem(reply, 429, "rate_limited")
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_beacon_carries_its_token_in_its_body(doors: Doors) -> None:
    path, kind = "/v1/beacon", "text/plain;charset=UTF-8"
    body = {
        "token": doors.house.anonymous,
        "sent_at": "2025-01-27T14:30:45Z",
        "events": [event(1), 5],
    }
    reply = await doors.post(body, kind, path, token=None)
    assert (reply.status, reply.json["stored"], reply.json["rejected"]) == (200, 1, 1)
    assert doors.house.batches[0].origin.transport == "beacon"
    problem(await doors.post({"events": []}, kind, path), 401, "unauthenticated")
    problem(await doors.post({"token": "x", "events": []}, kind, path), 401, "unauthenticated")
    problem(await doors.post({"token": doors.house.key}, kind, path), 400, "malformed")
    problem(await doors.post(b"nonsense", kind, path), 400, "malformed")
    problem(await doors.post(body, "text/html", path), 415, "unsupported")


async def test_pages_of_other_origins_may_call(doors: Doors) -> None:
    reply = await doors.ask(
        "OPTIONS",
        "/v1/events",
        token=None,
        origin="https://game.example",
        access_control_request_method="POST",
        access_control_request_headers="authorization, content-type",
    )
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "authorization" in reply.headers["access-control-allow-headers"]
    for reply in (
        await doors.post([event()], origin="https://game.example"),
        await doors.ask("GET", "/nowhere", origin="https://game.example"),
    ):
        assert reply.headers["access-control-allow-origin"] == "*"


async def test_the_small_pages_answer(doors: Doors) -> None:
    ask = doors.ask
    assert (await ask("GET", "/healthz", token=None)).json["status"] == "ok"
    assert (await ask("GET", "/readyz", token=None)).json == {"ready": True}
    doors.house.reasons = ["disk full"]
    told = problem(await ask("GET", "/readyz", token=None), 503, "unavailable")
    assert told["reasons"] == ["disk full"]
    assert list((await ask("GET", "/v1/schemas", token=None)).json["schemas"]) == ["page_view"]
    assert (await ask("GET", "/v1/schemas/pageView", token=None)).json["type"] == "object"
    problem(await ask("GET", "/v1/schemas/nope", token=None), 404, "not_found")
    me = (await ask("GET", "/v1/me", token=doors.house.token())).json
    assert (me["id"], me["role"], me["organization_id"]) == ("usr_1", "student", "org_1")
    assert (await ask("GET", "/v1/me")).json["kind"] == "ingest"
    problem(await ask("GET", "/v1/me", token=None), 401, "unauthenticated")
    await doors.post([event(1)])
    assert (await ask("GET", "/v1/receipts/evt_00000001")).json["outcome"] == "stored"
    problem(await ask("GET", "/v1/receipts/evt_00000002"), 404, "not_found")
    problem(await ask("GET", "/v1/receipts/evt_00000001?organization_id=org_2"), 404, "not_found")
    problem(await ask("GET", "/v1/receipts/evt_00000001?x=1"), 400, "malformed")
    assert (await ask("GET", "/openapi.json", token=None)).json["openapi"] == "3.1.0"


async def test_the_frameworks_own_errors_are_problems_too(doors: Doors) -> None:
    problem(await doors.ask("GET", "/nowhere", token=None), 404, "not_found")
    for method, path in (("DELETE", "/v1/me"), ("PUT", "/v1/events"), ("GET", "/v1/beacon")):
        told = await doors.ask(method, path, token=None)
        problem(told, 405, "method_not_allowed")
        assert told.headers["allow"]


@given(
    st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | st.just(b'{"events":[{}]}'),
    st.sampled_from([JSON, "application/x-ndjson", "application/msgpack", "text/plain", "é", ""]),
    st.sampled_from([None, "gzip", "zstd", "br"]),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_is_read_or_refused(data: bytes, kind: str, coding: str | None) -> None:
    limits = WireLimits()
    for read in (bodies.read_body, bodies.read_beacon):
        try:
            read(bodies.inflate(data, coding, 1_000), kind, limits)
        except ClientError as error:
            assert error.status in (400, 401, 413, 415)
