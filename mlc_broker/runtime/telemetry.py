"""The broker's own figures, for Prometheus: the conservation law, queues, latencies, loop lag.

received = stored + duplicate + dropped + rejected + quarantined + retry: `balance` says by how
much it is off, which is what is in hand just now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized

import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

OUTCOMES = ("stored", "duplicate", "dropped", "rejected", "quarantined", "retry")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH_EVENTS = (1, 5, 10, 25, 50, 100, 250, 500, 1000)
_LAG_PROBE_SECONDS = 0.5


class Telemetry:
    """All figures of one running house, in a registry of its own: tests run several houses."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._received = self._counter("received_events", "Events that were sent to us", "door")
        self._settled = self._counter("settled_events", "Events by what became of them", "outcome")
        self._reasons = self._counter(
            "refused_events", "Events dropped or rejected, by reason", "outcome", "reason"
        )
        self._processors = Counter(
            "mlc_processor_seconds", "Time in a processor", ["processor"], registry=self.registry
        )
        self._processor_events = self._counter(
            "processor_events", "Events that a processor saw", "processor"
        )
        self._crashes = self._counter("restarts", "Supervised tasks started again", "task")
        self.connections = Gauge(
            "mlc_connections", "Open connections", ["door"], registry=self.registry
        )
        self.ack_seconds = self._histogram("ack_seconds", "From receipt to answer")
        self.commit_seconds = self._histogram("commit_seconds", "One commit, fsync included")
        self.commit_events = self._histogram(
            "commit_events", "Events of one commit", buckets=_BATCH_EVENTS
        )
        self.loop_lag_seconds = self._histogram("loop_lag_seconds", "How late the event loop is")
        self._of_door: dict[str, Counter] = {}  # `labels` looks them up under a lock
        self._of_outcome: dict[str, Counter] = {}
        self.totals = dict.fromkeys(("received", *OUTCOMES), 0)
        self._queues = _Queues()
        self.registry.register(self._queues)

    def received(self, events: int, *, door: str) -> None:
        """Count events that came in by `door`: websocket, http, derived."""
        self.totals["received"] += events
        counter = self._of_door.get(door)
        if counter is None:
            counter = self._of_door[door] = self._received.labels(door)
        counter.inc(events)

    def settled(self, outcome: str, events: int = 1, *, reason: str = "") -> None:
        """Count receipts. A reason is one of a closed list or a plugin's own word, never data."""
        self.totals[outcome] += events
        counter = self._of_outcome.get(outcome)
        if counter is None:
            counter = self._of_outcome[outcome] = self._settled.labels(outcome)
        counter.inc(events)
        if reason:
            self._reasons.labels(outcome, reason).inc(events)

    def processed(self, processor: str, events: int, seconds: float) -> None:
        """Count a processor's work."""
        self._processor_events.labels(processor).inc(events)
        self._processors.labels(processor).inc(seconds)

    def restarted(self, task: str) -> None:
        """Count a crash of a supervised task."""
        self._crashes.labels(task).inc()

    def watch_queue(self, name: str, depth: Callable[[], float] | Sized) -> None:
        """Show a queue's depth, asked for when somebody reads the figures."""
        self._queues.depths[name] = depth if callable(depth) else depth.__len__

    @property
    def balance(self) -> int:
        """Events received and not settled: what is in hand. Zero when idle, never below."""
        return self.totals["received"] - sum(self.totals[outcome] for outcome in OUTCOMES)

    def text(self) -> bytes:
        """Return the figures as `GET /metrics` shows them."""
        return generate_latest(self.registry)

    async def probe_loop(self) -> None:
        """Measure for ever how late the event loop wakes us."""
        while True:
            before = trio.current_time()
            await trio.sleep(_LAG_PROBE_SECONDS)
            late = trio.current_time() - before - _LAG_PROBE_SECONDS
            self.loop_lag_seconds.observe(max(0.0, late))

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"mlc_{name}", words, labels, registry=self.registry)

    def _histogram(
        self, name: str, words: str, *, buckets: tuple[float, ...] = _LATENCY_SECONDS
    ) -> Histogram:
        return Histogram(f"mlc_{name}", words, buckets=buckets, registry=self.registry)


class _Queues(Collector):
    """Depths are asked for at reading: no queue has to report."""

    def __init__(self) -> None:
        self.depths: dict[str, Callable[[], float]] = {}

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("mlc_queue_depth", "Waiting in a queue", labels=["queue"])
        for name, depth in sorted(self.depths.items()):
            family.add_metric([name], float(depth()))
        yield family
