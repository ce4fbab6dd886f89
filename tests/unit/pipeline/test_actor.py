"""One guard each: what a plugin does to itself, to time and to tasks stays with it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

import pytest
import trio
from msgspec import Struct

from mlc_broker.model.batch import Outcome
from mlc_broker.model.errors import PluginLoadError
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline import cell
from mlc_broker.pipeline.chain import Pipeline
from mlc_broker.pipeline.processor import Processor, Stage
from mlc_broker.testing import make_event
from tests.unit.pipeline.house import ListQuarantine, ListStore, actor, batch


class Does(Processor):
    """Does what the event's `word` says."""

    name = "does"
    opened: ClassVar[int] = 0
    closed: ClassVar[int] = 0

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        broken_open: bool = False
        broken_init: bool = False

    def __init__(self, settings: Any, tools: Any) -> None:
        super().__init__(settings, tools)
        if settings.broken_init:
            raise RuntimeError("in __init__")

    async def open(self) -> None:
        type(self).opened += 1
        if self.settings.broken_open:
            raise RuntimeError("in open")

    async def close(self) -> None:
        type(self).closed += 1

    async def process(self, event: Event) -> Verdict:
        match event.properties.get("word"):
            case "wait":
                await trio.sleep_forever()
            case "swallow":
                await swallow()
            case "exit":
                raise SystemExit(3)
            case "group":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(crash)
                    await trio.sleep_forever()
        return event


async def swallow() -> None:
    while True:
        with suppress(BaseException):
            await trio.sleep_forever()


async def crash() -> None:
    raise ZeroDivisionError("a child")


def says(word: str) -> Event:
    return make_event(properties={"word": word})


def hall(**options: Any) -> tuple[Pipeline, Any, ListStore]:
    settings = options.pop("settings", None)
    one, store = actor(Does, settings, **options), ListStore()
    return Pipeline([one], keep=store, quarantine=ListQuarantine()), one, store


@pytest.mark.parametrize(
    ("word", "detail"),
    [
        ("exit", "SystemExit was raised, which would end the process"),
        ("group", "ZeroDivisionError: a child"),
        ("wait", "no verdict within 0.25 s"),
    ],
)
async def test_one_event_pays_and_the_rest_pass(
    autojump_clock: Any, word: str, detail: str
) -> None:
    pipeline, one, _ = hall(seconds_max=1.0)
    receipts = await pipeline.submit(batch(says(""), says(word), says("")))
    assert [receipt.outcome.value for receipt in receipts] == ["stored", "quarantined", "stored"]
    assert detail in receipts[1].detail
    assert one.health.failures == 1
    assert one.health.state == "ready"


async def test_what_swallows_its_cancellation_is_left_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # on the real clock: what spins keeps a mock one from jumping
    monkeypatch.setattr(cell, "GRACE_SECONDS", 0.02)
    before = cell.abandoned()
    pipeline, _, _ = hall(seconds_max=0.02)
    receipts = await pipeline.submit(batch(says("swallow"), says("")))
    assert [receipt.outcome.value for receipt in receipts] == ["quarantined", "stored"]
    assert "swallowed its cancellation and was left behind" in receipts[0].detail
    assert cell.abandoned() == before + 2  # the batch, and then the event alone


async def test_a_batch_of_hanging_events_is_told_from_one_before_the_sender_gives_up(
    autojump_clock: Any,
) -> None:
    pipeline, one, _ = hall(seconds_max=5.0)
    began = trio.current_time()
    receipts = await pipeline.submit(batch(*[says("wait") for _ in range(30)]))
    outcomes = [receipt.outcome for receipt in receipts]
    assert outcomes == [Outcome.QUARANTINED] * 5 + [Outcome.STORED] * 25
    assert one.health.state == "broken"
    assert trio.current_time() - began == pytest.approx(7.5)


async def test_a_sender_that_leaves_takes_the_plugins_call_with_it(autojump_clock: Any) -> None:
    pipeline, one, _ = hall(seconds_max=60.0)
    with trio.move_on_after(1.0) as patience:
        await pipeline.submit(batch(says("wait")))
    assert patience.cancelled_caught
    assert one.health.failures == 0
    (receipt,) = await pipeline.submit(batch(says("")))  # the lock is free again
    assert receipt.outcome is Outcome.STORED


async def test_a_plugin_that_does_not_open_is_an_error_at_a_reload_and_none_at_the_start(
    autojump_clock: Any,
) -> None:
    for settings, where in (
        (Does.Settings(broken_open=True), "in open"),
        (Does.Settings(broken_init=True), "in __init__"),
    ):
        pipeline, one, _ = hall(settings=settings)
        with pytest.raises(PluginLoadError, match=where):
            await one.open()
        await pipeline.open()
        assert one.health.state == "broken"
        (receipt,) = await pipeline.submit(batch(says("")))
        assert receipt.outcome is Outcome.STORED


async def test_of_a_failed_swap_everything_new_is_closed_and_the_old_is_in_force() -> None:
    pipeline, one, _ = hall()
    good = actor(Does)
    bad = actor(Does, Does.Settings(broken_open=True))
    Does.closed = 0
    with pytest.raises(PluginLoadError):
        await pipeline.swap([good, bad])
    assert pipeline.actors == (one,)
    assert Does.closed == 2


async def test_a_disabled_plugin_is_passed_by_and_counted() -> None:
    pipeline, one, store = hall()
    one.disable("it hung twice")
    await pipeline.open()
    await pipeline.submit(batch(says("exit"), says("")))
    assert len(store.events) == 2
    assert (one.health.state, one.health.skipped) == ("disabled", 2)


async def test_a_built_in_that_does_not_open_stops_the_start() -> None:
    class Ours(Does):
        name = "ours"
        stage = Stage.ENRICH

    pipeline = Pipeline(
        [actor(Ours, Ours.Settings(broken_open=True))],
        keep=ListStore(),
        quarantine=ListQuarantine(),
    )
    with pytest.raises(PluginLoadError):
        await pipeline.open()
