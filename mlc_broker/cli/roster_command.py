"""`mlc-broker roster`: people and places, from a file. A daemon may run: it sees the change."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mlc_broker.cli.common import FAILED, OK, config_option, json_option, print_json, say
from mlc_broker.config import Config
from mlc_broker.runtime.clock import SystemClock


@click.group()
def roster() -> None:
    """Load organizations, people, classes and enrolments."""


@roster.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--org", metavar="ORG", help="The organization to load into. Default: the file's.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and change nothing.")
@json_option
@config_option
def import_(config: Config, file: Path, org: str | None, dry_run: bool, as_json: bool) -> int:
    """Load a OneRoster 1.1 or 1.2 CSV zip, or a JSON file of records.

    Rows that cannot be loaded are told with file, line and reason, and the rest are loaded, all
    at once. Exit status 1 when there was nothing to load but bad rows.
    """
    from mlc_broker.store.roster import Roster
    from mlc_broker.store.roster_import import import_file

    people = Roster(config.data_path / "roster.db", clock=SystemClock())
    people.open()
    try:
        report = import_file(file, people, _progress, organization_id=org, dry_run=dry_run)
    finally:
        people.close()
    if as_json:
        print_json(report)
    for row in () if as_json else report.rejected:
        say(f"{row.file}:{row.line}: {row.reason}")
    if report.rejected_total > len(report.rejected) and not as_json:
        say(f"… and {report.rejected_total - len(report.rejected)} rows more.")
    for warning in () if as_json else report.warnings:
        say(f"note: {warning}")
    if not as_json:
        done = ", ".join(f"{count} {kind}" for kind, count in report.loaded.items())
        gone = "".join(f", {count} {kind} deleted" for kind, count in report.deleted.items())
        told = "would load" if dry_run else "loaded"
        click.echo(f"{told} {done or 'nothing'}{gone}; {report.rejected_total} rejected")
    return FAILED if report.rejected_total and not any(report.loaded.values()) else OK


def _progress(what: str, done: int) -> None:
    if sys.stderr.isatty():
        say(f"{what}: {done}")
