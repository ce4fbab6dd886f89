"""Code that is not ours runs in a task of its own, and is left for good when it will not end."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import pytest
import trio

from mlc_broker.model.errors import ProcessorFailed
from mlc_broker.pipeline import cell
from mlc_broker.pipeline.watchdog import Who


async def test_what_swallows_cancellation_quicker_than_the_grace_is_never_run_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    monkeypatch.setattr(cell, "_CANCELLED_MAX", 5)
    turns = 0

    async def swallow() -> None:
        nonlocal turns
        while True:
            turns += 1
            with contextlib.suppress(BaseException):
                await trio.sleep(60)

    who = Who("bad", 1.0)
    with pytest.raises(ProcessorFailed, match="left behind"):
        await cell.call_apart(swallow, who, seconds_max=1.0)
    left_at = turns
    gc.collect()
    await trio.sleep(300)
    assert turns == left_at
