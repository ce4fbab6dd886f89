"""What an HTTP application is told, without a switch of tasks a message, as hypercorn's channel has."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import task_group
from hypercorn.trio.task_group import TaskGroup

WHOLE = "mlc.whole"  # among the scope's extensions: a call that tells whether the body is here
Send = Callable[[Any], Awaitable[None]]


class Mailbox:
    """A queue for one reader: waits where it is full or empty, and only there."""

    def __init__(self, letters_max: int) -> None:
        self._letters: deque[Any] = deque()
        self._letters_max = letters_max
        self._arrived = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    async def put(self, letter: Any) -> None:
        """Add a letter, when there is room."""
        while len(self._letters) >= self._letters_max:
            await self._room.park()
        self._letters.append(letter)
        self._arrived.unpark()

    def whole(self) -> bool:
        """Tell whether the end of the request lies in here: then nobody waits for its body."""
        return bool(self._letters) and not self._letters[-1].get("more_body")

    async def take(self) -> Any:
        """Return the oldest letter, when there is one."""
        while not self._letters:
            await self._arrived.park()
        self._room.unpark()
        return self._letters.popleft()


class Tasks(TaskGroup):
    """hypercorn's tasks of one connection, each with a mailbox."""

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Send) -> Send:
        """Start an application on a request; return how to tell it more."""
        nursery = self._nursery
        assert nursery is not None
        box = Mailbox(config.max_app_queue_size)
        scope["extensions"][WHOLE] = box.whole
        nursery.start_soon(
            task_group._handle,  # noqa: SLF001 - see guest.PATCH_POINTS
            app,
            config,
            scope,
            box.take,
            send,
            trio.to_thread.run_sync,
            trio.from_thread.run,
        )
        return box.put
