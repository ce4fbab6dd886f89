"""The queue before an HTTP application."""

from __future__ import annotations

import trio
import trio.testing

from mlc_broker.edge.mailbox import Mailbox

PART = {"type": "http.request", "body": b"a", "more_body": True}
END = {"type": "http.request", "body": b"", "more_body": False}


async def test_letters_come_in_order_and_nobody_waits_without_need() -> None:
    box = Mailbox(3)
    with trio.testing.assert_no_checkpoints():
        await box.put(PART)
        assert not box.whole()
        await box.put(END)
        assert box.whole()
        assert [await box.take(), await box.take()] == [PART, END]
    assert not box.whole()


async def test_who_takes_from_an_empty_box_waits() -> None:
    box, taken = Mailbox(3), list[object]()

    async def take() -> None:
        taken.append(await box.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        await box.put(END)
    assert taken == [END]


async def test_a_full_box_takes_no_more_until_there_is_room() -> None:
    box, put = Mailbox(2), list[int]()

    async def fill() -> None:
        for number in range(5):
            await box.put({"body": number})
            put.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill)
        await trio.testing.wait_all_tasks_blocked()
        assert put == [0, 1]
        for number in range(5):
            assert (await box.take())["body"] == number
