"""Derived events: what a processor makes of an event, on a walk of its own behind it.

    self.tools.emit(event.but(event_type="org.points_awarded", properties={…}))

The derived event keeps the id of its source until the chain has it; then its id is a hash of the
source's, the processor's name and its number, so that a resend makes the same one: a duplicate.
It is sent on its walk once its source is stored, and the source's sender gets its receipt after
that: when the process dies in between, the sender sends again, and everything is there once.
What is emitted while a derived event walks is let go: no loops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec
from msgspec import Struct

from mlc_broker.model.batch import Batch, Origin, Outcome, Receipt
from mlc_broker.model.errors import ProcessorFailed
from mlc_broker.model.event import Event, Facts

EMITTED_PER_EVENT_MAX = 16
DERIVED = "derived"  # the transport of such a batch
_event = msgspec.json.Decoder(Event)


class Emitted(Struct, frozen=True):
    """A derived event, and the position of its source in the batch."""

    position: int
    event: Event


class Outbox(list[tuple[int, Event]]):
    """What was emitted, each with the number of the event in hand then, where that is known."""

    turn = -1


_outbox: ContextVar[Outbox | None] = ContextVar("outbox", default=None)


def turn(number: int) -> None:
    """Say which event of the batch is in hand: it may be there twice."""
    box = _outbox.get()
    if box is not None:
        box.turn = number


def emit(event: Event) -> None:
    """Take a derived event from the processor that has an event in hand: `Tools.emit`."""
    box = _outbox.get()
    if box is None:
        msg = "emit works inside process and process_many only"
        raise ProcessorFailed(msg)
    box.append((box.turn, event))


@contextmanager
def outbox() -> Iterator[Outbox]:
    """Collect what is emitted within."""
    box = Outbox()
    token = _outbox.set(box)
    try:
        yield box
    finally:
        _outbox.reset(token)


def address(name: str, box: Outbox, events: Sequence[Event]) -> list[tuple[int, Event]]:
    """Return what a processor emitted, each with the number of its source; hold it to the rules."""
    numbers = {event.event_id: number for number, event in enumerate(events)}
    counts: dict[int, int] = {}
    derived = []
    for hand, event in box:
        number = numbers.get(str(getattr(event, "event_id", "")))
        if 0 <= hand < len(events) and number is not None:
            number = hand if events[hand].event_id == event.event_id else number
        if number is None:
            msg = f"{name} emitted what it did not make by event.but(…) of the event in hand"
            raise ProcessorFailed(msg)
        counts[number] = counts.get(number, 0) + 1
        if counts[number] > EMITTED_PER_EVENT_MAX:
            msg = f"{name} emitted more than {EMITTED_PER_EVENT_MAX} events for one"
            raise ProcessorFailed(msg)
        derived.append((number, _derived(name, counts[number], event, events[number])))
    return derived


def derived_batch(batch: Batch, emitted: Sequence[Emitted]) -> tuple[Batch, list[int]]:
    """Return the batch of what was emitted for events that are stored, and their positions."""
    kept = (Outcome.STORED, Outcome.DUPLICATE)
    due = [
        one
        for one in emitted
        if (receipt := batch.receipts[one.position]) is not None and receipt.outcome in kept
    ]
    origin = Origin(
        principal=batch.origin.principal, received_at=batch.origin.received_at, transport=DERIVED
    )
    return Batch(origin, [one.event for one in due]), [one.position for one in due]


def after_derived(
    receipts: list[Receipt], positions: Sequence[int], derived: Sequence[Receipt]
) -> None:
    """A source whose derived event could not be stored now is asked for again."""
    for position, receipt in zip(positions, derived, strict=True):
        if receipt.outcome is Outcome.RETRY:
            receipts[position] = Receipt(Outcome.RETRY, receipt.reason, receipt.detail)


def _derived(name: str, number: int, event: Event, source: Event) -> Event:
    """Return the event as it begins its walk; whose it is, is not the processor's to choose."""
    seed = f"{name}\0{number}\0{source.event_id}".encode()
    made = msgspec.structs.replace(
        event,
        event_id="drv_" + hashlib.blake2b(seed, digest_size=16).hexdigest(),
        user_id=source.user_id,
        session_id=source.session_id,
        organization_id=source.organization_id,
        timestamp=source.timestamp,
        facts=Facts(received_at=source.facts.received_at, derived_from=source.event_id),
    )
    try:
        _event.decode(msgspec.json.encode(made))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        msg = f"{name} emitted what is no event: {error}"
        raise ProcessorFailed(msg) from error
    return made
