"""SVG plots of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.compare import SCENARIOS
from tests.benchmarks.results import Results

OURS, OTHERS = "#0b6e4f", "#9aa5b1"
GROWTH = (
    ("ingest: events/s", "events/s", "ingest"),
    ("student's last 100, p95: ms", "ms", "a student's last 100, p95"),
    ("class 30 days, p95: ms", "ms", "a class, 30 days, p95"),
    ("restart: s", "s", "restart to ready"),
    ("memory: MiB", "MiB", "memory"),
    ("disk, all: MB", "MB", "disk"),
)


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what there are figures for; return the files' names."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        print("no plots: pip install 'mlc-broker[bench]'")
        return []
    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "mlc-broker", "font.size": 9, "svg.fonttype": "none"}
    drawn = []
    if any(contest.series for contest in results.contests.values()):
        drawn.append(_compare(results, folder))
    if len(results.growth) > 1:
        drawn.append(_growth(results, folder))
    return drawn


def _compare(results: Results, folder: Path) -> str:
    from matplotlib import pyplot as plt

    names = [s for s in SCENARIOS if any(s in c.series for c in results.contests.values())]
    figure, axes = plt.subplots(len(names), 1, figsize=(8, 1.9 * len(names)), squeeze=False)
    for axis, name in zip(axes[:, 0], names, strict=True):
        rates = {
            who: contest.series[name]
            for who, contest in results.contests.items()
            if name in contest.series and contest.series[name].rates
        }
        values = [series.rate for series in rates.values()]
        spread = [
            [series.rate - min(series.rates) for series in rates.values()],
            [max(series.rates) - series.rate for series in rates.values()],
        ]
        colours = [OURS if who == "mlc-broker" else OTHERS for who in rates]
        axis.barh(list(rates), values, xerr=spread, color=colours, height=0.6)
        axis.set_title(f"{name}: events/s", loc="left", fontsize=9)
        axis.invert_yaxis()
        _plain(axis)
    return _saved(figure, folder, "compare.svg")


def _growth(results: Results, folder: Path) -> str:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(8, 7))
    for axis, (name, unit, title) in zip(axes.flat, GROWTH, strict=True):
        points = [(p["events"] / 1e6, p[name]) for p in results.growth if name in p]
        if points:
            axis.plot(*zip(*points, strict=True), color=OURS, marker="o", markersize=3)
        axis.set_title(f"{title} ({unit})", loc="left", fontsize=9)
        axis.set_xlabel("million events stored")
        axis.set_ylim(bottom=0)
        _plain(axis)
    return _saved(figure, folder, "growth.svg")


def _plain(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def _saved(figure: Any, folder: Path, name: str) -> str:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    figure.savefig(folder / name, metadata={"Date": None})
    plt.close(figure)
    return name
