"""`mlc-broker test`: the operator's own `[[tests]]`, sent through the operator's own chain."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from mlc_broker.cli.common import FAILED, OK, config_option, say
from mlc_broker.config import Config
from mlc_broker.model.batch import Receipt
from mlc_broker.model.errors import ConfigError
from mlc_broker.model.event import Event

_FILLED_IN = {"user_id": "usr_test", "session_id": "sess_test", "organization_id": "org_test"}
_MISSING = object()


@click.command()
@config_option
def test(config: Config) -> int:
    """Send the event of every [[tests]] entry through the chain; nothing is stored.

    `expect` names `outcome`, `reason`, `detail` (a part of it), or fields of the event as it would
    be stored: `properties.score`, `privacy_level`, `facts.streams`; `derived` counts derived events.
    """
    import trio

    if not config.tests:
        say(f"{config.file} has no [[tests]]; docs/config.md shows one")
        return OK
    wrong = 0
    for trial in config.tests:
        receipt, event, derived = trio.run(_send, config, trial.send)
        differences = list(_differences(trial.expect, receipt, event, derived))
        click.echo(f"{'FAILED' if differences else 'ok    '} {trial.name}")
        for difference in differences:
            click.echo(f"       {difference}")
        wrong += bool(differences)
    say(f"{len(config.tests) - wrong} of {len(config.tests)} hold")
    return FAILED if wrong else OK


async def _send(config: Config, send: dict[str, Any]) -> tuple[Receipt, Event | None, int]:
    """Return the receipt, the event as it would be stored, and how many were derived from it."""
    from random import Random

    from mlc_broker import wiring
    from mlc_broker.model.batch import Batch, Origin
    from mlc_broker.model.principal import Principal
    from mlc_broker.pipeline.actor import Actor
    from mlc_broker.pipeline.chain import Pipeline
    from mlc_broker.pipeline.processor import Stage
    from mlc_broker.runtime.supervisor import Backoff
    from mlc_broker.testing import FixedClock, make_tools

    now = datetime.now(UTC)
    tools = make_tools(clock=FixedClock(now), catalog=wiring.catalog_of(config))
    actors = [
        Actor(
            _maker(step, tools),
            name=step.use,
            stage=step.kind.stage,
            on_failure=step.on_failure,
            seconds_max=step.seconds_max,
            backoff=Backoff(Random(0)),  # noqa: S311 (not a secret)
            catalog=tools.catalog if step.kind.stage == Stage.EXTEND else None,
            source=step.source,
        )
        for step in wiring.steps_of(config)
    ]
    store = _Shelf()
    pipeline = Pipeline(actors, keep=store, quarantine=store)
    for actor in actors:
        await actor.open()
    origin = Origin(principal=Principal(kind="ingest", id="test"), received_at=now)
    batch = Batch(origin, [_event(send, now)])
    (receipt,) = await pipeline.submit(batch)
    await pipeline.aclose()
    return receipt, store.kept[0] if store.kept else None, max(0, len(store.kept) - 1)


def _maker(step: Any, tools: Any) -> Any:
    return lambda: step.kind(step.settings, tools)


class _Shelf:
    """Keeps what is pending, and what is refused; forgets it with the test."""

    def __init__(self) -> None:
        self.kept: list[Event] = []

    async def append(self, batch: Any) -> None:
        from mlc_broker.model.batch import STORED

        for position in batch.pending:
            self.kept.append(batch.events[position])
            batch.settle(position, STORED)

    async def keep(self, batch: Any, refused: Any) -> bool:  # noqa: ARG002 (as the port asks)
        return True


def _event(send: dict[str, Any], now: datetime) -> Event:
    from mlc_broker.model.event import Facts

    whole = {"event_id": "evt_test_00000001", "timestamp": now, **_FILLED_IN, **send}
    try:
        event = msgspec.json.decode(msgspec.json.encode(whole), type=Event)
    except msgspec.ValidationError as error:
        raise ConfigError(f"[[tests]] send: {error}") from None
    return event.but(facts=Facts(received_at=now))


def _differences(
    expect: dict[str, Any], receipt: Receipt, event: Event | None, derived: int
) -> Any:
    told = f"{receipt.outcome} {receipt.reason} {receipt.detail}".strip()
    for key, wanted in expect.items():
        if key == "detail":
            if str(wanted) not in receipt.detail:
                yield f"detail: expected {wanted!r} in it, got {receipt.detail!r}"
            continue
        found = _found(key, receipt, event, derived)
        if found != wanted:
            got = "nothing" if found is _MISSING else repr(found)
            yield f"{key}: expected {wanted!r}, got {got} ({told})"


def _found(key: str, receipt: Receipt, event: Event | None, derived: int) -> Any:
    if key == "derived":
        return derived
    if key in ("outcome", "reason"):
        return str(getattr(receipt, key))
    first, *rest = key.split(".")
    known = ("properties", "context", "device_info", "facts")
    if first not in known and not hasattr(Event, first):
        raise ConfigError(
            f"[[tests]] expect: there is no {key!r}; there are outcome, reason, detail, derived, "
            "and the fields of an event, as in properties.score"
        )
    if event is None:
        return _MISSING
    value = getattr(event, first)
    value = msgspec.to_builtins(value)
    for step in rest:
        value = value.get(step, _MISSING) if isinstance(value, dict) else _MISSING
    return value
