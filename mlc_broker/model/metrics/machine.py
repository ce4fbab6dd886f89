"""How the machines do: load times by percentile, and what became of what was sent."""

from __future__ import annotations

from mlc_broker.model.metric import PERSON, Metric, Term

_TIMING = (*PERSON, "endpoint")


def _timing(name: str, title: str, value: str, endpoint: tuple[str, ...]) -> Metric:
    return Metric(
        name=name,
        title=title,
        unit="ms",
        kind="percentile",
        formula=f"count, mean and percentiles of {value} of {name} events, weighed by "
        "1 / sample_rate; values within 0.4 %",
        event_types=(name,),
        value=value,
        endpoint=endpoint,
        dimensions=_TIMING,
    )


MACHINE = (
    _timing("page_load_time", "Page load time", "load_time_ms", ("page_url",)),
    _timing("api_response_time", "API response time", "response_time_ms", ("endpoint",)),
    _timing("asset_load_time", "Asset load time", "load_time_ms", ("asset_url", "asset_type")),
    Metric(
        name="broker_receipts",
        title="Receipts",
        unit="count",
        kind="count",
        of="receipts",
        formula="events sent, by what became of them and why",
        numerator=Term("count"),
        dimensions=("organization_id", "outcome", "reason"),
    ),
)
