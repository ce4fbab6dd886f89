"""The roof over counting: metrics and their cells, joined to the store and to their pages."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog
import trio
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from mlc_broker import wiring
from mlc_broker.config import Config
from mlc_broker.edge.house import House
from mlc_broker.edge.http.app import Wing
from mlc_broker.edge.http.metrics import routes
from mlc_broker.edge.routes import wing
from mlc_broker.model.batch import Tally
from mlc_broker.model.catalog import Catalog
from mlc_broker.model.errors import ConfigError
from mlc_broker.model.metric import Metric, Metrics, check_made, load_metrics
from mlc_broker.model.metrics import STANDARD
from mlc_broker.model.principal import EVERYTHING
from mlc_broker.pipeline.plugin_files import find_metrics
from mlc_broker.query.metrics import MetricBook
from mlc_broker.query.pseudonyms import Pseudonyms
from mlc_broker.query.watch import Watching
from mlc_broker.runtime.clock import Clock
from mlc_broker.runtime.telemetry import Telemetry
from mlc_broker.store.audit import AuditLog
from mlc_broker.store.rollups import Rollups
from mlc_broker.store.rollups_recount import Recount
from mlc_broker.store.roster import Roster
from mlc_broker.store.select import Selection
from mlc_broker.store.store import Store
from mlc_broker.store.view import FileView

log = structlog.get_logger("counting")
ROLLUPS = "rollups.db"
_UNCOUNTED = (
    "events stored before it was declared are not in it: mlc-broker verify --metrics --rebuild"
)
FOLDER = "metrics"  # beside the configuration: an organization's own declarations


class Counting:
    """What counts. Open it after the store, the roster and the access log; close it before them."""

    def __init__(
        self,
        config: Config,
        store: Store,
        roster: Roster,
        catalog: Callable[[], Catalog],
        clock: Clock,
        *,
        telemetry: Telemetry,
        audit: AuditLog | None,
        steps: Callable[[], Iterable[Any]],
    ) -> None:
        """Declare the metrics; raises ConfigError that names the file and the field."""
        self.metrics = declared(config)
        self._telemetry, self._catalog, self._store = telemetry, catalog, store
        self.rollups = Rollups(
            wiring.data_file(config, ROLLUPS),
            store,
            self.metrics,
            categories=wiring.category_of(catalog),
            zone_of=lambda organization_id: zone_of(roster, organization_id),
            clock=clock,
            hidden=lambda: store.files.hidden,
            held=lambda: store.files.held,
            trusts_clock=store.trusts_clock,
            clerk_events_per_second=clerk_rate(config),
        )
        key = wiring.secret_of(config, config.privacy.pseudonym_key_file)
        self.book = MetricBook(
            self.metrics,
            self.rollups,
            roster,
            clock=clock,
            categories={name: kind.category for name, kind in catalog().types.items()},
            pseudonym=Pseudonyms(key).of,
            access_log=audit,
            minimum_group=config.privacy.minimum_group,
        )
        self.watching = Watching(self.book, self.rollups, clock=clock)
        self.recounting = Recount()  # how far `verify` has come
        telemetry.registry.register(_Steps(steps, self.rollups))
        telemetry.watch_queue("rollups", lambda: float(self.rollups.waiting))

    async def open(self) -> None:
        """Count what was committed since the last time. Raises StoreError."""
        await self.rollups.open()
        kinds = [
            (name, kind.category, getattr(kind, "group", "") == "Errors")
            for name, kind in self._catalog().types.items()
        ]
        await trio.to_thread.run_sync(self.rollups.note_kinds, kinds)
        self._store.writer.on_written = self._written
        self._store.keep_from = self.rollups.keep_from
        self._tell_uncounted()

    async def redeclare(self, metrics: Metrics) -> None:
        """Count and answer by these declarations from now on."""
        await self.rollups.redeclare(metrics)
        self.metrics = self.book.metrics = metrics
        self._tell_uncounted()

    @property
    def troubles(self) -> list[str]:
        """Which metrics do not count what was stored before them, for `/healthz`."""
        return [f"metric {name}: {_UNCOUNTED}" for name in self.rollups.uncounted]

    def _tell_uncounted(self) -> None:
        for trouble in self.troubles:
            log.warning("a metric is not whole", trouble=trouble)

    def _written(self, events: int, seconds: float) -> None:
        self._telemetry.commit_events.observe(events)
        self._telemetry.commit_seconds.observe(seconds)

    def settled(self, organization_id: str | None, counts: Tally) -> None:
        """Count what became of what somebody of an organization sent."""
        self.rollups.note_receipts(
            organization_id,
            [(outcome.value, reason, n) for (outcome, reason), n in counts.items()],
        )

    def wings(self, house: House) -> list[Wing]:
        """Return the pages."""
        pages = routes(self.book, self._telemetry.text)
        return [(wing("metrics", pages, house), pages)]

    def handlers(self) -> dict[str, Any]:
        """Return what `mlc-broker verify --metrics` asks of a running daemon."""

        async def check(args: dict[str, Any]) -> dict[str, Any]:
            return await self.verify(rebuild=bool(args.get("rebuild")))

        async def progress(_: dict[str, Any]) -> dict[str, Any]:
            return msgspec.structs.asdict(self.recounting)

        return {"metrics.check": check, "metrics.progress": progress}

    async def verify(self, *, rebuild: bool = False) -> dict[str, Any]:
        """Count all stored events anew; compare with the cells, or replace them."""

        def progress(so_far: Recount) -> None:
            self.recounting = msgspec.structs.replace(so_far, differences=[])

        def views() -> tuple[list[FileView], Selection]:
            wanted = self._store.select(EVERYTHING)
            return self._store.views(wanted), wanted

        work = self.rollups.rebuild if rebuild else self.rollups.check
        return msgspec.structs.asdict(await work(views, progress))

    def expire(self, now: datetime) -> int:
        """Remove what has expired from every metric; return how many cells. From a thread of trio's."""
        minute = int(now.timestamp() // 60)
        gone: int = trio.from_thread.run(self.rollups.expire, minute)
        return gone

    def forget_person(self, organization_id: str, user_id: str) -> int:
        """Take a person out of every metric; from a thread of trio's."""
        trio.from_thread.run(self.rollups.forget_person, organization_id, user_id)
        return 0


def declared(config: Config) -> Metrics:
    """Return the standard metrics, those of the configuration's folder, and those of plugins.

    Raises ConfigError that names the file and the field.
    """
    folder, metrics = config.file.parent / FOLDER, STANDARD
    try:
        if folder.is_dir():
            metrics = metrics.with_metrics(load_metrics(folder))
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from error
    for metric, source in find_metrics(config.plugins_path, Metric):
        try:
            check_made(metric)
            metrics = metrics.with_metrics([metric])
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from error
    return metrics


def clerk_rate(config: Config) -> float:
    """Return from how many events a second on they are counted in a process of its own."""
    asked = config.storage.counting_process_events_per_second
    return asked if asked and len(os.sched_getaffinity(0)) > 1 else math.inf


def zone_of(roster: Roster, organization_id: str) -> str:
    """Return an organization's time zone, UTC where it has none that is known."""
    known = roster.organization(organization_id)
    name = known.time_zone if known is not None else "UTC"
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError):
        return "UTC"


class _Steps(Collector):
    """Each processor's work, asked for when somebody reads the figures."""

    def __init__(self, steps: Callable[[], Iterable[Any]], rollups: Rollups) -> None:
        self._steps, self._rollups = steps, rollups

    def collect(self) -> Iterable[Family]:
        """Return seconds, events and failures by processor."""
        seconds = CounterMetricFamily("mlc_step_seconds", "Time in a processor", labels=["step"])
        events = CounterMetricFamily("mlc_step_events", "Events it saw", labels=["step"])
        failures = CounterMetricFamily("mlc_step_failures", "Events it broke on", labels=["step"])
        for step in self._steps():
            seconds.add_metric([step.name], step.health.seconds)
            events.add_metric([step.name], step.health.events)
            failures.add_metric([step.name], step.health.failures)
        counted = CounterMetricFamily("mlc_rollups_events", "Events counted for the metrics")
        counted.add_metric([], self._rollups.events)
        counting = CounterMetricFamily("mlc_rollups_seconds", "CPU time of counting them")
        counting.add_metric([], self._rollups.seconds)
        return [seconds, events, failures, counted, counting]
