"""Which plugins have hung the process, on disk: the second time, one starts disabled."""

from __future__ import annotations

import mmap
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

HANGS_BEFORE_DISABLED = 2
SLOT_BYTES = 128
_ENTRIES_MAX = 100


class Hang(Struct, frozen=True, kw_only=True):
    """How often a plugin hung, last when, and where its stack stood."""

    count: int
    at: str
    detail: str
    version: str = ""  # of its code: new code begins anew


class HangBook:
    """The file `plugins-hung.json` of the data directory. Small, written at a hang alone."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "plugins-hung.json"
        self._dump_path = directory / "plugins-hung.stacks"
        self._slot_path = directory / "plugins-running"
        self.versions: dict[str, str] = {}  # of the code now in force, by plugin

    def read(self) -> dict[str, Hang]:
        """Return the hangs by plugin; an unreadable file is an empty one."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Hang])
        except (OSError, msgspec.DecodeError):
            return {}

    def why_disabled(self, name: str) -> str:
        """Return why this plugin must not start, or nothing."""
        hang = self.read().get(name)
        if hang is None or hang.count < HANGS_BEFORE_DISABLED:
            return ""
        known = self.versions.get(name, "")
        if known and hang.version and known != hang.version:
            return ""  # its author has changed it
        return (
            f"it hung the daemon {hang.count} times, last at {hang.at}: {hang.detail}; mend it, "
            f"then `mlc-broker plugins enable {name}`"
        )

    def count(self, name: str, detail: str) -> None:
        """Write down one more hang; on disk when this returns."""
        hangs = self.read()
        before, version = hangs.get(name), self.versions.get(name, "")
        again = before is not None and before.version == version
        hangs[name] = Hang(
            count=before.count + 1 if before is not None and again else 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            detail=detail,
            version=version,
        )
        self._write(dict(list(hangs.items())[-_ENTRIES_MAX:]))

    def forget(self, name: str) -> bool:
        """Let a plugin start again; True when there was something to forget."""
        hangs = self.read()
        if name not in hangs:
            return False
        del hangs[name]
        self._write(hangs)
        return True

    def collect(self) -> str:
        """At start: count a hang that nobody could write down. Return its stacks, or nothing."""
        try:
            stacks = self._dump_path.read_text("utf-8", "replace")
            name = self._slot_path.read_bytes().partition(b"\0")[0].decode("utf-8", "replace")
        except OSError:
            return ""
        self._dump_path.unlink(missing_ok=True)
        if not stacks:
            return ""
        if name:
            self.count(name, f"{name} held the interpreter's lock and did not let go")
        return stacks

    def open_dump(self) -> tuple[IO[str], mmap.mmap]:
        """Open what faulthandler writes to, and the slot of the running plugin's name."""
        handle = os.open(self._slot_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.truncate(handle, SLOT_BYTES)
            slot = mmap.mmap(handle, SLOT_BYTES)
        finally:
            os.close(handle)
        return self._dump_path.open("w", encoding="utf-8"), slot

    def close_dump(self) -> None:
        """A good end: nothing hung."""
        self._dump_path.unlink(missing_ok=True)
        self._slot_path.unlink(missing_ok=True)

    def _write(self, hangs: dict[str, Hang]) -> None:
        text = msgspec.json.format(msgspec.json.encode(hangs), indent=1)
        beside = self._path.with_suffix(".new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
