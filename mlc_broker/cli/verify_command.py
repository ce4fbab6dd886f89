"""`mlc-broker verify`: every stored byte against its checksum, and the access log's chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mlc_broker.cli.common import FAILED, config_option, json_option, print_json, say
from mlc_broker.config import Config

Check = Callable[[Config], dict[str, Any]]  # counts, and `faults`: what is wrong


@click.command()
@click.option("--head", metavar="NUMBER:SEAL", help="The log's head as noted elsewhere before.")
@click.option("--metrics", is_flag=True, help="Count all stored events anew, and compare.")
@click.option("--rebuild", is_flag=True, help="With --metrics: put the recount in their place.")
@json_option
@config_option
def verify(config: Config, head: str | None, metrics: bool, rebuild: bool, as_json: bool) -> int:
    """Check all packs and the access log, beside the daemon or without; exit status 1 on damage.

    Note the head that is printed somewhere else: with `--head` it proves later that nobody took
    the whole log back to an older copy.
    """
    if rebuild and not metrics:
        raise click.UsageError("--rebuild goes with --metrics")
    found: dict[str, Any] = {name: check(config) for name, check in CHECKS.items()}
    if metrics:
        from mlc_broker.cli.verify_metrics import check_metrics

        found["metrics"] = check_metrics(config, rebuild=rebuild)
    if head is not None:
        found["access log"]["faults"] += _head_faults(config, head)
    faults = [f"{name}: {fault}" for name, told in found.items() for fault in told["faults"]]
    if as_json:
        print_json(found)
    else:
        for name, told in found.items():
            counts = ", ".join(f"{v} {k}" for k, v in told.items() if k != "faults")
            click.echo(f"{name}: {counts}")
        for fault in faults:
            click.echo(f"DAMAGED {fault}")
        say("all is as it was written" if not faults else f"{len(faults)} faults")
    return FAILED if faults else 0


def check_packs(config: Config) -> dict[str, Any]:
    """Check every pack of every file."""
    from mlc_broker.store.walk import verify_directory

    report = verify_directory(config.data_path)
    return {
        "files": report.files,
        "packs": report.packs,
        "events": report.events,
        "faults": report.damaged,
    }


def check_access_log(config: Config) -> dict[str, Any]:
    """Follow the access log's chain."""
    from mlc_broker.config_files import read_secret
    from mlc_broker.store.audit import verify as follow
    from mlc_broker.telling import AUDIT, AUDIT_KEY

    path = config.data_path / AUDIT
    if not path.exists():
        return {"entries": 0, "faults": []}
    verdict = follow(path, read_secret(config.secret_path(AUDIT_KEY)))
    return {"entries": verdict.entries, "head": verdict.head, "faults": verdict.faults}


CHECKS: dict[str, Check] = {"packs": check_packs, "access log": check_access_log}


def _head_faults(config: Config, head: str) -> list[str]:
    from mlc_broker.store.audit import seal_at
    from mlc_broker.telling import AUDIT

    number, _, seal = head.partition(":")
    if not number.isdigit():
        raise click.UsageError("--head is NUMBER:SEAL, as `verify` printed it")
    if seal_at(config.data_path / AUDIT, int(number)) == seal:
        return []
    return [f"entry {number} is not the one noted elsewhere: the log was replaced or cut"]
