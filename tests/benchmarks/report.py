"""From results to pages: docs/benchmarks/README.md, its plots, and docs/capacity.md."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tests.benchmarks import capacity, goals, plots
from tests.benchmarks.compare import COPY, SCENARIOS
from tests.benchmarks.results import FOLDER, ROOT, Contest, Results

MARKS = {True: "yes", False: "**no**", None: "–"}
HEAD = """# Benchmarks

Made by `make bench`; do not edit by hand. The daemon and what a team would pick instead, on one
machine, in one run: all are filled first, then measured in turns, in another order every round,
while the others are held still (SIGSTOP). Figures are medians over the rounds. Absolute rates belong
to this machine and to its hour; the ratios travel better.

The load generator is a process of its own with messages encoded beforehand; its share of a core
stands beside each figure: near 100 % it was the bottleneck, and the figure is a floor. Every
alternative validates (pydantic v2, the envelope and the type's properties), refuses duplicates by a
unique key, and acknowledges after its commit. What an acknowledged event survives stands in the
table: a faster one that promises less is no alternative. nginx keeps nothing: it is the floor of
HTTP transport.

What was tried, where the time goes and what stands in the way: [performance](../performance.md).
"""


def write(results: Results, folder: Path = FOLDER, docs: Path | None = None) -> None:
    """Write all pages and plots."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(results, folder)
    (folder / "README.md").write_text("\n".join(_page(results, drawn)) + "\n", "utf-8")
    (docs or ROOT / "docs").joinpath("capacity.md").write_text(capacity.page(results), "utf-8")


def goal_table(results: Results) -> list[str]:
    """The goals as Markdown."""
    lines = ["| measure | goal | measured | reached |", "|---|---|---|---|"]
    lines += [
        f"| {row.measure} | {row.goal} | {row.measured} | {MARKS[row.reached]} |"
        for row in goals.rows(results)
    ]
    return lines


def _number(value: float) -> str:
    """Return a figure with four digits, and none behind the point where it is large."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _rounds(results: Results) -> str:
    """How many rounds there were: the time may have been over before all that were asked for."""
    taken = {
        len(series.rates) for each in results.contests.values() for series in each.series.values()
    }
    fewest, most = min(taken, default=0), max(taken, default=0)
    return f"{most} rounds" if fewest == most else f"{fewest} to {most} rounds"


def _page(results: Results, drawn: list[str]) -> list[str]:
    lines = [HEAD, "## Taken on", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    sizes = results.sizes
    lines += [
        (
            f"- {sizes.stored:,} events stored before the comparison, {_rounds(results)} of "
            f"{sizes.seconds:g} s, {sizes.store_events:,} events for the store alone, "
            f"{sizes.hot_events:,} hot events at the restart"
        ),
        "",
        "## Goals",
        "",
        *goal_table(results),
        "",
        "## Side by side",
        "",
    ]
    for name in (*SCENARIOS, COPY):
        lines += _scenario(results, name)
    missing = {n: c.missing for n, c in results.contests.items() if c.missing}
    if missing or results.skipped:
        lines += ["## Left out", ""]
        lines += [f"- {name}: {why}" for name, why in (missing | results.skipped).items()]
        lines.append("")
    if results.measures:
        lines += ["## Single figures", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {_number(value)} |" for name, value in results.measures.items()]
        lines.append("")
    lines += _growth(results)
    lines += [f"![{name}]({name})" for name in drawn]
    return lines


def _scenario(results: Results, name: str) -> list[str]:
    found = [
        (contestant, contest)
        for contestant, contest in results.contests.items()
        if name in contest.series and contest.series[name].rates
    ]
    if not found:
        return []
    lines = [
        f"### {name}",
        "",
        (
            "| | events/s (lowest to highest) | ours to theirs | p50 · p99 ms | CPU µs an event "
            "| bytes written an event | generator | an acknowledged event survives |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(results, name, contestant, contest) for contestant, contest in found]
    return [*lines, ""]


def _line(results: Results, scenario: str, name: str, contest: Contest) -> str:
    series = contest.series[scenario]
    ratios = results.ratios(goals.OURS, name, scenario)
    ratio = f"{median(ratios):.2f}" if ratios and name != goals.OURS else ""
    waits = f"{median(series.p50_ms):.1f} · {median(series.p99_ms):.1f}" if series.p50_ms else ""
    share = f"{median(series.generator):.0%}" if series.generator else ""
    return (
        f"| {name} | {series.rate:,.0f} ({min(series.rates):,.0f} to {max(series.rates):,.0f}) "
        f"| {ratio} | {waits} | {median(series.cpu_us):.0f} | {median(series.written_bytes):,.0f} "
        f"| {share} | {contest.promise} |"
    )


def _growth(results: Results) -> list[str]:
    if not results.growth:
        return []
    names = list(dict.fromkeys(name for point in results.growth for name in point))
    heads = [f"{point['events']:,.0f}" for point in results.growth]
    lines = ["## Growth", "", f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        values = [f"{_number(point[name])}" if name in point else "" for point in results.growth]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return [*lines, ""]
