"""`mlc-broker doctor`: what is wrong with this machine, and how to mend it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import click
from sqlite_utils.utils import sqlite3

from mlc_broker._version import __version__
from mlc_broker.cli.common import OK, UNAVAILABLE, config_option, json_option, print_json
from mlc_broker.config import Config, address

# SQLite before this can damage a WAL that is reset while another connection checkpoints.
_WAL_RESET_MENDED = (3, 51, 3)
_OPEN_FILES_SPARE = 256
_CLOCK_BUILT_AFTER = 1_735_689_600  # 2025-01-01: an earlier clock has lost its battery
_MIB = 1024**2


class Finding(NamedTuple):
    """One check: `bad` keeps the daemon from working, `warn` will hurt one day."""

    state: Literal["ok", "warn", "bad"]
    what: str
    mend: str = ""


@click.command()
@json_option
@config_option
def doctor(config: Config, as_json: bool) -> None:
    """Examine the machine: versions, disk, rights, ports, clock, limits.

    Exit status 69 when something keeps the daemon from working.
    """
    findings = [finding for check in CHECKS for finding in check(config)]
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.state:<4}  {finding.what}")
            if finding.mend:
                click.echo(f"      → {finding.mend}")
    broken = any(finding.state == "bad" for finding in findings)
    raise click.exceptions.Exit(UNAVAILABLE if broken else OK)


def check_versions(_config: Config) -> Iterator[Finding]:
    """Python and ourselves."""
    yield Finding("ok", f"mlc-broker {__version__}, Python {platform.python_version()}")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("warn", "this Python was never tried", "use Python 3.11 to 3.13")


def check_sqlite(_config: Config) -> Iterator[Finding]:
    """The SQLite library, and its WAL-reset bug."""
    found = str(sqlite3.sqlite_version)
    version = tuple(int(part) for part in found.split("."))
    if version < _WAL_RESET_MENDED:
        yield Finding(
            "warn",
            f"SQLite {found} has the WAL-reset bug: the daemon keeps clear of it, other programs "
            "on the same files may not",
            "pip install pysqlite3, and leave the data directory to the daemon",
        )
    else:
        yield Finding("ok", f"SQLite {found} ({sqlite3.__name__})")


def check_config_file(config: Config) -> Iterator[Finding]:
    """The file itself was checked by being loaded."""
    yield Finding("ok", f"{config.file}: good")


def check_disk(config: Config) -> Iterator[Finding]:
    """Free space where the data is."""
    place = _existing(config.data_path)
    free, needed = shutil.disk_usage(place).free, config.storage.free_bytes_min
    if free < needed:
        yield Finding(
            "bad",
            f"{place}: {free // _MIB} MiB free, under [storage] free_bytes_min: events get `retry`",
            "make room, or `mlc-broker purge`; systemd/README.md, 'The disk is full'",
        )
    elif free < 10 * needed:
        yield Finding("warn", f"{place}: {free // _MIB} MiB free", "make room soon")
    else:
        yield Finding("ok", f"{place}: {free // _MIB} MiB free")


def check_rights(config: Config) -> Iterator[Finding]:
    """Secrets are the owner's alone; the data directory can be written."""
    names = (config.auth.secret_file, config.auth.pepper_file, config.privacy.pseudonym_key_file)
    for path in map(config.secret_path, names):
        if not path.exists():
            yield Finding("ok", f"{path}: is made at the first start")
        elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield Finding("warn", f"{path}: others can read this secret", f"chmod 600 {path}")
        else:
            yield Finding("ok", f"{path}: the owner's alone")
    place = _existing(config.data_path)
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("bad", f"{place}: cannot be written", "chown it to the daemon's user")


def check_ports(config: Config) -> Iterator[Finding]:
    """Both listeners can be opened, or something is there already."""
    for name, listen in (("http", config.http.listen), ("websocket", config.websocket.listen)):
        host, port = address(listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            yield Finding(
                "warn",
                f"[{name}] {listen}: {error.strerror}",
                "fine if this is our daemon (`systemctl status mlc-broker`); else `ss -ltnp` shows "
                "who has the port",
            )
        else:
            yield Finding("ok", f"[{name}] {listen}: free")


def check_clock(_config: Config) -> Iterator[Finding]:
    """A wrong clock rejects good events."""
    if time.time() < _CLOCK_BUILT_AFTER:
        yield Finding("bad", f"the clock says {time.ctime()}", "timedatectl set-ntp true")
    else:
        yield Finding("ok", f"the clock says {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}")


def check_open_files(config: Config) -> Iterator[Finding]:
    """A descriptor a connection and a file, and some to spare."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = (
        config.http.connections_max
        + config.websocket.connections_max
        + config.storage.open_files_max * 3
        + _OPEN_FILES_SPARE
    )
    if limit < needed:
        yield Finding(
            "warn",
            f"{limit} open files are allowed, {needed} may be needed",
            f"LimitNOFILE={needed} in the unit, `ulimit -n {needed}` in a shell, or lower "
            "connections_max",
        )
    else:
        yield Finding("ok", f"{limit} open files are allowed")


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    check_versions,
    check_sqlite,
    check_config_file,
    check_disk,
    check_rights,
    check_ports,
    check_clock,
    check_open_files,
)


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())
