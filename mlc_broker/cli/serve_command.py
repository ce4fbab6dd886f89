"""`mlc-broker serve`: the daemon, in the foreground."""

from __future__ import annotations

import sys

import click
import trio

from mlc_broker.cli.common import config_option
from mlc_broker.config import Config


@click.command()
@click.option(
    "--dev", is_flag=True, help="Throw-away secrets and a demo organization; loopback only."
)
@config_option
def serve(config: Config, dev: bool) -> int:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reloads."""
    from mlc_broker.broker import Broker
    from mlc_broker.dev import prepare
    from mlc_broker.runtime.log import set_up

    set_up()
    sys.setswitchinterval(
        0.0005
    )  # s: a commit waits for the interpreter four times; 2 ms each is felt
    guests = prepare(config) if dev else None
    if guests is not None:
        config = guests.config
        print(guests.text, flush=True)
    broker = Broker(config, dev=guests)
    trio.run(broker.run, lambda line: print(line, flush=True))
    return 0
