"""received = stored + duplicate + dropped + rejected + quarantined + retry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mlc_broker.runtime.telemetry import OUTCOMES, Telemetry


def samples(telemetry: Telemetry) -> dict[str, float]:
    """The figures as a scraper reads them: `name{label}` → value."""
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(telemetry.text().decode())
        for sample in family.samples
    }


@given(st.lists(st.sampled_from(OUTCOMES), max_size=30))
def test_what_is_received_and_settled_balances(outcomes: list[str]) -> None:
    telemetry = Telemetry()
    telemetry.received(len(outcomes), door="http")
    assert telemetry.balance == len(outcomes)
    for outcome in outcomes:
        telemetry.settled(outcome)
    assert telemetry.balance == 0
    shown = samples(telemetry)
    settled = sum(shown.get(f"mlc_settled_events_total[{outcome}]", 0) for outcome in OUTCOMES)
    assert settled == shown.get("mlc_received_events_total[http]", 0) == len(outcomes)


def test_a_queue_is_asked_for_its_depth_when_somebody_reads() -> None:
    telemetry, queue = Telemetry(), [1, 2]
    telemetry.watch_queue("writer", queue)
    telemetry.watch_queue("hall", lambda: 7)
    queue.append(3)
    shown = samples(telemetry)
    assert (shown["mlc_queue_depth[writer]"], shown["mlc_queue_depth[hall]"]) == (3, 7)


def test_two_houses_do_not_share_their_figures() -> None:
    one, other = Telemetry(), Telemetry()
    one.received(5, door="websocket")
    assert "mlc_received_events_total[websocket]" not in samples(other)
