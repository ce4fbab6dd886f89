"""`mlc-broker bench`: what this machine takes, with a throw-away daemon; `--profile`: where the time goes."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from mlc_broker.cli.common import json_option, print_json, say

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
READY = re.compile(r"^ready ws=(\S+) http=(\S+)\s*$")
RATES = {"events_per_second_per_key", "events_per_second_per_organization"}
ROOMS = ("edge", "pipeline", "store", "query", "delivery", "model", "runtime", "cli")
WAYS = (("websocket", 100, 8, 4), ("websocket", 1, 64, 4), ("http", 100, 16, 1), ("http", 1, 32, 1))


@click.command("bench")
@click.option("--seconds", type=click.FloatRange(0.2, 3600), default=5.0, show_default=True,
              help="Of each measurement.")  # fmt: skip
@click.option("--profile", is_flag=True, help="Print where the time goes, by room and library.")
@json_option
def bench(*, seconds: float, profile: bool, as_json: bool) -> None:
    """Load a throw-away daemon with made-up events and print what this machine takes.

    Uses the default configuration and a temporary directory; nothing of yours is touched. The
    generator's share of a core is printed too: near 1.0 it was the bottleneck.
    """
    with tempfile.TemporaryDirectory(prefix="mlc-bench-") as folder:
        directory = Path(folder)
        bearer = _prepare(directory)
        samples = directory / "samples.txt"
        with _served(directory) as (pid, ws, http):
            if profile:
                with _watched(pid, samples, seconds):
                    told = _measure(ws, http, bearer, seconds, only_first=True)
            else:
                told = _measure(ws, http, bearer, seconds)
        if profile:
            _print_profile(samples.read_text("utf-8").splitlines())
    if as_json:
        print_json(told)
        return
    click.echo(f"{'':<26}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'generator':>11}")
    for name, figures in told.items():
        click.echo(
            f"{name:<26}{figures['events_per_second']:>10,.0f}{figures['p50_ms']:>9.1f}"
            f"{figures['p99_ms']:>9.1f}{figures['cpu_share']:>11.0%}"
        )


def by_room(lines: Sequence[str]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Add up folded stacks (`frame;frame count`): by room of ours, by library, by function.

    A sample belongs to the innermost room on its stack, and to the library it was in at that moment.
    """
    rooms: Counter[str] = Counter()
    libraries: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        if not number.isdigit():
            continue
        frames = stack.split(";")
        ours = next((f for f in reversed(frames) if "mlc_broker/" in f), "")
        rooms[_room(ours)] += int(number)
        libraries[_library(frames[-1])] += int(number)
        functions[re.sub(r"\(\S*?(?=mlc_broker/)", "(", ours) or "libraries alone"] += int(number)
    return rooms, libraries, functions


def _room(frame: str) -> str:
    found = re.search(r"mlc_broker/(\w+)(/)?", frame)
    if found is None:
        return "libraries alone"
    return found.group(1) if found.group(2) and found.group(1) in ROOMS else "roof"


def _library(frame: str) -> str:
    found = re.search(r"\(([^:)]+)", frame)
    path = found.group(1) if found else ""
    parts = path.split("/")
    if "mlc_broker" in parts:
        after = parts[parts.index("mlc_broker") + 1 :]
        return f"mlc_broker/{after[0]}" if len(after) > 1 else "mlc_broker"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "standard library" if "/lib/python3" in path or "<" in path else path or "unknown"


def _print_profile(lines: Sequence[str]) -> None:
    rooms, libraries, functions = by_room(lines)
    for title, counter in (
        ("by room (the innermost one on the stack)", rooms),
        ("by the code that ran", libraries),
        ("by function of ours, with what it calls", functions),
    ):
        total = counter.total() or 1
        click.echo(f"\n{title}, of {counter.total()} samples")
        for name, number in counter.most_common(20):
            click.echo(f"  {number / total:>6.1%}  {name}")
    click.echo("")


