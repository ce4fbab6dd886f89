"""The daemon's rooms without its doors, in this process: for measuring and counting one room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from mlc_broker.broker import Broker
from mlc_broker.cli.bench_pages import ORGANIZATION, Page, pages, school_roster
from mlc_broker.config import load
from mlc_broker.edge.codec import WireLimits, read_message
from mlc_broker.edge.messages import Publish
from mlc_broker.model.principal import Principal
from tests.daemon import Daemon

EVENTS = 100  # of one message
LIMITS = WireLimits()


def principal() -> Principal:
    """An ingest key of the school."""
    return Principal(kind="ingest", id="key", organization_id=ORGANIZATION)


@asynccontextmanager
async def indoors(directory: Path) -> AsyncIterator[Broker]:
    """Give a running daemon that nobody can call but us."""
    daemon = Daemon(directory)
    daemon._init()
    daemon.roster(school_roster())
    broker = Broker(load(daemon.config))
    async with AsyncExitStack() as stack:
        await broker._open(stack)
        async with trio.open_nursery() as nursery:
            await broker._start(nursery)
            yield broker
            broker.stopping.set()
            await broker._close()
            nursery.cancel_scope.cancel()


class Texts:
    """Publish messages as the WebSocket door hands them over, each with new ids."""

    def __init__(self, seed: int = 1) -> None:
        self._pages: list[Page] = pages("plain", EVENTS, 32, seed=seed)
        self._at = 0

    def block(self, count: int) -> list[str]:
        """So many messages; made beforehand, so that it costs nothing later."""
        made = []
        for _ in range(count):
            page = self._pages[self._at % len(self._pages)]
            self._at += 1
            page.renew()
            made.append(page.message(0).decode())
        return made


def read(text: str) -> Publish:
    """Decode, as a session does."""
    message = read_message(text, LIMITS)
    assert isinstance(message, Publish)
    return message


async def publish(broker: Broker, text: str) -> int:
    """Decode, admit, lead through the chain, store; return how many events were stored."""
    batch = broker.admission.admit(read(text).submission, principal(), "websocket")
    receipts = await broker.submit(batch)
    return sum(receipt.outcome == "stored" for receipt in receipts)


async def all_of(texts: list[str], work: Callable[[str], object], senders: int = 16) -> None:
    """Work on each text from many senders at once; `work` may be async."""
    left = iter(texts)

    async def sender() -> None:
        for text in left:
            done = work(text)
            if hasattr(done, "__await__"):
                await done

    async with trio.open_nursery() as nursery:
        for _ in range(senders):
            nursery.start_soon(sender)
