"""What the operator sees: a live line, and the table at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from mlc_broker.simulate.ledger import Difference, Ledger

LATENCIES_MAX = 20_000


class Progress:
    """Counts what happens; `line()` says how it goes, `table()` how it went."""

    def __init__(self, ledger: Ledger) -> None:
        self.playing = 0
        self.acknowledged_events = 0
        self._ledger = ledger
        self._latencies: deque[float] = deque(maxlen=LATENCIES_MAX)
        self._began = trio.current_time()
        self._ended: float | None = None
        self._last = (self._began, 0, 0)

    def end(self) -> None:
        """The lesson is over: the comparison's time does not count."""
        self._ended = trio.current_time()

    def acknowledged(self, events: int, seconds: float) -> None:
        """Take note of one ack and the time it took."""
        self.acknowledged_events += events
        self._latencies.append(seconds)

    def line(self) -> str:
        """Return one line about now: rates are those since the last line."""
        now = trio.current_time()
        then, sent, acked = self._last
        self._last = (now, self._ledger.sent, self.acknowledged_events)
        seconds = max(0.001, now - then)
        outcomes = _by_outcome(self._ledger)
        said = " ".join(f"{name} {count:,}" for name, count in outcomes.items())
        return (
            f"{self.playing:>4} playing  "
            f"{(self._ledger.sent - sent) / seconds:>7,.0f} sent/s  "
            f"{(self.acknowledged_events - acked) / seconds:>7,.0f} acked/s  "
            f"ack p50 {self.percentile_ms(50):.0f} p99 {self.percentile_ms(99):.0f} ms  {said}"
        )

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latest acks' times."""
        if not self._latencies:
            return 0.0
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000

    def table(self, how: str, read: int) -> str:
        """Return the summary: sent, answered, read back, and every kind of difference."""
        ended = trio.current_time() if self._ended is None else self._ended
        seconds = max(0.001, ended - self._began)
        ledger = self._ledger
        rows = [
            ("seconds", f"{seconds:,.1f}"),
            ("events", f"{len(ledger.events):,}"),
            ("sent, resendings included", f"{ledger.sent:,}"),
            ("acknowledged a second", f"{self.acknowledged_events / seconds:,.0f}"),
            ("ack p50, p99", f"{self.percentile_ms(50):.1f}, {self.percentile_ms(99):.1f} ms"),
            *((f"  {name}", f"{count:,}") for name, count in sorted(ledger.answered.items())),
            (f"read back ({how})", f"{read:,}"),
        ]
        if ledger.beyond:
            rows.append(("not compared: over the ledger's limit", f"{ledger.beyond:,}"))
        rows += [(str(kind), f"{ledger.differences[kind]:,}") for kind in Difference]
        rows.append(("differences", f"{sum(ledger.differences.values()):,}"))
        text = "\n".join(f"{name:<44}{value:>16}" for name, value in rows)
        examples = [
            f"  {kind}: {example}" for kind, some in ledger.examples.items() for example in some
        ]
        return "\n".join([text, *examples])


async def show(
    progress: Progress, say: Callable[[str], None], *, every_seconds: float = 1.0
) -> None:
    """Say the line again and again, until cancelled."""
    while True:
        await trio.sleep(every_seconds)
        say(progress.line())


def _by_outcome(ledger: Ledger) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, count in ledger.answered.items():
        outcome = name.split(" ", 1)[0]
        counts[outcome] = counts.get(outcome, 0) + count
    return counts
