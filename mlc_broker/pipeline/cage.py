"""The other end of `isolation = "process"`: one plugin, alone in a process with a memory limit.

Started by pipeline/isolation.py. It reads frames from its standard input and answers on its
standard output; what the plugin prints goes to standard error. SIGALRM ends it, without any help
of Python's, when a batch takes far too long and nobody is left to kill it.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from datetime import datetime
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import trio

from mlc_broker.model.catalog import Catalog
from mlc_broker.model.custom import load_custom_types
from mlc_broker.model.errors import PluginLoadError
from mlc_broker.model.person import Organization, User
from mlc_broker.pipeline import derive
from mlc_broker.pipeline.contract import Contract, describe
from mlc_broker.pipeline.frames import (
    Ask,
    Begin,
    Bye,
    Failed,
    Found,
    Parcel,
    Ready,
    ToChild,
    Verdicts,
    Work,
    encode,
    to_child,
    words_of,
)
from mlc_broker.pipeline.plugin_files import load_file, processors_in
from mlc_broker.pipeline.processor import Processor, Tools
from mlc_broker.runtime.child import Pipe
from mlc_broker.runtime.clock import SystemClock

_ALARM_FACTOR = 3.0
_OUT_OF_MEMORY = 71
OPEN_SECONDS_MAX = 10.0


class FarRoster:
    """The daemon's roster, by the pipe: only who is asked for crosses it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def organization(self, organization_id: str) -> Organization | None:
        """Return the organization's record."""
        return self._ask(Ask("organization", organization_id)).organization

    def user(self, organization_id: str, user_id: str) -> User | None:
        """Return the person's record."""
        return self._ask(Ask("user", organization_id, user_id)).user

    def membership(
        self, organization_id: str, user_id: str, at: datetime
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the ids of the user's classes at that time, and of those who teach them."""
        found = self._ask(Ask("membership", organization_id, user_id, at=at))
        return found.class_ids, found.teacher_ids

    def collects(self, organization_id: str, user_id: str, category: str) -> bool:
        """Say whether events of this category may be collected about this person."""
        asked = Ask("collects", organization_id, user_id, category=category)
        return self._ask(asked).yes

    def erased(self, organization_id: str, user_id: str, at: datetime) -> bool:
        """Say whether an event of that time is of somebody who was erased since."""
        return self._ask(Ask("erased", organization_id, user_id, at=at)).yes

    def _ask(self, question: Ask) -> Found:
        self._pipe.give(encode(question))
        found = _next(self._pipe)
        if not isinstance(found, Found):
            os._exit(0)  # the daemon has gone
        return found


def main() -> None:
    """Run one plugin until the daemon says goodbye or goes."""
    pipe = Pipe()  # what a plugin prints must not get among the frames
    begin = _next(pipe)
    if isinstance(begin, Begin):
        trio.run(_serve, pipe, begin)


def _next(pipe: Pipe) -> ToChild | None:
    """Return the daemon's next word; None when it has gone."""
    body = pipe.take()
    return None if body is None else to_child.decode(body)


async def _serve(pipe: Pipe, begin: Begin) -> None:
    try:
        processor, catalog = _load(pipe, begin)
        with trio.fail_after(OPEN_SECONDS_MAX):
            await processor.open()
    except BaseException as error:  # noqa: BLE001 (guard: a processor's step; the end follows)
        pipe.give(encode(Failed(describe(error))))
        return
    pipe.give(encode(Ready()))
    contract = Contract(begin.kind, outsider=True, catalog=catalog)
    while isinstance(work := _next(pipe), Work):
        signal.setitimer(signal.ITIMER_REAL, begin.seconds_max * _ALARM_FACTOR + 1.0)
        pipe.give(encode(await _verdicts(processor, contract, work)))
        signal.setitimer(signal.ITIMER_REAL, 0)
    if isinstance(work, Bye):
        signal.setitimer(signal.ITIMER_REAL, begin.seconds_max)
        await processor.close()


def _load(pipe: Pipe, begin: Begin) -> tuple[Processor, Catalog]:
    """Load the plugin under its memory limit: what it may take on top of the bare interpreter."""
    catalog = Catalog.standard()
    if begin.types_path:
        catalog = catalog.with_types(load_custom_types(Path(begin.types_path)))
    limit = _address_bytes() + begin.memory_bytes_max
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, OPEN_SECONDS_MAX)
    kind = _kind(begin)
    settings = msgspec.convert(begin.settings, kind.Settings)
    tools = Tools(
        clock=SystemClock(),
        random=Random(begin.seed),  # noqa: S311 (a plugin's chance, not a secret)
        roster=FarRoster(pipe),
        catalog=catalog,
        emit=derive.emit,
    )
    processor = kind(settings, tools)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return processor, catalog


def _kind(begin: Begin) -> type[Processor]:
    module = load_file(Path(begin.file)) if begin.file else import_module(begin.module)
    kinds: list[Any] = processors_in(module)
    for kind in kinds:
        if kind.name == begin.kind:
            return kind  # type: ignore[no-any-return]
    msg = f'{begin.file or begin.module} has no processor named "{begin.kind}"'
    raise PluginLoadError(msg)


async def _verdicts(processor: Processor, contract: Contract, work: Work) -> Verdicts | Failed:
    events = [parcel.event() for parcel in work.events]
    began = time.perf_counter()
    try:
        with derive.outbox() as box:
            verdicts = contract.check(events, await processor.process_many(events))
        emitted = [(number, Parcel.of(event)) for number, event in box]
        return Verdicts(words_of(events, verdicts), emitted, time.perf_counter() - began)
    except MemoryError:
        os.write(2, b"out of memory\n")
        os._exit(_OUT_OF_MEMORY)  # what was taken is given back by ending
    except BaseException as error:  # noqa: BLE001 (guard: a processor's step)
        return Failed(describe(error))


def _address_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
