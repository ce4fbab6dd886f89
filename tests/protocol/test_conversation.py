"""Conversations over real sockets, with a client of another make."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from mlc_broker.edge.conversation import Conversations, Talk, Value
from mlc_broker.edge.keys import list_keys, revoke_key
from mlc_broker.edge.websocket import serve_websocket
from mlc_broker.model.batch import Batch, Receipt
from mlc_broker.model.errors import NotFound
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal
from tests.minimal_house import MinimalHouse, event


class Feed:
    """Sends what is put into it."""

    def __init__(self) -> None:
        self.put, self._get = trio.open_memory_channel[tuple[Sequence[bytes], int]](math.inf)

    async def subscribe(
        self, principal: Principal, filter_: Filter
    ) -> AsyncIterator[tuple[Sequence[bytes], int]]:
        return self._get

    async def watch(
        self, principal: Principal, metric: str, group_by: list[str], window: str, filter_: Filter
    ) -> AsyncIterator[Value]:
        if metric != "events":
            raise NotFound("There is no such metric.")
        return _values()


async def _values() -> AsyncIterator[Value]:
    yield datetime(2025, 1, 27, tzinfo=UTC), [{"value": 1}]
    await trio.sleep_forever()


class Door:
    def __init__(self, house: MinimalHouse, feed: Feed, url: str, stopping: trio.Event) -> None:
        self.house, self.feed, self.url, self.stopping = house, feed, url, stopping
        self.gate: trio.Event | None = None

    async def submit(self, batch: Batch) -> list[Receipt]:
        if self.gate is not None:
            await self.gate.wait()
        return await self.house.submit(batch)

    @asynccontextmanager
    async def guest(
        self, token: str | None = "", **more: Any
    ) -> AsyncIterator[WebSocketConnection]:
        with trio.fail_after(8):
            async with open_websocket_url(self.url, **more) as guest:
                if token is not None:
                    await say(guest, {"op": "hello", "token": token or self.house.token()})
                    assert (await hear(guest))["op"] == "welcome"
                try:
                    yield guest
                finally:  # the client leaves its socket open where the other side closed first
                    await guest.aclose()
                    await trio.aclose_forcefully(guest._stream)


async def say(guest: WebSocketConnection, message: Any) -> None:
    await guest.send_message(message if isinstance(message, str | bytes) else json.dumps(message))


async def hear(guest: WebSocketConnection) -> Any:
    said = await guest.get_message()
    return json.loads(said) if isinstance(said, str) else msgspec.msgpack.decode(said)


async def goodbye(guest: WebSocketConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        await guest.get_message()
    assert closed.value.reason is not None
    return closed.value.reason.code


@pytest.fixture
async def door(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Door]:
    house, feed, stopping = MinimalHouse(tmp_path), Feed(), trio.Event()
    made = Door(house, feed, "", stopping)
    talk = Talk(
        submit=made.submit,
        credentials=house.credentials,
        admission=house.admission,
        clock=house.house.clock,
        server="mlc-broker/0",
        live=feed,
        hello_seconds_max=0.3,
    )
    conversations = Conversations(talk)
    await nursery.start(conversations.run)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve_websocket(
            conversations.converse, listeners, stopping=stopping, task_status=task_status
        )

    await nursery.start(serve)
    made.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1/stream"
    yield made
    stopping.set()
    nursery.cancel_scope.cancel()
    house.keys.close()


def publish(number: int, **more: Any) -> dict[str, Any]:
    return {"op": "publish", "id": f"b-{number}", "events": [event(number)], **more}


async def test_publishes_are_acknowledged_in_order(door: Door) -> None:
    async with door.guest() as guest:
        for number in range(40):
            await say(guest, publish(number))
        for number in range(40):
            ack = await hear(guest)
            assert (ack["id"], ack["stored"]) == (f"b-{number}", 1)


async def test_a_connection_is_not_read_beyond_what_may_be_in_flight(door: Door) -> None:
    door.gate = trio.Event()
    async with door.guest() as guest:
        for number in range(30):
            await say(guest, publish(number))
        await trio.sleep(0.1)
        assert not door.house.batches
        door.gate.set()
        assert [(await hear(guest))["id"] for _ in range(30)] == [f"b-{i}" for i in range(30)]


async def test_a_handshakes_credential_is_enough(door: Door) -> None:
    headers = [("Authorization", f"Bearer {door.house.key}")]
    async with door.guest(None, extra_headers=headers) as guest:
        await say(guest, {"op": "hello"})
        assert (await hear(guest))["op"] == "welcome"
        await say(guest, msgspec.msgpack.encode(publish(1)))
        assert (await hear(guest))["stored"] == 1
    wrong = [("Authorization", "Bearer nonsense")]
    async with door.guest(None, extra_headers=wrong) as guest:
        assert (await hear(guest))["code"] == "unauthenticated"
        assert await goodbye(guest) == 1008


async def test_who_says_no_hello_in_time_is_sent_away(door: Door) -> None:
    async with door.guest(None) as guest:
        assert (await hear(guest))["code"] == "unauthenticated"
        assert await goodbye(guest) == 1008


async def test_a_socket_ends_within_a_second_of_its_keys_revocation(
    door: Door, tmp_path: Path
) -> None:
    async with door.guest(door.house.key) as guest:
        key_id = next(key.id for key in list_keys(tmp_path / "keys.db") if key.kind == "ingest")
        revoke_key(tmp_path / "keys.db", key_id, datetime.now(UTC))
        with trio.fail_after(1):
            assert (await hear(guest))["code"] == "unauthenticated"
            assert await goodbye(guest) == 1008


async def test_a_socket_ends_with_its_token(door: Door) -> None:
    async with door.guest(door.house.token(seconds=1)) as guest:
        with trio.fail_after(2.5):
            assert (await hear(guest))["code"] == "unauthenticated"
            assert await goodbye(guest) == 1008


async def test_committed_events_come_by_while_publishing(door: Door) -> None:
    async with door.guest() as guest:
        await say(guest, {"op": "subscribe", "id": "s1", "filter": {"event_type": ["page_view"]}})
        assert await hear(guest) == {"op": "subscribed", "id": "s1"}
        door.feed.put.send_nowait(([b'{"event_id":"evt_1"}'], 3))
        said = await hear(guest)
        assert said == {"op": "events", "id": "s1", "events": [{"event_id": "evt_1"}], "missed": 3}
        await say(guest, {"op": "unsubscribe", "id": "s1"})
        assert await hear(guest) == {"op": "unsubscribed", "id": "s1"}


async def test_a_metric_is_watched(door: Door) -> None:
    async with door.guest() as guest:
        await say(guest, {"op": "watch", "id": "m1", "metric": "events"})
        assert await hear(guest) == {
            "op": "metric",
            "id": "m1",
            "as_of": "2025-01-27T00:00:00.000Z",
            "rows": [{"value": 1}],
        }
        await say(guest, {"op": "watch", "id": "m2", "metric": "nonsense"})
        assert (await hear(guest))["code"] == "not_found"


async def test_what_was_read_is_acknowledged_when_the_daemon_stops(door: Door) -> None:
    door.gate = trio.Event()
    async with door.guest() as guest:
        await say(guest, publish(1))
        await trio.sleep(0.1)
        door.stopping.set()
        await trio.sleep(0.1)
        door.gate.set()
        assert (await hear(guest))["stored"] == 1
        assert await goodbye(guest) == 1001


async def test_a_guest_who_leaves_at_once_is_still_heard(door: Door) -> None:
    door.gate = trio.Event()
    async with door.guest() as guest:
        await say(guest, publish(1))
    door.gate.set()
    with trio.fail_after(2):
        while "evt_00000001" not in door.house.kept:
            await trio.sleep(0.01)


async def test_a_message_over_its_limit_closes_with_1009(door: Door) -> None:
    async with door.guest() as guest:
        await say(guest, "x" * 1_100_000)
        assert (await hear(guest))["code"] == "too_large"
        assert await goodbye(guest) == 1009
