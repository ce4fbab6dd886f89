"""docs/metrics.md and the dashboard say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mlc_broker.cli import reference_metrics

ROOT = Path(__file__).parents[3]


def test_the_reference_of_the_metrics_is_current() -> None:
    written = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert written == reference_metrics.reference(), (
        "python -m mlc_broker.cli.reference_metrics docs/metrics.md"
    )


def test_the_dashboard_asks_for_figures_that_there_are() -> None:
    dashboard = json.loads((ROOT / "grafana" / "mlc-broker.json").read_text("utf-8"))
    sources = [p.read_text("utf-8") for p in (ROOT / "mlc_broker").rglob("*.py")]
    asked = {
        re.sub(r"^mlc_|_total$|_bucket$", "", name)
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"mlc_[a-z_]+", target["expr"])
    }
    missing = {name for name in asked if not any(f'{name}"' in text for text in sources)}
    assert missing == set()
