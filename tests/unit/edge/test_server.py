"""The fork in front of the HTTP applications."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from mlc_broker.edge.server import Front


async def test_more_requests_than_may_be_in_hand_are_sent_away_in_words() -> None:
    gate = trio.Event()
    told: list[dict[str, Any]] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    front = Front({}, waits, requests_max=1)
    scope = {"type": "http", "method": "GET", "path": "/"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(front, scope, receive, send)
        await trio.testing.wait_all_tasks_blocked()
        await front(scope, receive, send)
        gate.set()
    assert [message.get("status") for message in told] == [503, None]
    assert (b"retry-after", b"1") in told[0]["headers"]
    await front(scope, receive, send)  # there is room again
