"""How the daemon is doing, for `top` and the console: counters since its start, and gauges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any, Protocol

import trio
from prometheus_client.core import Metric

from mlc_broker.model.event import rfc3339
from mlc_broker.query.live_flow import Flow
from mlc_broker.runtime.clock import Clock
from mlc_broker.runtime.telemetry import OUTCOMES, Telemetry

_HISTOGRAMS = ("ack_seconds", "commit_seconds", "loop_lag_seconds")


class State(Protocol):
    """How one processor is doing."""

    state: str
    detail: str
    events: int
    seconds: float
    failures: int
    restarts: int


class Step(Protocol):
    """A processor of the chain: `pipeline.actor.Actor` fits."""

    name: str

    @property
    def health(self) -> State:
        """How it is doing."""


class Figures:
    """Gathers what flows. Everything that counts counts since the start of the daemon."""

    def __init__(
        self,
        telemetry: Telemetry,
        flow: Flow,
        *,
        steps: Callable[[], Iterable[Step]],
        subscribers: Sized,
        clock: Clock,
    ) -> None:
        """`steps` are the processors in force now."""
        self._telemetry = telemetry
        self._flow = flow
        self._steps = steps
        self._subscribers = subscribers
        self._clock = clock
        self._began = trio.current_time()

    def figures(self) -> dict[str, Any]:
        """Return what flows: see docs/protocol.md, `GET /v1/flow`."""
        families = {family.name: family for family in self._telemetry.registry.collect()}
        totals = self._telemetry.totals
        return {
            "at": rfc3339(self._clock.now()),
            "up_seconds": round(trio.current_time() - self._began, 3),
            "received": totals["received"],
            "in_hand": self._telemetry.balance,
            "outcomes": {outcome: totals[outcome] for outcome in OUTCOMES},
            "reasons": _by_reason(families.get("mlc_refused_events")),
            "types": self._flow.types,
            "organizations": self._flow.organizations,
            "processors": [_processor(step) for step in self._steps()],
            "queues": _by_label(families.get("mlc_queue_depth"), "queue"),
            "connections": _by_label(families.get("mlc_connections"), "door"),
            "subscribers": len(self._subscribers),
            "latencies": {name: _histogram(families.get(f"mlc_{name}")) for name in _HISTOGRAMS},
        }


def quantile(buckets: list[tuple[float, float]], part: float) -> float | None:
    """Return the value below which that part lies; buckets are (upper edge, counted up to it)."""
    count = buckets[-1][1] if buckets else 0
    if not count:
        return None
    wanted, below, counted = part * count, 0.0, 0.0
    for edge, upto in buckets:
        if upto >= wanted:
            if edge == float("inf"):
                return below
            return below + (edge - below) * (wanted - counted) / max(upto - counted, 1e-9)
        below, counted = edge, upto
    return below


def _processor(step: Step) -> dict[str, Any]:
    health = step.health
    return {
        "name": step.name,
        "state": health.state,
        "detail": health.detail,
        "events": health.events,
        "seconds": round(health.seconds, 6),
        "failures": health.failures,
        "restarts": health.restarts,
    }


def _by_label(family: Metric | None, label: str) -> dict[str, float]:
    return {sample.labels[label]: sample.value for sample in family.samples} if family else {}


def _by_reason(family: Metric | None) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for sample in family.samples if family else ():
        if sample.name.endswith("_total"):
            found.setdefault(sample.labels["outcome"], {})[sample.labels["reason"]] = sample.value
    return found


def _histogram(family: Metric | None) -> dict[str, Any]:
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in (family.samples if family else ())
        if sample.name.endswith("_bucket")
    ]
    return {
        "count": buckets[-1][1] if buckets else 0,
        "p50": quantile(buckets, 0.5),
        "p99": quantile(buckets, 0.99),
        # `null` is the last edge: everything above. So a reader can make quantiles of an interval.
        "buckets": [(None if edge == float("inf") else edge, upto) for edge, upto in buckets],
    }
