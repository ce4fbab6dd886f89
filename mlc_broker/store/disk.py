"""Room on the disk: what says no before it is full, and the ballast that is given up when it is.

A full disk stops more than commits: SQLite cannot even open a file with a WAL, cannot checkpoint,
cannot purge. So a file of ballast lies in the data directory; when somebody else fills the disk it
is given up, and only what makes room may use its place: events are answered `retry` until there is
room for the ballast again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

BALLAST = "ballast"
_GIVE_UP_SHARE = 4  # the ballast goes when less than this part of it is free besides
_MIB = 1024 * 1024


def free_bytes_of(directory: Path) -> int:
    """Return what we may still write there, in bytes; OSError when the disk does not answer."""
    told = os.statvfs(directory)
    return told.f_bavail * told.f_frsize


class Disk:
    """Sync, thread-side; `low` may be read anywhere."""

    def __init__(
        self,
        directory: Path,
        *,
        free_bytes_min: int = 0,
        ballast_bytes: int = 0,
        free_bytes: Callable[[Path], int] = free_bytes_of,
    ) -> None:
        self.low = ""  # why no events are taken, and what to do; empty: there is room
        self._directory = directory
        self._path = directory / BALLAST
        self._free_bytes_min = free_bytes_min
        self._ballast_bytes = ballast_bytes
        self._free_bytes = free_bytes

    def look(self) -> None:
        """See how much room there is; give the ballast up or make it anew."""
        try:
            self.low = self._look()
        except OSError as error:
            self.low = (
                f"the data directory does not answer: {error.strerror}; "
                "look at the disk and its permissions"
            )

    def _look(self) -> str:
        free, held = self._free_bytes(self._directory), self._held_bytes()
        wanted = self._ballast_bytes
        if held and (held != wanted or free < wanted // _GIVE_UP_SHARE):
            self._path.unlink()
        elif not held and wanted and free >= self._free_bytes_min + wanted:
            self._make()
        else:
            return self._told(free, held)
        return self._told(self._free_bytes(self._directory), self._held_bytes())

    def _told(self, free: int, held: int) -> str:
        # Without the ballast its place has to be free too: what is given up comes back first.
        if free + held >= self._free_bytes_min + self._ballast_bytes:
            return ""
        missing = self._free_bytes_min + self._ballast_bytes - free - held
        return (
            f"the disk is nearly full: {_mib(free)} free where {self._directory.name!r} is; make "
            f"{_mib(missing)} of room, or lower [storage] free_bytes_min and ballast_bytes"
        )

    def _held_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _make(self) -> None:
        handle = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, self._ballast_bytes)
        except OSError:  # somebody was quicker, or this file system cannot: next time
            self._path.unlink()
        finally:
            os.close(handle)


def _mib(count: int) -> str:
    return f"{count / _MIB:.1f} MiB"
