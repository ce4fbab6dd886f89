"""`mlc-broker quarantine`: what was refused, by cause; shown; sent through again after a fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from mlc_broker.cli import telephone
from mlc_broker.cli.common import config_option, json_option, print_json
from mlc_broker.config import Config
from mlc_broker.model.errors import BrokerError

F = TypeVar("F", bound=Callable[..., Any])
_outcome = click.option(
    "--outcome",
    type=click.Choice(["quarantined", "rejected"]),
    default="quarantined",
    show_default=True,
)
_reason = click.option("--reason", metavar="WORD", help="Only what has this reason.")


def _limit(default: int) -> Callable[[F], F]:
    return click.option(
        "--limit", type=click.IntRange(1, 10_000), default=default, show_default=True
    )


@click.group()
def quarantine() -> None:
    """Look at what was refused, and store it after all."""


@quarantine.command("list")
@json_option
@config_option
def list_(config: Config, as_json: bool) -> None:
    """Show the causes: how many events, since when, under which builds."""
    if telephone.runs(config):
        causes = telephone.ask(config, "quarantine.list")["causes"]
    else:
        causes = _alone(config, lambda file: file.causes())
    if as_json:
        print_json(causes)
        return
    for cause in causes:
        what = " ".join(filter(None, (cause["outcome"], cause["reason"], cause["event_type"])))
        builds = ", ".join(cause["builds"])
        click.echo(
            f"{cause['count']:>8}  {what}: {cause['cause']} (last {cause['last_at']}; {builds})"
        )
    if not causes:
        click.echo("the quarantine is empty")


@quarantine.command()
@_outcome
@_reason
@_limit(10)
@config_option
def show(config: Config, outcome: str, reason: str | None, limit: int) -> None:
    """Print events as they were kept. They may hold what nobody should see: mind the screen."""
    from mlc_broker.model.batch import Outcome

    if telephone.runs(config):
        kept = telephone.ask(config, "quarantine.show", outcome=outcome, reason=reason, limit=limit)
    else:
        kept = _alone(
            config, lambda file: file.read(outcome=Outcome(outcome), reason=reason, limit=limit)
        )
    print_json(kept)


@quarantine.command()
@_outcome
@_reason
@_limit(1000)
@config_option
def replay(config: Config, outcome: str, reason: str | None, limit: int) -> None:
    """Send events through the whole chain again; twice stores nothing twice."""
    if not telephone.runs(config):
        raise BrokerError("a replay goes through the daemon's chain: start it, then ask again")
    told = telephone.ask(
        config,
        "quarantine.replay",
        seconds_max=600.0,
        outcome=outcome,
        reason=reason,
        limit=limit,
    )
    rest = ", ".join(
        f"{count} {word}" for word, count in told.items() if word != "replayed" and count
    )
    click.echo(f"replayed {told['replayed']}{': ' + rest if rest else ''}")


def _alone(config: Config, read: Any) -> Any:
    from mlc_broker.cli.caring_offline import open_quarantine

    file = open_quarantine(config)
    try:
        return msgspec.to_builtins(read(file))
    finally:
        file.close()
