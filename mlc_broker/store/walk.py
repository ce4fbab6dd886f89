"""A walk over all packs of a directory from outside: beside a daemon, harming nothing."""

from __future__ import annotations

from pathlib import Path

from mlc_broker.model.errors import StoreError
from mlc_broker.store.layout import META, Home, home_path, hot_path
from mlc_broker.store.schema import open_reader, sqlite3
from mlc_broker.store.upkeep import Report, verify_file


def verify_directory(directory: Path) -> Report:
    """Check every pack of every file that is in force. Raises StoreError."""
    report = Report()
    for path in _files(directory):
        before = len(report.damaged)
        verify_file(path, report)
        if len(report.damaged) > before and path not in _files(directory):
            del report.damaged[before:]  # it was sealed, merged or expired meanwhile
    return report


def _files(directory: Path) -> list[Path]:
    meta = directory / META
    if not meta.exists():
        raise StoreError(f"{directory} is no data directory: there is no {META}")
    connection = open_reader(meta)
    try:
        hot = connection.execute("SELECT number, state FROM hot ORDER BY number").fetchall()
        homes = connection.execute("SELECT path, version FROM home ORDER BY path").fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"{META} cannot be read: {error}") from error
    finally:
        connection.close()
    found = [hot_path(directory, number) for number, state in hot if state != "corrupt"]
    return found + [home_path(directory, Home.of_path(path), v) for path, v in homes]
