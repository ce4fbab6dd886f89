"""`isolation = "process"`: a plugin in a process of its own, killed when it takes too much.

The parent's end looks like any processor. Only the plugin's own settings, the events, and the
people that it asks for cross the pipe; the child's environment holds no secret. It is a limit for
memory and time, and a wall around crashes; it is no other user, and may read what we may read.
"""

from __future__ import annotations

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
from mlc_broker.runtime.child import Child, ChildEnded

START_SECONDS_MAX = 8.0
_OUT_OF_MEMORY = 71


class Caged(Processor):
    """A plugin as its process shows it. It is started again at the next batch after its death."""

    name = "caged"

    def __init__(self, begin: Begin, tools: Tools) -> None:
        super().__init__(begin, tools)
        self._begin = begin
        self.seconds_max = begin.seconds_max  # of one batch; a start is not part of it
        self._child: Child | None = None
        self.child_seconds = 0.0  # of work, measured in there

    async def open(self) -> None:
        """Start the process; PluginLoadError when the plugin does not load in there."""
        await self._kill()
        self._child = await Child.start("mlc_broker.pipeline.cage")
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
        if self._child is None or not self._child.lives:
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
        assert self._child is not None
        try:
            await self._child.give(frames.encode(value))
        except ChildEnded as ended:
            raise self._failed(ended) from ended

    async def _take(self) -> ToParent:
        assert self._child is not None
        try:
            word: ToParent = frames.to_parent.decode(await self._child.take())
        except ChildEnded as ended:
            raise self._failed(ended) from ended
        except msgspec.MsgspecError as error:
            raise ProcessorFailed(f"it said nonsense: {error}") from error
        return word

    def _failed(self, ended: ChildEnded) -> ProcessorFailed:
        if ended.status == _OUT_OF_MEMORY:
            mebibytes = self._begin.memory_bytes_max // 1024**2
            told = f"out of memory: its process may take {mebibytes} MiB (memory_bytes_max)"
            return ProcessorFailed(told)
        return ProcessorFailed(str(ended))

    async def _kill(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.kill()


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
