"""Find a plugin that never lets go: dump the stacks, end the process, remember who it was.

Code that waits can be cancelled; code that computes for ever cannot. So a thread looks on. It
counts the time that one uninterrupted slice of a plugin takes, and ends the process (status 70)
when that is too long: systemd starts it anew. A plugin that holds the interpreter's lock, as a
regular expression may, stops this thread too; then faulthandler's own thread, which needs no lock,
ends the process (status 1), and the dump that it leaves is read at the next start.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import IO

from msgspec import Struct

from mlc_broker.pipeline.hangs import HangBook

EXIT_STATUS = 70
MARGIN_SECONDS = 1.0
_TICK_SECONDS = 0.1
_LOCKED_SECONDS = 15.0  # nothing that is well holds the interpreter's lock so long


class Who(Struct, frozen=True):
    """Whose code runs, and for how long it may without letting go."""

    name: str
    seconds_max: float


class Slices:
    """Which plugin has the processor just now. Written by the loop, read by the watchdog."""

    __slots__ = ("number", "slot", "who")

    def __init__(self) -> None:
        self.who: Who | None = None
        self.number = 0
        self.slot: mmap.mmap | None = None  # of a file: the name in it outlives the process

    def enter(self, who: Who) -> None:
        """A plugin's code begins to run."""
        self.number += 1
        self.who = who
        if self.slot is not None:
            name = who.name.encode()
            self.slot[: len(name) + 1] = name + b"\0"

    def leave(self) -> None:
        """It has let go."""
        self.who = None
        if self.slot is not None:
            self.slot[0] = 0


SLICES = Slices()  # one interpreter runs one thing at a time


class Watchdog:
    """The thread. `start` it when there are plugins; `stop` it before the process ends."""

    def __init__(
        self,
        book: HangBook,
        *,
        slices: Slices = SLICES,
        end: Callable[[int], object] = os._exit,
        out: IO[str] | None = None,
    ) -> None:
        self._book, self._slices, self._end = book, slices, end
        self._out = out or sys.stderr
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._dump: IO[str] | None = None

    def start(self) -> None:
        """Begin to look on; once is enough."""
        if self._thread is None:
            self._dump, self._slices.slot = self._book.open_dump()
            self._thread = threading.Thread(target=self._look_on, name="plugins", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look on no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(1.0)
        faulthandler.cancel_dump_traceback_later()
        if self._dump is not None:
            self._dump.close()
            slot, self._slices.slot = self._slices.slot, None
            if slot is not None:
                slot.close()
            self._book.close_dump()

    def _look_on(self) -> None:
        number, ticks, until_armed = -1, 0, 0
        while not self._stopping.wait(_TICK_SECONDS):
            who = self._slices.who
            if until_armed == 0:
                self._arm()
            until_armed = (until_armed + 1) % 10
            if who is None or self._slices.number != number:
                number, ticks = self._slices.number, 0
                continue
            # Ticks, not the clock: a process that was stopped for a minute has not hung.
            ticks += 1
            if ticks * _TICK_SECONDS > who.seconds_max + MARGIN_SECONDS:
                self._bark(who)
                return

    def _arm(self) -> None:
        """Put off the end by faulthandler."""
        assert self._dump is not None
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            faulthandler.dump_traceback_later(_LOCKED_SECONDS, exit=True, file=self._dump)

    def _bark(self, who: Who) -> None:
        words = f"{who.name} did not let go for {who.seconds_max + MARGIN_SECONDS:g} s"
        with contextlib.suppress(OSError, ValueError):
            print(f"plugin hangs: {words}; the stacks follow", file=self._out, flush=True)
            faulthandler.dump_traceback(self._out, all_threads=True)
        with contextlib.suppress(OSError):
            self._book.count(who.name, words)
        self._end(EXIT_STATUS)
