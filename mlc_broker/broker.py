"""The composition root: Config in, running house out. What starts first stops last."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import structlog
import trio

from mlc_broker import wiring
from mlc_broker._version import __version__
from mlc_broker.caring import Caring, Removed
from mlc_broker.config import Config, load
from mlc_broker.counting import Counting, declared
from mlc_broker.doors import open_doors
from mlc_broker.edge import masking, sockets
from mlc_broker.edge.admission import Admission
from mlc_broker.edge.conversation import Conversations, Talk
from mlc_broker.edge.house import House
from mlc_broker.edge.http.app import Wing, make_app
from mlc_broker.edge.http.people import people_wing
from mlc_broker.edge.http.quarantine import quarantine_wing
from mlc_broker.edge.keys import KeyBook, load_pepper
from mlc_broker.edge.server import ASGIApp, quiet_libraries
from mlc_broker.extending import Extending
from mlc_broker.model.batch import Batch, Receipt
from mlc_broker.model.errors import BrokerError
from mlc_broker.pipeline.chain import Pipeline
from mlc_broker.pipeline.derive import emit
from mlc_broker.pipeline.processor import Tools
from mlc_broker.runtime.clock import Clock, SystemClock
from mlc_broker.runtime.supervisor import Backoff, Health, supervise
from mlc_broker.runtime.systemd import Notifier, feed_watchdog, watchdog_seconds
from mlc_broker.runtime.telemetry import Telemetry
from mlc_broker.showing import Fan, Showing
from mlc_broker.store.ids import Hasher
from mlc_broker.store.receipts import ReceiptBook
from mlc_broker.store.store import Store
from mlc_broker.taking import Taking
from mlc_broker.telling import Telling, WhatBecameOf
from mlc_broker.ward import Ward

if TYPE_CHECKING:
    from mlc_broker.dev import Guests

log = structlog.get_logger("broker")
HOUSEKEEPING_SECONDS = 1.0


class Broker:
    """One daemon: build it from a Config, `run` it once."""

    def __init__(
        self, config: Config, *, clock: Clock | None = None, dev: Guests | None = None
    ) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self.health = Health()
        self.telemetry = Telemetry()
        self.stopping = trio.Event()
        self._dev = dev
        self._random = Random()  # noqa: S311 (jitter of restarts)
        self._notifier = Notifier()
        self._settled = trio.Event()  # the store has committed everything it took
        self._reloading = trio.Lock()
        self.catalog = wiring.catalog_of(config)
        self.steps = wiring.steps_of(config)
        wiring.check_sinks(config)

    async def run(self, announce: Callable[[str], None] = lambda _: None) -> None:
        """Open the house, serve until told to stop, close it in order."""
        async with AsyncExitStack() as stack:
            await self._open(stack)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._signals)
                await self._start(nursery)
                async with trio.open_nursery() as doors:
                    names = await open_doors(
                        doors,
                        self.config,
                        converse=self.conversations.converse,
                        application=self._application,
                        stopping=self.stopping,
                    )
                    stack.enter_context(self.showing.endpoints(*names))
                    announce(f"ready ws={names[0]}/v1/stream http={names[1]}")
                    self._notifier.ready()
                    await self.stopping.wait()
                    self._notifier.stopping()
                await self._close()
                nursery.cancel_scope.cancel()
        self.extending.leave()

    # --- opening ---

    async def _open(self, stack: AsyncExitStack) -> None:
        """Open what keeps things: the store first, since it takes the directory."""
        config, clock = self.config, self.clock
        sockets.raise_open_files_limit()
        masking.use_fast_masker()
        quiet_libraries()
        self.store = await Store.open(
            config.data_path,
            categories=wiring.category_of(lambda: self.catalog),
            limits=wiring.store_limits(config),
            clock=clock,
            durability=config.storage.durability,
        )
        stack.push_async_callback(self.store.close)
        self.extending = Extending(config, self._random)
        stack.callback(self.extending.close)
        for trouble in self.store.files.troubles:
            log.error("store", trouble=trouble)
        await self._open_people(stack)
        await self._open_telling(stack)
        self._build()
        await self.pipeline.open()

    async def _open_people(self, stack: AsyncExitStack) -> None:
        """Open who people are, what was refused of them, and which credentials count."""
        config, clock = self.config, self.clock
        self.roster = wiring.roster_of(config, clock)
        await trio.to_thread.run_sync(self.roster.open)
        stack.callback(self.roster.close)
        self.caring = Caring(config, self.store, self.roster, clock)
        stack.callback(self.caring.close)
        self.quarantine = wiring.quarantine_of(
            config, clock, lambda name: self.catalog.resolve(name) is not None
        )
        stack.callback(self.quarantine.file.close)
        self.hasher = Hasher(self.store.files.manifest.secret("ids"))
        self.receipts = ReceiptBook(
            wiring.data_file(config, "receipts.db"), clock=clock, hash_id=self.hasher.hash
        )
        stack.callback(self.receipts.close)
        self.keys = KeyBook(
            config.keys_path, load_pepper(config.secret_path(config.auth.pepper_file))
        )
        stack.callback(self.keys.close)
        self.credentials = wiring.credentials_of(config, self.keys, self.roster, clock)
        if self._dev is not None:
            self._dev.enroll(self.roster)

    async def _open_telling(self, stack: AsyncExitStack) -> None:
        """Open what answers readers: queries and their log, live streams, metrics."""
        config, clock = self.config, self.clock
        self.telling = Telling(config, self.store, self.roster, clock)
        stack.callback(self.telling.close)
        self.caring.who_read = self.telling.who_read
        self.showing = Showing(
            config,
            self.store,
            self.roster,
            self.telemetry,
            clock,
            steps=lambda: self.pipeline.actors,
            dev=self._dev,
        )
        self.showing.live.access_log = self.telling.audit
        await self._open_counting(stack)

    async def _open_counting(self, stack: AsyncExitStack) -> None:
        """Count what was committed since the last time, and from now on."""
        config, clock = self.config, self.clock
        self.counting = Counting(
            config,
            self.store,
            self.roster,
            lambda: self.catalog,
            clock,
            telemetry=self.telemetry,
            audit=self.telling.audit,
            steps=lambda: self.pipeline.actors,
        )
        await self.counting.open()
        stack.push_async_callback(self.counting.rollups.close)
        self.showing.live.watcher = self.counting.watching
        self.caring.add_place("metrics", self.counting)
        # Whoever wants to hear of commits stands in this list.
        self.store.on_commit = Fan(
            [
                self.counting.rollups.note,
                self.showing.flow.committed,
                self.showing.live.committed,
            ]
        )

    def _build(self) -> None:
        """Join pipeline and edge."""
        limits = self.config.limits
        self.taking = Taking(self.telemetry, self.receipts, self.counting)
        self.tools = Tools(
            clock=self.clock,
            random=self._random,
            roster=self.roster,
            catalog=self.catalog,
            emit=emit,
        )
        self.pipeline = Pipeline(
            self.extending.actors(self.steps, self.tools),
            keep=self.store,
            quarantine=self.quarantine,
            answer_seconds_max=limits.answer_seconds_max,
            waiting_events_max=limits.queue_events_max,
            on_derived=self.taking.count,
        )
        self.taking.pipeline = self.pipeline
        self.telemetry.registry.register(Removed(lambda: self.pipeline.actors))
        self.extending.answer(lambda: self.pipeline.actors, lambda: self.tools, self.reload)
        self.extending.control.add(self.counting.handlers())
        self.admission = Admission(wiring.category_of(lambda: self.catalog), self.clock)
        self.ward = Ward(self.config, self.quarantine, self.submit, self.admission)
        self.caring.add_place("quarantine", self.quarantine.file)
        self.quarantine.file.held = lambda: self.store.files.held
        self.extending.control.add(self.caring.verbs() | self.ward.verbs())
        self.limiter = wiring.limiter_of(self.config)
        self.conversations = Conversations(
            Talk(
                submit=self.taking.submit,
                board=self.taking.board,
                credentials=self.credentials,
                admission=self.admission,
                clock=self.clock,
                server=wiring.server_name(),
                limits=wiring.wire_limits(self.config),
                limiter=self.limiter,
                live=self.showing.live,
                hello_seconds_max=self.config.websocket.hello_seconds_max,
                subscriptions_max=self.config.websocket.subscriptions_max,
            )
        )
        self.telemetry.watch_queue("pipeline", lambda: float(self.pipeline.waiting))
        guests = self.telemetry.connections.labels("websocket")
        guests.set_function(lambda: len(self.conversations))

    async def _start(self, nursery: trio.Nursery) -> None:
        """Start what runs beside the doors, each under supervision."""
        tasks: dict[str, Callable[[], Any]] = {
            "store.writer": self._keep_store,
            "store.upkeep": self.store.run_upkeep,
            "housekeeping": self._keep_house,
            "erasure": self.caring.erasure.run,
            "purge": self.caring.purge.run,
            "conversations": self.conversations.run,
            "live": self.showing.live.run,
            "rollups": self.counting.rollups.run,
            "telemetry": self.telemetry.probe_loop,
            "control": self.extending.control.run,
        }
        seconds = watchdog_seconds()
        if seconds is not None:
            tasks["watchdog"] = partial(feed_watchdog, self._notifier, seconds / 3, self._alive)
        for name, task in tasks.items():
            nursery.start_soon(supervise, name, task, Backoff(self._random), self.health)

    def _house(self) -> House:
        return House(
            submit=self.taking.submit,
            credentials=self.credentials,
            admission=self.admission,
            clock=self.clock,
            schemas=wiring.Schemas(lambda: self.catalog),
            receipts=WhatBecameOf(self.telling.queries, self.roster, self.receipts),
            hierarchy=self.roster,
            readiness=self.not_ready,
            health=self.wellbeing,
            version=__version__,
            limits=wiring.wire_limits(self.config),
            limiter=self.limiter,
            origins=self.config.http.origins or ("*",),
            requests_max=self.config.http.requests_max,
            body_seconds_max=self.config.http.body_seconds_max,
        )

    def _application(self, stream_url: str) -> ASGIApp:
        """Return all of HTTP: the pages of every room, each with its routes."""
        house = self._house()
        wings: list[Wing] = [
            *self.showing.wings(house, self.stopping, stream_url),
            people_wing(house, self.caring.desk()),
            quarantine_wing(house, self.ward),
            *self.telling.wings(house, self.catalog),
            *self.counting.wings(house),
        ]
        return make_app(house, wings)

    # --- running ---

    async def submit(self, batch: Batch) -> list[Receipt]:
        """Take a batch from any door to its receipts; count it."""
        return await self.taking.submit(batch)

    def not_ready(self) -> list[str]:
        """Return why events should not be sent now; empty: ready."""
        reasons = list(self.health.troubles)
        reasons.extend(self.store.not_ready())
        if self.stopping.is_set():
            reasons.append("the daemon is stopping")
        reasons.extend(
            f"{actor.name} is being restarted: {actor.health.detail}"
            for actor in self.pipeline.actors
            if actor.health.state == "broken" and actor.on_failure == "hold"
        )
        return reasons

    def wellbeing(self) -> dict[str, Any]:
        """Return what `/healthz` tells: `degraded` when somebody should look, and at what."""
        health, troubles = self.extending.health(), [*self.not_ready(), *self.store.troubles]
        troubles += [*self.telling.troubles, *self.counting.troubles]
        return health | ({"status": "degraded", "troubles": troubles} if troubles else {})

    async def reload(self) -> str:
        """Read the configuration anew; a bad one is told and the old one stays in force."""
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> str:
        self._notifier.reloading()
        try:
            config = load(self.config.file)
            catalog = wiring.catalog_of(config)
            steps = wiring.steps_of(config)
            keys, metrics = wiring.verification_keys(config), declared(config)
            tools = Tools(
                clock=self.clock,
                random=self._random,
                roster=self.roster,
                catalog=catalog,
                emit=emit,
            )
            await self.pipeline.swap(self.extending.actors(steps, tools))
            await self.counting.redeclare(metrics)
        except BrokerError as error:
            log.warning("reload failed; the old configuration stays in force", error=str(error))
            return str(error)
        else:
            self.catalog, self.steps, self.tools = catalog, steps, tools
            self.credentials.use_keys(keys)
            log.info("reloaded", file=str(config.file))
            return ""
        finally:
            self._notifier.ready()

    async def _keep_store(self) -> None:
        """Run the writer; when it ends because we stop, everything it took is committed."""
        await self.store.run()
        if self.stopping.is_set():
            self._settled.set()
            await trio.sleep_forever()

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(HOUSEKEEPING_SECONDS)
            await self.quarantine.flush()
            await self.receipts.flush()
            await trio.to_thread.run_sync(self.roster.refresh_if_changed)

    async def _alive(self) -> bool:
        """The watchdog's probe crosses the loop, the pipeline and the writer's thread."""
        return bool(await trio.to_thread.run_sync(self.store.files.directory.is_dir))

    async def _signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async with trio.open_nursery() as nursery:
                async for number in signals:
                    if number == signal.SIGHUP:
                        nursery.start_soon(self.reload)
                    else:
                        self.stopping.set()

    # --- closing ---

    async def _close(self) -> None:
        """The doors are shut: drain the pipeline, commit, write what waits."""
        with trio.move_on_after(self.config.limits.stop_seconds_max):
            await self.pipeline.aclose()
        self.store.stop()
        await self._settled.wait()
        await self.quarantine.flush()
        await self.receipts.flush()
