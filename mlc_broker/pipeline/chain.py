"""The hall: every batch, from whichever door, walks the same chain and gets its receipts here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import trio

from mlc_broker.model.batch import Batch, Outcome, Receipt, tally
from mlc_broker.pipeline import derive
from mlc_broker.pipeline.actor import Actor
from mlc_broker.pipeline.convoy import DOORS, EVENTS_MAX, SMALL_EVENTS_MAX, Convoy
from mlc_broker.pipeline.ports import Keep, Quarantine
from mlc_broker.pipeline.processor import Stage
from mlc_broker.pipeline.work import Work

STOPPING = Receipt(Outcome.RETRY, "stopping", "the daemon is stopping")
BUSY = Receipt(Outcome.RETRY, "busy", "the pipeline did not get to this in time")
Parts = Iterable[tuple[Batch, range]]  # whose events stand where in the batch that walks
NOT_KEPT = Receipt(Outcome.RETRY, "quarantine", "the quarantine cannot be written now")


class Pipeline:
    """The actors in their order, then the store.

    A batch walks in its sender's own task: actors that never wait are simply called one after the
    other, one that waits takes its lock, so one batch at a time is in its hands, in order of
    arrival. Both kinds of waiting are bounded: `waiting_events_max` events in hand, each batch for at
    most `answer_seconds_max`; beyond that the answer is `retry`.
    """

    def __init__(
        self,
        actors: Sequence[Actor],
        *,
        keep: Keep,
        quarantine: Quarantine,
        answer_seconds_max: float = 10.0,
        waiting_events_max: int = 100_000,
        on_derived: Callable[[Batch, list[Receipt]], None] = lambda _batch, _receipts: None,
    ) -> None:
        self.receipts: Counter[tuple[Outcome, str]] = Counter()
        self.received = 0
        self._hall = Hall(actors)
        self._keep, self._quarantine = keep, quarantine
        self._answer_seconds_max = answer_seconds_max
        self._waiting_events_max = waiting_events_max
        self._on_derived = on_derived
        self._waiting = 0
        self._convoy: Convoy | None = None  # the one that can still be boarded
        self._closing = False
        self._empty = trio.Event()

    @property
    def actors(self) -> Sequence[Actor]:
        """The actors now in force, in order."""
        return self._hall.actors

    @property
    def waiting(self) -> int:
        """How many events are in hand now."""
        return self._waiting

    async def submit(self, batch: Batch) -> list[Receipt]:
        """Return one receipt an event, after everything that is `stored` was committed."""
        self.received += len(batch)
        too_many = self._waiting and self._waiting + len(batch) > self._waiting_events_max
        if self._closing or too_many:
            batch.settle_all(STOPPING if self._closing else BUSY)
            return self._answer(batch)
        self._waiting += len(batch)
        try:
            if self._may_share(batch):
                await self._share(batch)
                receipts = batch.answer()
            else:
                work = await self._walk(batch)
                await self._keep.append(batch)
                receipts = batch.answer()
                if work.emitted:
                    await self._derive(work, receipts)
        finally:
            self._waiting -= len(batch)
            self._somebody_left()
        return self._count(receipts)

    def board(self, batch: Batch, told: Callable[[list[Receipt]], None]) -> bool:
        """Put a small batch into a convoy that is about to leave; False: `submit` it.

        It needs no task of its own: who leads the convoy calls `told` with the receipts, which
        must not wait, and not raise.
        """
        convoy, events = self._convoy, len(batch)
        if convoy is None or convoy.events >= EVENTS_MAX or self._closing:
            return False
        if self._waiting + events > self._waiting_events_max or not self._may_share(batch):
            return False

        def arrived() -> None:
            self._waiting -= events
            self._somebody_left()
            told(self._answer(batch))

        self.received += events
        self._waiting += events
        convoy.board(batch, arrived)
        return True

    async def swap(self, actors: Sequence[Actor]) -> None:
        """Put new actors in force between batches; the old ones close when they are empty.

        An actor that does not open is a PluginLoadError, and the old ones stay in force.
        """
        try:
            for actor in actors:
                await actor.open()
        except BaseException:
            for actor in actors:
                await actor.close()
            raise
        old, self._hall = self._hall, Hall(actors)
        await old.aclose()

    async def open(self) -> None:
        """Open the actors, in order; a plugin that does not open now is tried again later."""
        for actor in self._hall.actors:
            await actor.start()

    async def aclose(self) -> None:
        """Take no more; wait for what is inside; close the actors."""
        self._closing = True
        if self._waiting:
            await self._empty.wait()
        await self._hall.aclose()

    def _somebody_left(self) -> None:
        if self._closing and not self._waiting:
            self._empty.set()

    def _may_share(self, batch: Batch) -> bool:
        """Whether the batch may travel with others: small, and nothing in it asks for more care."""
        return (
            len(batch) <= SMALL_EVENTS_MAX
            and not batch.originals
            and batch.origin.transport in DOORS
            and self._hall.ours
        )

    async def _share(self, batch: Batch) -> None:
        """Travel with whoever else is ready now; the first one leads, and leaves nobody behind."""
        convoy = self._convoy
        if convoy is not None and convoy.events < EVENTS_MAX:
            convoy.board(batch)
            await convoy.arrived.wait()
            return
        convoy = self._convoy = Convoy()
        convoy.board(batch)
        with trio.CancelScope(shield=True):  # others wait for this task: it may not leave them
            await trio.lowlevel.checkpoint()
            if self._convoy is convoy:
                self._convoy = None
            common = convoy.depart()
            try:
                await self._walk(common, convoy.parts())
                await self._keep.append(common)
            finally:
                convoy.arrive(common, BUSY)

    async def _walk(self, batch: Batch, parts: Parts = ()) -> Work:
        work = Work(batch)
        with trio.move_on_after(self._answer_seconds_max) as patience:
            await self._hall.walk(work)
        if patience.cancelled_caught:
            work.tidy()
            batch.settle_all(BUSY, work.live)
        if work.quarantined or work.rejected or batch.originals:
            await self._set_aside(work, parts or ((batch, range(len(batch))),))
        return work

    async def _derive(self, work: Work, receipts: list[Receipt]) -> None:
        """Send what processors made of stored events on its own walk, before the answer is given.

        So a sender that has its receipt knows that these are stored too, and one that has none
        sends again, and makes them again.
        """
        batch, positions = derive.derived_batch(work.batch, work.emitted)
        if not len(batch):
            return
        self.received += len(batch)
        await self._walk(batch)
        await self._keep.append(batch)
        made = self._answer(batch)
        self._on_derived(batch, made)
        derive.after_derived(receipts, positions, made)

    async def _set_aside(self, work: Work, parts: Parts) -> None:
        """Hand what was refused to the quarantine: what broke a processor must be kept."""
        for batch, places in parts:
            quarantined = [one for one in work.quarantined if one[0] in places]
            refused = [one for one in work.rejected if one[0] in places] + quarantined
            if refused or batch.originals:
                pairs = [(event, receipt) for _, event, receipt in refused]
                kept = await self._quarantine.keep(batch, pairs)
                for position, _, receipt in quarantined:
                    work.batch.settle(position, receipt if kept else NOT_KEPT)

    def _answer(self, batch: Batch) -> list[Receipt]:
        return self._count(batch.answer())

    def _count(self, receipts: list[Receipt]) -> list[Receipt]:
        for what, events in tally(receipts).items():
            self.receipts[what] += events
        return receipts


class Hall:
    """The actors of one configuration, and how many batches are among them."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        self.actors = tuple(actors)
        self.ours = all(actor.stage != Stage.EXTEND for actor in actors)
        self._inside = 0
        self._left = trio.Event()

    async def walk(self, work: Work) -> None:
        """Lead the work past every actor."""
        self._inside += 1
        try:
            for actor in self.actors:
                await actor.run(work)
        finally:
            self._inside -= 1
            if not self._inside:
                self._left.set()

    async def aclose(self) -> None:
        """Wait until nobody is among them, then close the actors in order."""
        if self._inside:
            self._left = trio.Event()
            await self._left.wait()
        for actor in self.actors:
            await actor.close()
