"""docs/metrics.md, written from the declarations: `python -m mlc_broker.cli.reference_metrics FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from mlc_broker.model.metric import ALLOWED, FIELDS, GRAINS_OF, Metric
from mlc_broker.model.metrics import STANDARD

_OPENING = """\
# Metrics

This page is written from the declarations by `python -m mlc_broker.cli.reference_metrics
docs/metrics.md`; a test compares the two. The same as JSON: `GET /v1/metrics`.

Figures are counted as events are stored, and a figure is the recount of the stored events: after
any crash, after erasure and after expiry. `mlc-broker verify --metrics` proves it, `--rebuild` mends.

- Days, weeks (from Monday) and months are those of the organization's time zone; `at` is the instant
  at which one begins. An event counts in the period of its timestamp, however late it comes.
- Minutes are kept for 2 days and hours for 90; days, weeks, months and totals as long as the events.
- A sampled event weighs 1 / `sample_rate`. Different people, sessions and games are counted exactly,
  and not weighed.
- A class, a teacher and a device are those of the moment of the event. Somebody in two classes counts
  in both.
- *Students* are people who are not known to be anything else, without shared logins and impersonated
  sessions; *people* are all but those two.
- Rows that a grouping has nothing for are left out. Across organizations rows of fewer people than
  `[privacy] minimum_group` are left out too, with what would give them away by subtraction.
- What a reader may not see is not counted for them: the scope is that of events.
- A new metric counts from its declaration on, which is read at the start and at a reload;
  `verify --metrics --rebuild` counts what was stored before, and until then the log and `/healthz`
  name it. The same holds, untold, when an organization moves to another time zone.

## Asking

`GET /v1/metrics/{name}?from=…&to=…&grain=day&group_by=class_id&game_id=G-01542&compare=previous`.
Without `grain` it is `day`, or `total` where a metric has nothing else. `compare=previous` puts the
value of the period before, as long as the one asked for, beside each row as `previous`.

Over the WebSocket, `watch` sends the value of a window at once and again when it changes: `today`,
`yesterday`, `week`, `month`, `1h`, `24h`, `7d`, `30d`, `90d`, `all`.

## Your own

A TOML or JSON file in the folder `metrics` beside the configuration declares one or several; so does
a plugin (`plugins/README.md`). They are checked at the start, at a reload and by `mlc-broker check`;
an error names the file and the field.

```toml
[[metric]]
name = "org.hints_used"          # begins with `org.`
title = "Hints used"
unit = "count"
kind = "mean"                    # count, sum, mean, max, ratio, distinct, percentile
formula = "mean of hints_used of completed stages"
event_types = ["game_stage_complete"]
value = "hints_used"             # the property
where = [{field = "stage_type", op = "is", value = "quiz"}]
dimensions = ["class_id", "user_id", "game_id"]
counts = "students"              # people, everybody
organization_id = "org_54321"    # left out: for every organization
```

`of = "samples"`, the default, counts properties of events as above. Other sources count what is kept
for the standard metrics, by `numerator` and `denominator` with conditions on these fields:
"""


def reference() -> str:
    """Return the reference of the standard metrics in Markdown."""
    rows = ["| source | fields | dimensions | grains |", "|---|---|---|---|"]
    for source, fields in FIELDS.items():
        if fields:
            cells = (_list(fields), _list(ALLOWED[source]), ", ".join(GRAINS_OF[source]))
            rows.append(f"| `{source}` | {' | '.join(cells)} |")
    parts = [
        _OPENING,
        *rows,
        "",
        "Operators: `is`, `is_not`, `in`, `at_least`, `at_most`, `given`, ",
    ]
    parts[-1] += "`missing`.\n"
    parts.append("## The standard metrics\n")
    return "\n".join([*parts, *(_section(metric) for metric in STANDARD)])


def _section(metric: Metric) -> str:
    return (
        f"### `{metric.name}`\n\n"
        f"{metric.title}, {metric.kind} ({metric.unit}); counts {metric.counts}. "
        f"{metric.formula[0].upper()}{metric.formula[1:]}.\n\n"
        f"Dimensions: {_list(metric.dimensions)}. Grains: {', '.join(metric.periods)}.\n"
    )


def _list(names: object) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))  # type: ignore[call-overload]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
