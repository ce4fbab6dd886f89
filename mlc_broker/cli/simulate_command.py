"""`mlc-broker simulate`: a school day against a running daemon, and the comparison at its end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import NoReturn

import click
import trio

from mlc_broker.config import Config, load
from mlc_broker.config_files import read_secret
from mlc_broker.edge.credentials import make_token
from mlc_broker.model.errors import ConfigError
from mlc_broker.model.principal import Role
from mlc_broker.runtime.clock import Clock, SystemClock
from mlc_broker.simulate.curriculum import Curriculum, load_curriculum, made_up_curriculum
from mlc_broker.simulate.lesson import Told, give, run_name
from mlc_broker.simulate.people import make_people, roster_of
from mlc_broker.simulate.plan import CLASSES_MAX, MINUTES_MAX, STUDENTS_MAX, Access, Plan, TokenFor
from mlc_broker.simulate.web import Away, request

EXIT_DIFFERENT = 1
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
TOKEN_SECONDS = 12 * 3600


@click.command("simulate")
@click.option("--config", "config_file", type=click.Path(path_type=Path), default=None)
@click.option("--ws", default="", help="The daemon's WebSocket; the configuration's by default.")
@click.option(
    "--url", default="", help="The daemon's HTTP address; the configuration's by default."
)
@click.option("--key", default="", help="Publish with this ingest key instead of user tokens.")
@click.option("--organization", default="org_demo", show_default=True)
@click.option("--students", type=click.IntRange(1, STUDENTS_MAX), default=30, show_default=True)
@click.option("--classes", type=click.IntRange(1, CLASSES_MAX), default=2, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.1, MINUTES_MAX), default=30, show_default=True,
              help="Length of the lesson, in simulated minutes.")  # fmt: skip
@click.option("--speed", type=click.FloatRange(0, 100_000), default=60, show_default=True,
              help="Simulated seconds a second; 0: as fast as it goes.")  # fmt: skip
@click.option("--games", type=click.Path(path_type=Path), help="A games master list, CSV.")
@click.option("--sequence", type=click.Path(path_type=Path), help="A sequence, CSV.")
@click.option("--bad-share", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="Bad events on purpose, as a share of all.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--forever", is_flag=True, help="One lesson after the other, until Ctrl-C.")
@click.option("--no-roster", is_flag=True, help="Do not load the made-up school into the roster.")
def simulate(
    *,
    config_file: Path | None,
    ws: str,
    url: str,
    key: str,
    organization: str,
    students: int,
    classes: int,
    minutes: float,
    speed: float,
    games: Path | None,
    sequence: Path | None,
    bad_share: float,
    seed: int,
    forever: bool,
    no_roster: bool,
) -> None:
    """Play a school day against the daemon; exit status 1 if anything differs at the end.

    With --config the simulator signs tokens with the daemon's secret, for every student, and
    reads everything back. With --key, --ws and --url it needs no configuration, and then judges
    by the receipts alone.
    """
    clock = SystemClock()
    curriculum = choose_curriculum(games, sequence, seed)
    plan = Plan(
        organization_id=organization,
        students=students,
        classes=min(classes, students),
        lesson_minutes=minutes,
        speed=speed,
        seed=seed,
        run=run_name(clock),
        bad_share=bad_share,
    )
    if key:
        access = _access_by_key(key, ws, url)
    else:
        config = load(config_file or Path("config.toml"))
        access = access_of(config, plan, clock, ws=ws, url=url)
        if not no_roster:
            load_roster(config, plan, clock)
    told = run_simulation(plan, access, curriculum, clock=clock, forever=forever)
    if told.differences:
        raise SystemExit(EXIT_DIFFERENT)


def choose_curriculum(games: Path | None, sequence: Path | None, seed: int) -> Curriculum:
    """Return what is played: from the files, or made up; say what it is."""
    if (games is None) != (sequence is None):
        fail(EXIT_USAGE, "--games and --sequence go together: the one names the other's games.")
    if games is None or sequence is None:
        return made_up_curriculum(Random(seed))  # noqa: S311 - chance, not a secret
    curriculum = load_curriculum(games, sequence)
    click.echo(
        f"{curriculum.games} games, {len(curriculum.assignments)} assignments, "
        f"{curriculum.steps} steps; {curriculum.skipped} rows made no sense and were skipped"
    )
    return curriculum


def access_of(config: Config, plan: Plan, clock: Clock, *, ws: str = "", url: str = "") -> Access:
    """Return where the configuration's daemon listens, and tokens signed with its secret."""
    secure = config.http.tls_certificate is not None, config.websocket.tls_certificate is not None
    return Access(
        ws_url=ws or f"ws{'s' * secure[1]}://{config.websocket.listen}/v1/stream",
        http_url=(url or f"http{'s' * secure[0]}://{config.http.listen}").rstrip("/"),
        token_for=token_maker(config, plan.organization_id, clock),
    )


