"""A PostgreSQL of our own in a directory: fsync on, reasonable memory, loopback only."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, LiteralString

from tests.benchmarks import processes
from tests.benchmarks.contestants import ROOT, Missing, python

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "lz4",
    "wal_buffers": "64MB",
    "effective_cache_size": "4GB",
    "maintenance_work_mem": "512MB",
    "random_page_cost": "1.1",
    "max_connections": "64",
}


class Cluster:
    """`start` makes it where it is not; `fill` and `copy` write to its table of events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = processes.free_port()
        self.dsn = f"postgresql://bench@127.0.0.1:{self.port}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        self._user = _other_user()

    def start(self) -> None:
        """Make the cluster and the table, and listen; raises Missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data, binaries = self.folder / "pg", _binaries()
        if self._user is not None:
            shutil.chown(self.folder, self._user)
            for parent in self.folder.parents:
                mode = parent.stat().st_mode
                if parent.stat().st_uid == os.getuid() and not mode & 0o001:
                    parent.chmod(mode | 0o011)  # it must pass through, not look
        if not data.exists():
            self._run([str(binaries / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust"])
        options = [f"--{key}={value}" for key, value in SETTINGS.items()]
        log = self.folder / "log.txt"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(data), "-p", str(self.port), "-k", "", *options],
                stdout=out, stderr=out, user=self._user, cwd=self.folder,
            )  # fmt: skip
        try:
            processes.wait_for_port(self.port, self.process, log)
        except RuntimeError as error:
            raise Missing(str(error)) from error
        self._make()

    def fill(self, rows: int) -> None:
        """Copy rows in without indexes, then build the indexes and let it settle."""
        self._tell(*(f"DROP INDEX IF EXISTS {name}" for name in _names()))
        self.copy(0.0, rows)
        self._make()
        self._tell("VACUUM ANALYZE events", "CHECKPOINT")

    def copy(self, seconds: float, rows: int = 0) -> dict[str, Any]:
        """COPY for so long, or so many rows; return the rate."""
        words = [self.dsn, str(seconds), *([str(rows)] if rows else [])]
        done = subprocess.run(
            python("tests.benchmarks.rivals.bare_copy", *words),
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def size_bytes(self) -> int:
        """The table with its indexes."""
        return self._ask("SELECT pg_total_relation_size('events')")

    def count(self) -> int:
        """How many rows it has."""
        return self._ask("SELECT count(*) FROM events")

    def stop(self) -> None:
        processes.end(self.process, signal.SIGINT)  # SIGINT: it does not wait for its clients
        self.process = None

    @property
    def pids(self) -> list[int]:
        return [self.process.pid] if self.process else []

    def _ask(self, question: LiteralString) -> int:
        import psycopg

        with psycopg.connect(self.dsn) as connection:
            found = connection.execute(question).fetchone()
        return int(found[0]) if found else 0

    def _make(self) -> None:
        from tests.benchmarks.rivals.postgres_store import INDEXES, TABLE

        self._tell(TABLE, *INDEXES)

    def _tell(self, *statements: str) -> None:
        import psycopg

        for attempt in range(100):  # it listens before it takes connections
            try:
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    for statement in statements:
                        connection.execute(statement)
            except psycopg.OperationalError:
                if attempt == 99:
                    raise
                time.sleep(0.1)
            else:
                return

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, user=self._user, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Missing(f"initdb: {done.stderr[-500:]}")


def _names() -> list[str]:
    from tests.benchmarks.rivals.postgres_store import INDEXES

    return [statement.split()[statement.split().index("ON") - 1] for statement in INDEXES]


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if not found and not on_path:
        raise Missing("PostgreSQL is not installed")
    return (found[-1] if found else Path(on_path or "")).parent


def _other_user() -> str | None:
    """PostgreSQL does not run as root: then as `postgres` or `nobody`."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