def _measure(
    ws: str, http: str, bearer: str, seconds: float, *, only_first: bool = False
) -> dict[str, dict[str, Any]]:
    import msgspec

    from mlc_broker.cli.bench_load import Plan, generate

    told: dict[str, dict[str, Any]] = {}
    doors = {"websocket": urlsplit(ws), "http": urlsplit(f"{http}/v1/events")}
    for protocol, each, connections, window in WAYS[:1] if only_first else WAYS:
        door = doors[protocol]
        say(f"{protocol}, {each} a message, {seconds:g} s …")
        plan = Plan(
            protocol=protocol,  # type: ignore[arg-type]
            address=(door.hostname or "", door.port or 0),
            path=door.path,
            bearer=bearer,
            events_each=each,
            connections=connections,
            window=window,
            seconds=seconds,
        )
        told[f"{protocol}, {each} a message"] = msgspec.to_builtins(generate(plan))
    return told


def _prepare(directory: Path) -> str:
    """Make a daemon's directory, a school, and a key; return the Authorization header's value."""
    import msgspec

    from mlc_broker.cli.bench_pages import ORGANIZATION, school_roster

    _run("init", str(directory))
    config = directory / "config.toml"
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", config.read_text("utf-8"))
    for name in RATES:
        text = re.sub(rf"(?m)^#? ?{name} = .*$", "", text)
    rates = "".join(f"{name} = 10_000_000\n" for name in sorted(RATES))
    text = re.sub(r"(?m)^\[limits\]$", "", text) if "\n[limits]\n" not in text else text
    if "\n[limits]\n" in text:
        text = text.replace("\n[limits]\n", f"\n[limits]\n{rates}", 1)
    else:
        text = f"{text}\n[limits]\n{rates}"
    config.write_text(text, "utf-8")
    roster = directory / "school.json"
    roster.write_bytes(msgspec.json.encode(school_roster()))
    where = ("--config", str(config))
    _run("roster", "import", str(roster), *where)
    made = _run("keys", "create", "--org", ORGANIZATION, "--name", "bench", *where)
    found = re.search(r"mlc_ik_\S+", made)
    if found is None:
        raise click.ClickException("no key could be made for the throw-away daemon")
    return f"Bearer {found.group()}"


@contextmanager
def _served(directory: Path) -> Iterator[tuple[int, str, str]]:
    serve = [
        sys.executable,
        "-m",
        "mlc_broker",
        "serve",
        "--config",
        str(directory / "config.toml"),
    ]
    process = subprocess.Popen(  # noqa: S603 (our own command)
        serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    patience = threading.Timer(START_SECONDS_MAX, process.kill)
    patience.start()
    try:
        assert process.stdout is not None
        found = next((f for f in map(READY.match, process.stdout) if f), None)
        patience.cancel()
        if found is None:
            raise click.ClickException("the throw-away daemon did not start")
        yield process.pid, found.group(1), found.group(2)
    finally:
        patience.cancel()
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _watched(pid: int, samples: Path, seconds: float) -> Iterator[None]:
    """Let py-spy look at the daemon two hundred times a second."""
    spy = Path(sys.executable).parent / "py-spy"
    if not spy.exists():
        raise click.ClickException("--profile needs py-spy: pip install 'mlc-broker[bench]'")
    options = ["record", "--format", "raw", "--rate", "200", "--full-filenames"]
    options += [
        "--pid",
        str(pid),
        "--duration",
        str(max(1, int(seconds))),
        "--output",
        str(samples),
    ]
    watcher = subprocess.Popen(  # noqa: S603 (a fixed command)
        [str(spy), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield
    finally:
        _, complaint = watcher.communicate()
    if not samples.exists():
        raise click.ClickException(
            f"py-spy could not look (as root it may; or kernel.yama.ptrace_scope=0): {complaint[-200:]}"
        )


def _run(*words: str) -> str:
    done = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-m", "mlc_broker", *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise click.ClickException(f"{words[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout
