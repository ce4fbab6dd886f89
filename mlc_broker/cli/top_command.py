"""`mlc-broker top`: what flows, by type, organization, outcome and processor, live."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import click

from mlc_broker.cli.admin import AdminClient, admin_client, printable
from mlc_broker.cli.common import config_option, json_option, print_json
from mlc_broker.config import Config
from mlc_broker.query.live_figures import quantile
from mlc_broker.runtime.telemetry import OUTCOMES

FIRST_SECONDS = 0.5
_NAMES_MAX = 12
_HEAD, _CLEAR, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

Figures: TypeAlias = dict[str, Any]


@click.command("top")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.2, 60),
              help="Between two pictures.")  # fmt: skip
@click.option("--once", is_flag=True, help="One picture, then end.")
@json_option
@config_option
def top(config: Config, *, seconds: float, once: bool, as_json: bool) -> None:
    """Show what flows through the running daemon, until Ctrl-C."""
    client = admin_client(config)
    before = _ask(client)
    if as_json:
        print_json(before)
        return
    if once:
        time.sleep(FIRST_SECONDS)
        for line in picture(before, _ask(client), 100):
            click.echo(line)
        return
    with _screen() as draw:
        time.sleep(FIRST_SECONDS)
        while True:
            now = _ask(client)
            draw(now, before)
            before = now
            time.sleep(seconds)


def picture(before: Figures, now: Figures, width: int) -> list[str]:
    """Return the lines of one picture; rates are of the time between the two."""
    seconds = max(0.001, now["up_seconds"] - before["up_seconds"])

    def rates(name: str) -> list[tuple[str, ...]]:
        counts, earlier = now[name], before[name]
        by_rate = sorted(
            counts, key=lambda one: (earlier.get(one, 0) - counts[one], -counts[one], one)
        )
        return [
            (one, number(counts[one]), number((counts[one] - earlier.get(one, 0)) / seconds))
            for one in by_rate[:_NAMES_MAX]
        ]

    after = now["outcomes"]
    outcomes = [
        (name, number(after[name]), number((after[name] - before["outcomes"][name]) / seconds))
        for name in OUTCOMES
    ]
    half = max(36, (width - 3) // 2)
    return [
        *_summary(before, now, seconds),
        "",
        *beside(
            table(("outcome", "events", "/s"), outcomes, half),
            table(("processor", "events/s", "µs each"), _processors(before, now, seconds), half),
        ),
        "",
        *beside(
            table(("type", "stored", "/s"), rates("types"), half),
            table(("organization", "stored", "/s"), rates("organizations"), half),
        ),
        *_reasons(now),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return lines of this width: the first column is text, the others are figures."""
    figures = (len(head) - 1) * 11
    lines = []
    for row in (head, *rows):
        name = printable(row[0])[: width - figures].ljust(width - figures)
        lines.append(name + "".join(str(figure).rjust(11) for figure in row[1:]))
    return lines if rows else [*lines, "(none yet)".ljust(width)]


def beside(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Return two blocks of lines as one."""
    width = len(left[0])
    count = max(len(left), len(right))
    both = zip(
        [*left, *[" " * width] * (count - len(left))],
        [*right, *[""] * (count - len(right))],
        strict=True,
    )
    return [f"{one}   {other}".rstrip() for one, other in both]


def number(value: float) -> str:
    """Return a figure in at most ten letters."""
    if value >= 10_000_000:
        return f"{value / 1_000_000:,.1f}M"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _summary(before: Figures, now: Figures, seconds: float) -> list[str]:
    received = (now["received"] - before["received"]) / seconds
    ack, lag = (_p99(name, before, now) for name in ("ack_seconds", "loop_lag_seconds"))
    queues = "  ".join(f"{name} {number(depth)}" for name, depth in now["queues"].items())
    return [
        f"mlc-broker   up {_time(now['up_seconds'])}   {now['at']}",
        f"received {number(now['received'])}   {number(received)}/s   in hand {now['in_hand']}",
        f"queues: {queues or 'none'}   live readers {now['subscribers']}",
        f"answer p99 {ack}   loop lag p99 {lag}",
    ]


def _p99(name: str, before: Figures, now: Figures) -> str:
    """Return the quantile of the time between two looks; of all time where nothing happened."""
    counts, earlier = now["latencies"][name]["buckets"], before["latencies"][name]["buckets"]
    edges = [float("inf") if edge is None else edge for edge, _ in counts]
    fresh = [after[1] - (earlier[i][1] if earlier else 0) for i, after in enumerate(counts)]
    value = quantile(list(zip(edges, fresh, strict=True)), 0.99)
    if value is None:
        value = now["latencies"][name]["p99"]
    return "-" if value is None else f"{value * 1000:.1f} ms"


def _processors(before: Figures, now: Figures, seconds: float) -> list[tuple[str, ...]]:
    earlier: Mapping[str, Any] = {one["name"]: one for one in before["processors"]}
    rows: list[tuple[str, ...]] = []
    for one in now["processors"]:
        old = earlier.get(one["name"], one)
        events = max(0, one["events"] - old["events"])
        cost = (one["seconds"] - old["seconds"]) / events * 1e6 if events else 0.0
        name = one["name"] if one["state"] == "ready" else f"{one['name']} ({one['state']})"
        rows.append((name, number(events / seconds), number(cost) if events else "-"))
    return rows


def _reasons(now: Figures) -> list[str]:
    told = [
        f"{outcome}: " + ", ".join(f"{printable(name)} {number(n)}" for name, n in some.items())
        for outcome, some in now["reasons"].items()
    ]
    return ["", *told] if told else []


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (
        f"{days} d {hours:02}:{minutes:02}:{rest:02}" if days else f"{hours}:{minutes:02}:{rest:02}"
    )


def _ask(client: AdminClient) -> Figures:
    figures: Figures = client.get("/v1/flow")
    return figures


@contextmanager
def _screen() -> Iterator[Callable[[Figures, Figures], None]]:
    """Take the terminal's other screen, and give it back whatever happens."""

    def draw(now: Figures, before: Figures) -> None:
        size = shutil.get_terminal_size()
        lines = picture(before, now, size.columns)[: size.lines - 1]
        text = "".join(f"{line[: size.columns]}{_CLEAR}\n" for line in lines)
        click.echo(_HEAD + text + _REST, nl=False)

    click.echo(_ENTER, nl=False)
    try:
        yield draw
    finally:
        click.echo(_LEAVE, nl=False)