def token_maker(config: Config, organization_id: str, clock: Clock) -> TokenFor:
    """Return a maker of user tokens of one organization, signed with the daemon's secret."""
    name = config.auth.secret_file
    if not name:
        raise ConfigError(
            f"{config.file}: without [auth] secret_file there is nothing to sign tokens with; "
            "give an ingest key instead (--key)"
        )
    secret = read_secret(config.secret_path(name))
    seconds = min(TOKEN_SECONDS, config.auth.token_seconds_max)

    def token_for(user_id: str, role: Role) -> str:
        return make_token(
            secret,
            sub=user_id,
            org=organization_id,
            role=role,
            now=clock.now(),
            seconds=seconds,
            issuer=config.auth.issuer,
        )

    return token_for


def load_roster(config: Config, plan: Plan, clock: Clock) -> None:
    """Write the made-up school into the roster: beside a running daemon, or before it starts."""
    from mlc_broker.store.roster import Roster

    records = roster_of(plan, make_people(plan, Random(plan.seed)))  # noqa: S311 - chance
    config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    roster = Roster(config.data_path / "roster.db", clock=clock)
    roster.open()
    try:
        roster.put_many(
            (kind, key, record) for kind, some in records.items() for key, record in some.items()
        )
    finally:
        roster.close()


def run_simulation(
    plan: Plan,
    access: Access,
    curriculum: Curriculum,
    *,
    clock: Clock,
    forever: bool = False,
) -> Told:
    """Simulate until the lesson is over or Ctrl-C; say how it goes, and the table at the end."""
    told = trio.run(
        partial(_simulate, plan, access, curriculum, clock=clock, forever=forever),
        restrict_keyboard_interrupt_to_checkpoints=True,
    )
    click.echo("\r\033[K" if sys.stdout.isatty() else "", nl=False)
    click.echo(told.table)
    return told


def fail(status: int, message: str) -> NoReturn:
    """End the command with this exit status, and a message on stderr."""
    click.echo(message, err=True)
    raise SystemExit(status)


def _access_by_key(key: str, ws: str, url: str) -> Access:
    if not (ws and url):
        fail(EXIT_USAGE, "--key needs --ws and --url: there is no configuration to ask.")
    return Access(
        ws_url=ws,
        http_url=url.rstrip("/"),
        token_for=lambda *_: key,
        as_users=False,
        may_read=False,
    )


async def _simulate(
    plan: Plan, access: Access, curriculum: Curriculum, *, clock: Clock, forever: bool
) -> Told:
    try:
        await request(access.http_url, "GET", "/healthz", seconds_max=10)
    except Away as error:
        fail(EXIT_UNAVAILABLE, f"{error}\nStart the daemon first: mlc-broker serve")
    stop = trio.Event()
    live = sys.stdout.isatty()
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_signal, stop)
        told = await give(
            plan,
            access,
            curriculum,
            clock=clock,
            random=Random(plan.seed),  # noqa: S311 - chance, not a secret
            say=_sayer(live=live),
            stop=stop,
            forever=forever,
            say_every_seconds=0.5 if live else 5.0,
        )
        nursery.cancel_scope.cancel()
    return told


async def _stop_on_signal(stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    """Set `stop` at the first signal; end without the table at the second."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if stop.is_set():
                os._exit(128 + number)
            stop.set()


def _sayer(*, live: bool) -> Callable[[str], None]:
    """Return who says the line: over itself on a screen, below itself in a file."""
    if live:
        return lambda line: click.echo(f"\r\033[K{line}", nl=False)
    return click.echo
