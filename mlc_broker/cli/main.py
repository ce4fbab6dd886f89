"""`mlc-broker`: the list of commands, and the last barrier behind which no traceback passes.

To add a command, write `cli/<name>_command.py` and a line in COMMANDS. A command whose module does
not exist is not listed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from mlc_broker._version import __version__
from mlc_broker.cli.common import OK, explain

COMMANDS: dict[str, str] = {
    "init": "mlc_broker.cli.init_command:init",
    "serve": "mlc_broker.cli.serve_command:serve",
    "check": "mlc_broker.cli.check_command:check",
    "test": "mlc_broker.cli.test_command:test",
    "demo": "mlc_broker.cli.demo_command:demo",
    "simulate": "mlc_broker.cli.simulate_command:simulate",
    "keys": "mlc_broker.cli.keys_command:keys",
    "token": "mlc_broker.cli.token_command:token",
    "roster": "mlc_broker.cli.roster_command:roster",
    "policy": "mlc_broker.cli.policy_command:policy",
    "purge": "mlc_broker.cli.purge_command:purge",
    "hold": "mlc_broker.cli.hold_command:hold",
    "disclosures": "mlc_broker.cli.disclosures_command:disclosures",
    "erase": "mlc_broker.cli.erase_command:erase",
    "export": "mlc_broker.cli.export_command:export",
    "sql": "mlc_broker.cli.sql_command:sql",
    "backup": "mlc_broker.cli.backup_command:backup",
    "restore": "mlc_broker.cli.restore_command:restore",
    "verify": "mlc_broker.cli.verify_command:verify",
    "tail": "mlc_broker.cli.tail_command:tail",
    "top": "mlc_broker.cli.top_command:top",
    "quarantine": "mlc_broker.cli.quarantine_command:quarantine",
    "plugins": "mlc_broker.cli.plugins_command:plugins",
    "bench": "mlc_broker.cli.bench_command:bench",
    "conformance": "mlc_broker.cli.conformance_command:conformance",
    "doctor": "mlc_broker.cli.doctor_command:doctor",
}


class Commands(click.Group):
    """A group that imports a command when it is asked for, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click asks so)
        """Return the commands that exist, in the order of COMMANDS."""
        return [name for name in COMMANDS if _exists(name)]

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 (click asks so)
        cmd_name: str,
    ) -> click.Command | None:
        """Return the command, or None where there is none of this name."""
        if cmd_name not in COMMANDS or not _exists(cmd_name):
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        return command if isinstance(command, click.Command) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlc-broker")
def cli() -> None:
    """Take the events of a learning platform, keep them safe, tell those who may know."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 64 usage, 69 unavailable, 73 in use, 78 configuration."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; return its exit status, after one line on stderr where it failed."""
    try:
        status = cli.main(args=list(arguments), prog_name="mlc-broker", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 (the last barrier)
        if environ.get("MLC_DEBUG"):
            traceback.print_exc()
        code, lines = explain(error)
        for line in lines:
            _say(f"mlc-broker: {line}")
        if isinstance(error, BrokenPipeError):  # `mlc-broker export | head`: nothing to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code
    return status if isinstance(status, int) else OK


def _say(line: str) -> None:
    try:
        click.echo(line, err=True)
    except OSError:  # whoever listened has gone
        return


def _exists(name: str) -> bool:
    return importlib.util.find_spec(COMMANDS[name].partition(":")[0]) is not None


if __name__ == "__main__":
    main()
