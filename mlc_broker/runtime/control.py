"""The house telephone: a Unix socket in the data directory, by which commands ask the daemon.

One connection carries one question: a line of JSON, `{"verb": …, "args": {…}}`. The answer is a
line `{"ok": …}` or `{"error": …, "kind": …}`; a verb that tells many things answers a line
`{"item": …}` each before its `{"ok": null}`. The file's rights (0600, in a directory of 0700) are
the authority: who can open it may do what the service's user may do.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import structlog
import trio
from msgspec import Struct

log = structlog.get_logger("control")

QUESTION_BYTES_MAX = 1024**2
ANSWER_BYTES_MAX = 64 * 1024**2
QUESTION_SECONDS_MAX = 5.0
SEND_SECONDS_MAX = 10.0
CALLERS_MAX = 16

Arguments: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Arguments], Awaitable[Any] | AsyncIterator[Any]]


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """What a command asks."""

    verb: str
    args: Arguments = {}


class NotRunning(ConnectionError):
    """No daemon answers here."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ECONNREFUSED, f"no daemon answers at {path}; is it running?")


class Refused(Exception):
    """The daemon could not do what was asked; `kind` is the class of its error."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Control:
    """The daemon's end. `handlers`: verb → function of the arguments.

    A handler is `async def` and returns what msgspec can encode, or is an async generator of such.
    Errors of the classes in `told` are told in their own words; any other is told by its class and
    logged. A caller that hangs up ends its handler.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        *,
        told: tuple[type[Exception], ...] = (),
    ) -> None:
        self._path, self._handlers, self._told = path, dict(handlers), told
        self._callers = 0

    def add(self, handlers: Mapping[str, Handler]) -> None:
        """Answer these verbs too."""
        self._handlers.update(handlers)

    async def run(self) -> None:
        """Answer until cancelled. The data directory must be ours: a socket in the way is old."""
        listener = _listen(self._path)
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    stream, _ = await listener.accept()
                    nursery.start_soon(self._guarded, trio.SocketStream(stream))
        finally:
            listener.close()
            with suppress(OSError):
                self._path.unlink()

    async def _guarded(self, stream: trio.SocketStream) -> None:
        """Converse with one caller; whatever happens there ends with this caller."""
        self._callers += 1
        try:
            async with stream:
                if self._callers > CALLERS_MAX:
                    await _send(stream, {"error": "too many callers at once", "kind": "Busy"})
                else:
                    await self._converse(stream)
        except Exception as error:  # noqa: BLE001 (guard: a connection)
            if not isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
                log.warning("a caller was lost", error=f"{type(error).__name__}: {error}")
        finally:
            self._callers -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            with trio.fail_after(QUESTION_SECONDS_MAX):
                question = msgspec.json.decode(await _line(stream), type=Question)
        except (msgspec.DecodeError, trio.TooSlowError) as error:
            await _send(stream, {"error": f"no question was understood: {error}", "kind": "Usage"})
            return
        handler = self._handlers.get(question.verb)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            text = f'there is no verb "{question.verb}"; there are {known}'
            await _send(stream, {"error": text, "kind": "Usage"})
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hang_up, stream, nursery.cancel_scope)
            await _send(stream, await self._answer(stream, handler, question))
            nursery.cancel_scope.cancel()

    async def _answer(
        self, stream: trio.SocketStream, handler: Handler, question: Question
    ) -> dict[str, Any]:
        try:
            answer = handler(question.args)
            if isinstance(answer, AsyncIterator):
                async for item in answer:
                    await _send(stream, {"item": item})
                return {"ok": None}
            return {"ok": await answer}
        except trio.BrokenResourceError:
            raise
        except self._told as error:
            return {"error": str(error), "kind": type(error).__name__}
        except (KeyError, TypeError, ValueError) as error:
            log.warning("not understood", verb=question.verb, error=repr(error))
            text = f"{question.verb}: {type(error).__name__}: {error}"
            return {"error": text, "kind": "Usage"}
        except Exception as error:  # guard: a connection
            log.exception("a verb broke", verb=question.verb)
            return {"error": f"{type(error).__name__}: {error}", "kind": "Fault"}


def ask(path: Path, verb: str, args: Arguments | None = None, *, seconds_max: float = 60.0) -> Any:
    """Ask the daemon; return its answer. NotRunning, Refused, or TimeoutError."""
    with _call(path, verb, args, seconds_max) as lines:
        for line in lines:
            if "item" not in line:
                return line.get("ok")
    raise NotRunning(path)


def follow(
    path: Path, verb: str, args: Arguments | None = None, *, seconds_max: float | None = None
) -> Iterator[Any]:
    """Yield what the daemon tells, one by one, until it has no more. `seconds_max`: of silence."""
    with _call(path, verb, args, seconds_max) as lines:
        for line in lines:
            if "item" not in line:
                return
            yield line["item"]
    raise NotRunning(path)


def answers(path: Path) -> bool:
    """Say whether a daemon listens there."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            _connect(caller, path)
        except OSError:
            return False
    return True


@contextmanager
def _call(
    path: Path, verb: str, args: Arguments | None, seconds_max: float | None
) -> Iterator[Iterator[dict[str, Any]]]:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(seconds_max)
        try:
            _connect(caller, path)
            caller.sendall(msgspec.json.encode({"verb": verb, "args": args or {}}) + b"\n")
        except OSError as error:
            raise NotRunning(path) from error
        with caller.makefile("rb") as said:
            yield _lines(partial(said.readline, ANSWER_BYTES_MAX))


def _lines(readline: Callable[[], bytes]) -> Iterator[dict[str, Any]]:
    while line := readline():
        found: dict[str, Any] = msgspec.json.decode(line)
        if "error" in found:
            raise Refused(found["error"], found["kind"])
        yield found


def _listen(path: Path) -> trio.socket.SocketType:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with _short(path) as name:
        listener.bind(name)
    path.chmod(0o600)  # before it listens, nobody can connect
    listener.listen(CALLERS_MAX)
    listener.setblocking(False)
    return trio.socket.from_stdlib_socket(listener)


def _connect(caller: socket.socket, path: Path) -> None:
    with _short(path) as name:
        caller.connect(name)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A socket's name is limited to 107 bytes; by way of its directory's handle it is short."""
    handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


async def _hang_up(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """A caller says one thing; whatever comes next is its end."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.receive_some(1)
    scope.cancel()


async def _line(stream: trio.SocketStream) -> bytes:
    taken = bytearray()
    while not taken.endswith(b"\n"):
        part = await stream.receive_some(65_536)
        if not part or len(taken) + len(part) > QUESTION_BYTES_MAX:
            break
        taken += part
    return bytes(taken)


async def _send(stream: trio.SocketStream, value: dict[str, Any]) -> None:
    with trio.fail_after(SEND_SECONDS_MAX):
        await stream.send_all(msgspec.json.encode(value) + b"\n")
