"""A protect that breaks lets nothing through: not to the store, whatever becomes of the batch."""

from __future__ import annotations

from typing import Any

import pytest

from mlc_broker.model.batch import Outcome
from mlc_broker.pipeline.builtin.protect import Protect
from mlc_broker.testing import make_event
from tests.unit.pipeline.test_builtin import send


async def test_what_a_broken_protect_saw_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(Protect, "process_many", broken)
    receipt, stored = await send(make_event())
    assert receipt.outcome in (Outcome.RETRY, Outcome.QUARANTINED)
    assert stored is None


async def test_a_protect_that_loses_an_event_lets_none_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(*_: Any) -> Any:
        return []

    monkeypatch.setattr(Protect, "process_many", nothing)
    receipt, stored = await send(make_event())
    assert receipt.outcome in (Outcome.RETRY, Outcome.QUARANTINED)
    assert stored is None
