"""The telephone: one question a call, an answer or many, and no caller harms the house."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from mlc_broker.runtime.control import Control, NotRunning, Refused, answers, ask, follow


class Told(Exception):
    pass


async def echo(args: dict[str, Any]) -> dict[str, Any]:
    return args


async def refuse(_: dict[str, Any]) -> None:
    raise Told("not today")


async def needs(args: dict[str, Any]) -> Any:
    return args["name"]


async def breaks(_: dict[str, Any]) -> None:
    raise RuntimeError("on purpose")


async def counts(args: dict[str, Any]) -> AsyncIterator[int]:
    for number in range(args["to"]):
        yield number


HANDLERS: dict[str, Any] = {
    "echo": echo, "refuse": refuse, "needs": needs, "breaks": breaks, "counts": counts
}  # fmt: skip


@asynccontextmanager
async def house(path: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Control(path, HANDLERS, told=(Told,)).run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


def far(function: Any, *args: Any) -> Any:
    return trio.to_thread.run_sync(partial(function, *args))


async def test_a_question_is_answered_and_the_file_is_its_owners(tmp_path: Path) -> None:
    folder = tmp_path / ("a long name " * 12)  # longer than a socket's name may be
    folder.mkdir()
    path = folder / "control.sock"
    assert not answers(path)
    async with house(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await far(ask, path, "echo", {"a": [1, "ü"]}) == {"a": [1, "ü"]}
        assert await far(lambda: list(follow(path, "counts", {"to": 3}))) == [0, 1, 2]
        assert await far(answers, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("verb", "kind", "words"),
    [
        ("refuse", "Told", "not today"),
        ("needs", "Usage", "KeyError: 'name'"),
        ("breaks", "Fault", "on purpose"),
        ("nothing", "Usage", "there are breaks, counts, echo"),
    ],
)
async def test_what_goes_wrong_is_told_and_the_next_is_answered(
    tmp_path: Path, verb: str, kind: str, words: str
) -> None:
    path = tmp_path / "control.sock"
    async with house(path):
        with pytest.raises(Refused, match=words) as told:
            await far(ask, path, verb)
        assert told.value.kind == kind
        assert await far(ask, path, "echo") == {}


async def test_no_caller_harms_the_house(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with house(path):
        for said in (b"", b"{half\n", b"\xff\xfe\n", b'{"verb": 5}\n', b"x" * 2_000_000 + b"\n"):

            def call(said: bytes = said) -> None:
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(str(path))
                    try:
                        caller.sendall(said)
                    except OSError:
                        return  # it hung up on us

            await far(call)
        assert await far(ask, path, "echo") == {}


async def test_a_socket_left_by_a_dead_daemon_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with pytest.raises(NotRunning, match="is it running"):
        ask(path, "echo")
    async with house(path):
        assert await far(ask, path, "echo") == {}
