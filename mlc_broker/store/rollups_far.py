"""The daemon's end of counting in a process of its own (rollups_clerk.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from mlc_broker.model.metric import Metric
from mlc_broker.runtime.child import Child, ChildEnded
from mlc_broker.store.rollups_clerk import (
    Ask,
    Begin,
    Bye,
    Count,
    Counted,
    Failed,
    Hello,
    Packs,
    ToClerk,
    ToDaemon,
    Told,
    encode,
    to_daemon,
)
from mlc_broker.store.rollups_counter import Receipts
from mlc_broker.store.rollups_fold import Hidden
from mlc_broker.store.view import HotView

_MODULE = "mlc_broker.store.rollups_clerk"
START_SECONDS_MAX = 20.0
COUNT_SECONDS_MAX = 60.0  # one request
_END_SECONDS_MAX = 5.0


Answer = TypeVar("Answer", Hello, Counted)


class ClerkFailed(Exception):
    """The clerk does not count (any more); what it did not write down is counted by others."""


class Clerk:
    """A process that counts. `hire` it, let it `begin`, and `dismiss` it in any case."""

    def __init__(
        self,
        child: Child,
        *,
        categories: Callable[[str], str | None],
        zone_of: Callable[[str], str],
    ) -> None:
        self._child = child
        self._categories = categories
        self._zone_of = zone_of

    @classmethod
    async def hire(
        cls, *, categories: Callable[[str], str | None], zone_of: Callable[[str], str]
    ) -> Clerk:
        """Start the process; nothing is handed over yet. Raises ClerkFailed."""
        try:
            child = await Child.start(_MODULE)
        except OSError as error:
            raise ClerkFailed(f"its process does not start: {error}") from error
        clerk, ready = cls(child, categories=categories, zone_of=zone_of), False
        try:
            with trio.fail_after(START_SECONDS_MAX):
                await clerk._expect(Hello)
            ready = True
        except trio.TooSlowError as error:
            raise ClerkFailed("its process does not start in time") from error
        finally:
            if not ready:
                await child.kill()
        return clerk

    async def begin(self, path: Path, samplers: Sequence[Metric]) -> int:
        """Hand the file over, which must be closed here; return its watermark."""
        return (await self._do(Begin(_absolute(path), list(samplers)))).upto

    async def count(
        self, since: int, view: HotView | None, hidden: Hidden, receipts: Receipts
    ) -> Counted:
        """Have these packs counted from a sequence on, and written down."""
        packs = None
        if view is not None:
            packs = Packs(_absolute(view.path), view.entries["key"].tolist())
        told = [(*key, n) for key, n in receipts.items()]
        return await self._do(Count(since, packs, list(hidden), told))

    async def dismiss(self) -> None:
        """Have the file closed and the process ended."""
        with trio.CancelScope(shield=True):
            try:
                with trio.move_on_after(_END_SECONDS_MAX):
                    await self._child.give(encode(Bye()))
                    await self._child.wait()
            except ChildEnded:
                pass  # it has ended already
            finally:
                await self._child.kill()

    async def _do(self, order: ToClerk) -> Counted:
        # Shielded: in the middle of a request, nothing that the clerk says would fit the next one.
        with trio.CancelScope(shield=True), trio.move_on_after(COUNT_SECONDS_MAX):
            try:
                await self._child.give(encode(order))
            except (ChildEnded, ValueError) as error:
                raise ClerkFailed(str(error)) from error
            return await self._expect(Counted)
        raise ClerkFailed(f"it did not answer within {COUNT_SECONDS_MAX:.0f} s")

    async def _expect(self, kind: type[Answer]) -> Answer:
        """Answer what the clerk asks until it says what is waited for."""
        try:
            while True:
                word: ToDaemon = to_daemon.decode(await self._child.take())
                if isinstance(word, kind):
                    return word
                if not isinstance(word, Ask):
                    why = word.why if isinstance(word, Failed) else "it said nonsense"
                    raise ClerkFailed(why)
                known = self._zone_of if word.what == "zone" else self._categories
                await self._child.give(encode(Told(known(word.name))))
        except (ChildEnded, msgspec.MsgspecError) as error:
            raise ClerkFailed(str(error)) from error


def _absolute(path: Path) -> str:
    return str(path.absolute())
