"""A task of its own for each call of code that is not ours: what breaks in there stays in there.

Whatever a plugin does with nurseries, cancel scopes, `sys.exit` or a swallowed cancellation, it
does it to a task that nobody else waits in for longer than agreed. Its steps are driven one by
one, so that the watchdog knows whose code runs, and so that code that will not end can be left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from types import coroutine
from typing import Any

import outcome
import trio

from mlc_broker.model.errors import ProcessorFailed
from mlc_broker.pipeline.watchdog import SLICES, Slices, Who

GRACE_SECONDS = 0.5  # between being cancelled and being left
_ABANDONED: list[Any] = []  # held, since ending them would run their code once more
_ABANDONED_MAX = 10_000  # each is a few KiB; a broken processor is made anew ever more rarely
_CANCELLED_MAX = 10_000  # swallowed one after the other, when the whole house stops


async def call_apart(
    call: Callable[[], Any], who: Who, *, seconds_max: float, slices: Slices = SLICES
) -> Any:
    """Return what `await call()` returns, from a task of its own.

    Raises what it raises, as an Exception; TooSlowError after `seconds_max`, and ProcessorFailed
    when it did not even end then.
    """
    cell = _Cell(call, who, slices)
    # with the caller's context: what it emits goes into the caller's outbox
    trio.lowlevel.spawn_system_task(cell.run, name=f"plugin {who.name}", context=copy_context())
    in_time = False
    try:
        with trio.move_on_after(seconds_max):
            await cell.ended.wait()
            in_time = True
    finally:
        if not in_time:
            await cell.end()
    if not in_time:
        if cell.abandoned:
            msg = f"{who.name} swallowed its cancellation and was left behind"
            raise ProcessorFailed(msg)
        raise trio.TooSlowError
    if cell.error is not None:
        raise cell.error
    return cell.value


def abandoned() -> int:
    """Return how many calls did not end when told to. The process must not wait for them."""
    return len(_ABANDONED)


class _Cell:
    def __init__(self, call: Callable[[], Any], who: Who, slices: Slices) -> None:
        self.ended = trio.Event()
        self.value: Any = None
        self.error: Exception | None = None
        self.abandoned = False
        self._call, self._who, self._slices = call, who, slices
        self._scope = trio.CancelScope()
        self._cancelled = 0
        self._left: Any = None  # kept: to end it would run its code again

    async def run(self) -> None:
        """The outer task: a nursery that holds whatever the inner one leaves in disorder."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._inner)
        except BaseException as error:
            if _without_cancelled(error) is not None and self.error is None:
                self.error = _as_exception(error)
            if isinstance(error, trio.Cancelled):
                raise
        finally:
            self.ended.set()

    async def end(self) -> None:
        """Cancel it; if it does not end within the grace, leave it."""
        self._scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE_SECONDS):
            await self.ended.wait()
        if not self.ended.is_set():
            self._abandon()

    def _abandon(self) -> None:
        """Leave it for good, and hold it.

        Were it collected, its code would run once more, in the midst of whatever task runs then.
        """
        self.abandoned = True
        if len(_ABANDONED) < _ABANDONED_MAX:
            _ABANDONED.append(self)

    async def _inner(self) -> None:
        try:
            self.value = await self._drive()
        except BaseException as error:  # guard: a processor's step
            broken = _without_cancelled(error)
            if broken is not None:
                self.error = _as_exception(broken)
            if broken is not error:
                raise

    @coroutine
    def _drive(self) -> Generator[Any, Any, Any]:
        """Run the plugin's coroutine step by step, as `await` would."""
        steps = self._begin()
        argument: Any = None
        while True:
            self._slices.enter(self._who)
            try:
                trap = steps.send(argument)
            except StopIteration as end:
                return end.value
            finally:
                self._slices.leave()
            argument = yield trap
            # trio hands a cancellation in as an Outcome that holds the exception
            if isinstance(argument, outcome.Error) and isinstance(argument.error, trio.Cancelled):
                self._cancelled += 1
                if self._cancelled > _CANCELLED_MAX and not self.abandoned:
                    self._abandon()  # a quick machine gets here before the grace is over
                if self.abandoned:
                    self._left = steps
                    argument.unwrap()

    def _begin(self) -> Coroutine[Any, Any, Any]:
        self._slices.enter(self._who)
        try:
            steps = self._call()
        finally:
            self._slices.leave()
        if not inspect.iscoroutine(steps):
            msg = f"{self._who.name} is not async: write `async def`"
            raise ProcessorFailed(msg)
        return steps


def _without_cancelled(error: BaseException) -> BaseException | None:
    """Return what is left of an error when cancellation is taken out of it."""
    if isinstance(error, BaseExceptionGroup):
        _, rest = error.split(trio.Cancelled)
        return rest
    return None if isinstance(error, trio.Cancelled) else error


def _as_exception(error: BaseException) -> Exception:
    """SystemExit and its like end a process; a plugin may not."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Exception):
        return error
    return ProcessorFailed(f"{type(error).__name__} was raised, which would end the process")
