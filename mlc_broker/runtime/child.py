"""A process of ours beside the daemon: frames through its standard input and output.

A frame is four bytes of length, then as many of whatever the two agree on. What the process prints
goes to standard error; it gets nothing of the daemon's environment but its way to our package.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import Self

import trio

FRAME_BYTES_MAX = 64 * 1024**2
LENGTH = struct.Struct(">I")
_END_SECONDS_MAX = 1.0
_HANDED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")


class ChildEnded(Exception):
    """Nothing more comes from the process. `status`: how it ended; None where it still lives."""

    def __init__(self, status: int | None, why: str = "") -> None:
        super().__init__(why or how_it_ended(status))
        self.status = status
        self.why = why  # what it did wrong, where it did not simply end


class Child:
    """The daemon's end: one frame at a time, each way."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, module: str) -> Self:
        """Run one of our modules in a process of its own. Raises OSError."""
        environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,  # a Ctrl-C at the terminal is for the daemon
        )
        return cls(process)

    @property
    def lives(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    async def give(self, body: bytes) -> None:
        """Send a frame. Raises ChildEnded, and ValueError over FRAME_BYTES_MAX."""
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(framed(body))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise await self._ended() from error

    async def take(self) -> bytes:
        """Return the next frame's body. Raises ChildEnded."""
        (length,) = LENGTH.unpack(await self._bytes(LENGTH.size))
        if length > FRAME_BYTES_MAX:
            told = f"it answered {length} bytes; {FRAME_BYTES_MAX} is the most"
            raise ChildEnded(self._process.poll(), told)
        return await self._bytes(length)

    async def wait(self) -> None:
        """Wait for the end of the process."""
        await self._process.wait()

    async def kill(self) -> None:
        """End the process now, whatever it does."""
        process = self._process
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await trio.aclose_forcefully(stream)

    async def _bytes(self, count: int) -> bytes:
        assert self._process.stdout is not None
        taken = bytearray()
        while len(taken) < count:
            try:
                part = await self._process.stdout.receive_some(count - len(taken))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                part = b""
            if not part:
                raise await self._ended()
            taken += part
        return bytes(taken)

    async def _ended(self) -> ChildEnded:
        with trio.move_on_after(_END_SECONDS_MAX):
            await self._process.wait()
        return ChildEnded(self._process.returncode)


class Pipe:
    """The process's end, blocking: it has nothing else to wait for."""

    def __init__(self) -> None:
        """Take over standard input and output; what is printed from now on goes to stderr."""
        self._source, self._target = os.dup(0), os.dup(1)
        os.dup2(2, 1)

    def take(self) -> bytes | None:
        """Return the next frame's body, or None when the daemon has gone."""
        head = self._bytes(LENGTH.size)
        if head is None:
            return None
        (length,) = LENGTH.unpack(head)
        return self._bytes(length) if length <= FRAME_BYTES_MAX else None

    def give(self, body: bytes) -> None:
        """Send a frame."""
        left = memoryview(framed(body))
        while left:
            left = left[os.write(self._target, left) :]

    def _bytes(self, count: int) -> bytes | None:
        taken = bytearray()
        while len(taken) < count:
            part = os.read(self._source, min(count - len(taken), 65_536))
            if not part:
                return None
            taken += part
        return bytes(taken)


def framed(body: bytes) -> bytes:
    """Return a frame. ValueError over FRAME_BYTES_MAX."""
    if len(body) > FRAME_BYTES_MAX:
        msg = f"{len(body)} bytes for the pipe; {FRAME_BYTES_MAX} is the most"
        raise ValueError(msg)
    return LENGTH.pack(len(body)) + body


def how_it_ended(status: int | None) -> str:
    """Say in words how a process ended; None: it has not, but closed its pipe."""
    match status:
        case None:
            return "its process closed the pipe"
        case _ if status < 0:
            return f"its process was ended by signal {-status}"
        case _:
            return f"its process ended with status {status}"
