"""`isolation = "process"`: a plugin in a process of its own, killed when it takes too much.

The parent's end looks like any processor. Only the plugin's own settings, the events, and the
people that it asks for cross the pipe; the child's environment holds no secret. It is a limit for
memory and time, and a wall around crashes; it is no other user, and may read what we may read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from mlc_broker.model.errors import PluginLoadError, ProcessorFailed
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline import frames
from mlc_broker.pipeline.derive import turn
from mlc_broker.pipeline.frames import Ask, Begin, Failed, Found, Ready, ToChild, ToParent, Verdicts
from mlc_broker.pipeline.ports import Roster
from mlc_broker.pipeline.processor import Processor, Tools

START_SECONDS_MAX = 8.0
_END_SECONDS_MAX = 1.0
_HANDED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")


class Caged(Processor):
    """A plugin as its process shows it. It is started again at the next batch after its death."""

    name = "caged"

    def __init__(self, begin: Begin, tools: Tools) -> None:
        super().__init__(begin, tools)
        self._begin = begin
        self.seconds_max = begin.seconds_max  # of one batch; a start is not part of it
        self._child: trio.Process | None = None
        self.child_seconds = 0.0  # of work, measured in there

    async def open(self) -> None:
        """Start the process; PluginLoadError when the plugin does not load in there."""
        await self._kill()
        self._child = await _start()
        done = False
        try:
            with trio.fail_after(START_SECONDS_MAX):
                await self._give(self._begin)
                answer = await self._take()
            done = isinstance(answer, Ready)
        except ProcessorFailed as error:
            raise PluginLoadError(str(error)) from error
        finally:
            if not done:
                await self._kill()
        if not done:
            raise PluginLoadError(answer.what if isinstance(answer, Failed) else "it said nonsense")

    async def close(self) -> None:
        """Let the plugin close, and end its process."""
        child = self._child
        if child is None:
            return
        try:
            with trio.move_on_after(self._begin.seconds_max):
                await self._give(frames.Bye())
                await child.wait()
        except ProcessorFailed:
            pass  # it has ended already
        finally:
            await self._kill()

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return the verdicts of the plugin; whoever waits no longer kills it."""
        if self._child is None or self._child.poll() is not None:
            await self.open()
        done = False
        try:
            with trio.fail_after(self.seconds_max):
                answer = await self._ask(events)
            done = True
        finally:
            if not done:  # it is in the middle of something: nothing it says would fit
                await self._kill()
        if isinstance(answer, Failed):
            raise ProcessorFailed(answer.what)
        self.child_seconds += answer.seconds
        for number, parcel in answer.emitted:
            turn(number)
            self.tools.emit(parcel.event())
        return frames.verdicts_of(events, answer.words)

    async def _ask(self, events: Sequence[Event]) -> Verdicts | Failed:
        await self._give(frames.Work([frames.Parcel.of(event) for event in events]))
        while True:
            answer = await self._take()
            if isinstance(answer, Verdicts | Failed):
                return answer
            if isinstance(answer, Ready):
                raise ProcessorFailed("it said nonsense")
            await self._give(found(self.tools.roster, answer))

    async def _give(self, value: ToChild) -> None:
        assert self._child is not None and self._child.stdin is not None  # noqa: PT018
        try:
            await self._child.stdin.send_all(frames.frame(value))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ProcessorFailed(await self._how_it_ended()) from error

    async def _take(self) -> ToParent:
        (length,) = frames.LENGTH.unpack(await self._bytes(frames.LENGTH.size))
        if length > frames.FRAME_BYTES_MAX:
            raise ProcessorFailed(
                f"it answered {length} bytes; {frames.FRAME_BYTES_MAX} is the most"
            )
        body = await self._bytes(length)
        try:
            word: ToParent = frames.to_parent.decode(body)
        except msgspec.MsgspecError as error:
            raise ProcessorFailed(f"it said nonsense: {error}") from error
        return word

    async def _bytes(self, count: int) -> bytes:
        assert self._child is not None and self._child.stdout is not None  # noqa: PT018
        taken = bytearray()
        while len(taken) < count:
            try:
                part = await self._child.stdout.receive_some(count - len(taken))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                part = b""
            if not part:
                raise ProcessorFailed(await self._how_it_ended())
            taken += part
        return bytes(taken)

    async def _how_it_ended(self) -> str:
        child = self._child
        if child is None:
            return "its process was ended"
        with trio.move_on_after(_END_SECONDS_MAX):
            await child.wait()
        return _in_words(child.returncode, self._begin.memory_bytes_max)

    async def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with trio.CancelScope(shield=True):
            if child.returncode is None:
                child.kill()
            await child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    await trio.aclose_forcefully(stream)


def caged(
    *,
    name: str,
    source: str,
    module: str,
    settings: Any,
    seconds_max: float,
    memory_bytes_max: int,
    tools: Tools,
    types_path: Path | None = None,
) -> Caged:
    """Return the processor that stands for a plugin in a process. `source`: its file, if it has."""
    file = str(Path(source).absolute()) if source.endswith(".py") else ""
    types = str(types_path.absolute()) if types_path is not None and types_path.is_dir() else ""
    begin = Begin(
        file=file,
        module=module,
        kind=name,
        settings=msgspec.to_builtins(settings),
        seconds_max=seconds_max,
        memory_bytes_max=memory_bytes_max,
        types_path=types,
        seed=tools.random.randrange(2**32),
    )
    return Caged(begin, tools)


def found(roster: Roster, asked: Ask) -> Found:
    """Return the roster's answer to a question from the pipe."""
    organization_id, user_id = asked.organization_id, asked.user_id
    match asked.what:
        case "organization":
            return Found(organization=roster.organization(organization_id))
        case "user":
            return Found(user=roster.user(organization_id, user_id))
        case "membership" if asked.at is not None:
            class_ids, teacher_ids = roster.membership(organization_id, user_id, asked.at)
            return Found(class_ids=class_ids, teacher_ids=teacher_ids)
        case "collects":
            return Found(yes=roster.collects(organization_id, user_id, asked.category))
        case "erased" if asked.at is not None:
            return Found(yes=roster.erased(organization_id, user_id, asked.at))
    raise ProcessorFailed(f"it asked the roster for {asked.what!r}, which it has not")


async def _start() -> trio.Process:
    environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    # Its own way to our package, wherever we were started; nothing of the daemon's environment.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", "mlc_broker.pipeline.cage"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,  # a Ctrl-C at the terminal is for the daemon
    )


def _in_words(status: int | None, memory_bytes_max: int) -> str:
    match status:
        case None:
            return "its process closed the pipe"
        case 71:
            mebibytes = memory_bytes_max // 1024**2
            return f"out of memory: its process may take {mebibytes} MiB (memory_bytes_max)"
        case _ if status < 0:
            return f"its process was ended by signal {-status}"
        case _:
            return f"its process ended with status {status}"
