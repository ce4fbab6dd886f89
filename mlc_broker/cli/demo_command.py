"""`mlc-broker demo`, which is `make run`: a daemon with a made-up school, played until Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mlc_broker.cli.simulate_command import (
    EXIT_UNAVAILABLE,
    access_of,
    choose_curriculum,
    fail,
    load_roster,
    run_simulation,
)
from mlc_broker.config import load
from mlc_broker.model.principal import Role
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.simulate.lesson import run_name
from mlc_broker.simulate.people import ADMIN_ID, SYSTEM_ADMIN_ID, TEACHER_ADMIN_ID
from mlc_broker.simulate.plan import STUDENTS_MAX, Access, Plan

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0
READY = re.compile(r"^ready ws=(\S+) http=(\S+)\s*$")


@click.command("demo")
@click.argument("directory", type=click.Path(path_type=Path), default="run")
@click.option("--students", type=click.IntRange(1, STUDENTS_MAX), default=30, show_default=True)
@click.option("--classes", type=click.IntRange(1, 500), default=2, show_default=True)
@click.option("--speed", type=click.FloatRange(0, 100_000), default=10, show_default=True,
              help="Simulated seconds a second; 0: as fast as it goes.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.1, 1440), default=30, show_default=True)
@click.option("--games", type=click.Path(path_type=Path), help="A games master list, CSV.")
@click.option("--sequence", type=click.Path(path_type=Path), help="A sequence, CSV.")
@click.option("--once", is_flag=True, help="One lesson, not one after the other.")
def demo(
    *,
    directory: Path,
    students: int,
    classes: int,
    speed: float,
    minutes: float,
    games: Path | None,
    sequence: Path | None,
    once: bool,
) -> None:
    """Start a daemon in DIRECTORY (./run), with a made-up school that plays until Ctrl-C.

    Ends with the comparison of what was sent, acknowledged and stored; exit status 0 where
    nothing differs, else 1.
    """
    clock = SystemClock()
    curriculum = choose_curriculum(games, sequence, 0)
    plan = Plan(
        students=students,
        classes=min(classes, students),
        lesson_minutes=minutes,
        speed=speed,
        run=run_name(clock),
    )
    file = directory / "config.toml"
    if not file.exists():
        _run("init", str(directory))
    config = load(file)
    load_roster(config, plan, clock)
    with _served(file) as (ws, http):
        access = access_of(config, plan, clock, ws=ws, url=http)
        _introduce(access, plan, file)
        told = run_simulation(plan, access, curriculum, clock=clock, forever=not once)
    if told.differences:
        raise SystemExit(1)


def _introduce(access: Access, plan: Plan, file: Path) -> None:
    """Say where to look and as whom."""
    people = {
        Role.SYSTEM_ADMIN: SYSTEM_ADMIN_ID,
        Role.SUBSCRIBER_ADMIN: ADMIN_ID,
        Role.TEACHER_ADMIN: TEACHER_ADMIN_ID,
        Role.TEACHER: "usr_teacher_1",
        Role.STUDENT: "usr_student_1",
    }
    click.echo(f"\n  console    {access.http_url}/console/")
    click.echo(f"  demo page  {access.http_url}/demo/")
    click.echo(f"  schemas    {access.http_url}/v1/schemas")
    click.echo(f"  WebSocket  {access.ws_url}\n  settings   {file}\n")
    click.echo(f"  Tokens of {plan.organization_id} to try, good for some hours:\n")
    for role, user_id in people.items():
        click.echo(f"  {role} {user_id}\n    {access.token_for(user_id, role)}")
    click.echo(f"\n  {plan.students} students in {plan.classes} classes play. Ctrl-C ends it.\n")


@contextmanager
def _served(file: Path) -> Iterator[tuple[str, str]]:
    """Start the daemon as a child, hand out its addresses, and stop it whatever happens."""
    log = file.parent / "daemon.log"
    with log.open("ab") as said:
        daemon = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "mlc_broker", "serve", "--config", str(file)],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            # Ctrl-C on the terminal is for us: the daemon must outlive the simulation.
            start_new_session=True,
        )
    try:
        yield _ready(daemon, log)
    finally:
        status = _stop(daemon)
    if status:
        fail(EXIT_UNAVAILABLE, f"The daemon ended with exit status {status}: see {log}")


def _ready(daemon: subprocess.Popen[str], log: Path) -> tuple[str, str]:
    """Return the addresses of the ready line, or end with the daemon's own words."""
    patience = threading.Timer(START_SECONDS_MAX, daemon.kill)
    patience.start()
    found = None
    for line in daemon.stdout or ():
        if found := READY.match(line):
            break
    patience.cancel()
    if found is None:
        status = daemon.wait()
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        fail(status or EXIT_UNAVAILABLE, f"The daemon did not start (status {status}):\n{tail}")
    return found.group(1), found.group(2)


def _stop(daemon: subprocess.Popen[str]) -> int:
    """SIGTERM, then patience; return the exit status."""
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    try:
        status = daemon.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        daemon.kill()
        status = daemon.wait()
    if daemon.stdout is not None:
        daemon.stdout.close()
    return status


def _run(*words: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "mlc_broker", *words], check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)
