"""A conversation without a socket: what boards, who is answered when, and what a goodbye waits for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
import trio.testing

from mlc_broker.edge.admission import Admission
from mlc_broker.edge.conversation import Conversation, Talk
from mlc_broker.edge.websocket import Closed
from mlc_broker.model.batch import STORED, Batch, Receipt
from tests.unit.edge.test_session import LIMITS, Door, StillClock, category_of, event, publish

Told = Callable[[list[Receipt]], None]


class Guest:
    """Says what it is told to say, and writes down what it hears."""

    authorization: str | None = "Bearer key"
    address = ""

    def __init__(self) -> None:
        self.stopping = trio.Event()
        self.say, self._said = trio.open_memory_channel[str](10)
        self.heard: list[dict[str, Any]] = []
        self.closed: list[int] = []
        self.reads = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        yield

    async def receive(self) -> str | bytes:
        try:
            return await self._said.receive()
        except trio.EndOfChannel:
            raise Closed(1000) from None

    async def send(self, data: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        if not self.reads:
            raise Closed(1006)
        self.heard.append(json.loads(data))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed.append(code)


class Convoy:
    """Takes every batch along, and arrives when the test says."""

    def __init__(self) -> None:
        self.aboard: list[Told] = []

    def board(self, batch: Batch, told: Told) -> bool:
        self.aboard.append(told)
        return True

    async def submit(self, batch: Batch) -> list[Receipt]:
        raise AssertionError("everything boards here")


def conversation(guest: Guest, convoy: Convoy) -> Conversation:
    clock = StillClock()
    talk = Talk(
        submit=convoy.submit,
        board=convoy.board,
        credentials=Door(),
        admission=Admission(category_of, clock),
        clock=clock,
        server="mlc-broker/0",
        limits=LIMITS,
    )
    return Conversation(talk, guest)


async def test_what_arrives_out_of_turn_is_answered_in_turn() -> None:
    guest, convoy = Guest(), Convoy()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conversation(guest, convoy).run)
        for number in range(4):
            await guest.say.send(publish(number, event(number)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(convoy.aboard) == LIMITS.in_flight_max == 3, "no more is read"
        for told in reversed(convoy.aboard.copy()):
            assert not guest.heard
            told([STORED])
            await trio.testing.wait_all_tasks_blocked()
        assert [each["id"] for each in guest.heard] == [0, 1, 2]
        convoy.aboard[3]([STORED])
        await guest.say.aclose()
    assert [each["id"] for each in guest.heard] == [0, 1, 2, 3]


async def test_what_arrived_is_answered_before_the_goodbye() -> None:
    guest, convoy = Guest(), Convoy()
    talking = conversation(guest, convoy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talking.run)
        await guest.say.send(publish(1, event(1)))
        await trio.testing.wait_all_tasks_blocked()
        convoy.aboard[0]([STORED])
        door = talking._talk.credentials
        assert isinstance(door, Door)
        door.revoked.add("k1")
        talking.check()  # before the writer has had its turn
    assert [each["op"] for each in guest.heard] == ["ack", "error"]
    assert guest.closed == [1008]


async def test_a_guest_who_has_left_is_waited_for_until_all_has_arrived() -> None:
    guest, convoy = Guest(), Convoy()
    guest.reads = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conversation(guest, convoy).run)
        for number in range(2):
            await guest.say.send(publish(number, event(number)))
        await guest.say.aclose()
        await trio.testing.wait_all_tasks_blocked()
        for told in convoy.aboard:
            assert len(nursery.child_tasks) == 1, "it is not over"
            told([STORED])
            await trio.testing.wait_all_tasks_blocked()
    assert not guest.heard
