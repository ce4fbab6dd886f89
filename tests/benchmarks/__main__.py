"""`python -m tests.benchmarks [compare|growth|report]`: measure, and write docs/benchmarks/.

Nothing here fails by the clock: it measures, and says what it found.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from tests.benchmarks import goals, report
from tests.benchmarks.compare import Comparison, copy_when_empty
from tests.benchmarks.growth import Growth
from tests.benchmarks.measures import Measures
from tests.benchmarks.results import FOLDER, Budget, Results, Sizes, load, machine, save


@click.command()
@click.argument("what", type=click.Choice(["compare", "growth", "report"]), default="compare")
@click.option("--quick", is_flag=True, help="Small sizes: only to see that everything works.")
@click.option("--seconds-max", default=1800.0, show_default=True, help="For all of it, about.")
@click.option("--rounds", type=int, help="Rounds of the comparison.")
@click.option("--seconds", type=float, help="Seconds of one measurement.")
@click.option("--stored", type=int, help="Events in each store before the comparison.")
@click.option("--store-events", type=int, help="Events for the store alone.")
@click.option("--hot-events", type=int, help="Events in the hot file at the restart.")
@click.option("--millions", type=float, help="Growth: the last mark.")
@click.option(
    "--only", multiple=True, help="Contestants by class name, e.g. Broker; or `measures`."
)
@click.option("--out", type=click.Path(path_type=Path), help="Another folder for the results.")
def main(
    *,
    what: str,
    quick: bool,
    seconds_max: float,
    rounds: int | None,
    seconds: float | None,
    stored: int | None,
    store_events: int | None,
    hot_events: int | None,
    millions: float | None,
    only: tuple[str, ...],
    out: Path | None,
) -> None:
    """Measure the daemon beside its alternatives, or its growth; write table, plots, capacity."""
    folder = out or FOLDER
    results, sizes = load(folder), Sizes.quick() if quick else Sizes()
    given: dict[str, Any] = {
        "rounds": rounds,
        "seconds": seconds,
        "stored": stored,
        "store_events": store_events,
        "hot_events": hot_events,
    }
    if millions is not None:
        given["growth"] = tuple(int(millions * 1e6 * part) for part in (0, 0.05, 0.25, 0.5, 1))
    sizes = msgspec.structs.replace(sizes, **{k: v for k, v in given.items() if v is not None})
    if what != "report":
        results.machine, results.sizes = machine(), sizes
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
            _measure(what, results, Budget(seconds_max), Path(directory), frozenset(only))
        save(results, folder)
    report.write(results, folder, folder if out else None)
    for row in goals.rows(results):
        mark = {True: "reached", False: "NOT REACHED", None: "-"}[row.reached]
        print(f"{row.measure:<78}{row.goal:<26}{row.measured:<20}{mark}")


def _measure(
    what: str, results: Results, budget: Budget, directory: Path, only: frozenset[str]
) -> None:
    sizes = results.sizes
    if what == "growth":
        Growth(results, sizes, budget, directory).run()
        return
    if only != {"measures"}:
        results.contests = {} if not only else results.contests
        if not only or "BareCopy" in only:
            copy_when_empty(results, sizes, directory)
        # A part of the time is kept for the single figures.
        share = Budget(budget.seconds * (0.65 if not only else 1.0))
        Comparison(results, sizes, share, directory).run(only)
    if not only or "measures" in only:
        Measures(results, sizes, budget, directory).run()


if __name__ == "__main__":
    sys.exit(main())
