"""Counting in a process beside the daemon: what crosses the pipe, and the process's own end.

Under load, counting would take a quarter of the time of the one interpreter that answers everybody.
The clerk reads committed packs from the hot files, as any reader does, and owns the rollups' file
meanwhile. Between two requests it has nothing that is not written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from mlc_broker.model.errors import StoreError
from mlc_broker.model.metric import Metric
from mlc_broker.runtime.child import Pipe
from mlc_broker.store.rollups_counter import Counter
from mlc_broker.store.schema import READ_ERRORS


class Begin(Struct, tag=True):
    """Open the file and count by these declarations."""

    path: str
    samplers: list[Metric]


class Packs(Struct, array_like=True):
    """Packs of one hot file, by the sequences of their first events."""

    path: str
    keys: list[int]


class Count(Struct, tag=True):
    """Count the events of these packs from a sequence on, and these receipts; write it down."""

    since: int
    packs: Packs | None
    hidden: list[tuple[str, str]]
    receipts: list[tuple[int, int, str, str, int]]


class Told(Struct, tag=True):
    """The daemon's answer to Ask."""

    text: str | None


class Bye(Struct, tag=True):
    """Close the file and end."""


class Hello(Struct, tag=True):
    """The process has started."""


class Ask(Struct, tag=True):
    """What only the daemon knows: an organization's time zone, or the category of a type."""

    what: Literal["zone", "category"]
    name: str


class Counted(Struct, tag=True):
    """It is written; what the file covers now, and what it took."""

    upto: int
    events: int
    seconds: float


class Failed(Struct, tag=True):
    """It is not done; the process ends."""

    why: str


ToClerk: TypeAlias = Begin | Count | Told | Bye
ToDaemon: TypeAlias = Hello | Ask | Counted | Failed
to_clerk = msgspec.msgpack.Decoder(ToClerk)
to_daemon = msgspec.msgpack.Decoder(ToDaemon)
encode = msgspec.msgpack.Encoder().encode


def main() -> None:
    """Count until the daemon says goodbye or goes."""
    pipe = Pipe()
    pipe.give(encode(Hello()))
    begin = _next(pipe)
    if not isinstance(begin, Begin):
        return
    try:
        _serve(pipe, begin)
    except (StoreError, OSError, *READ_ERRORS) as error:
        pipe.give(encode(Failed(str(error))))


def _serve(pipe: Pipe, begin: Begin) -> None:
    def zone_of(organization_id: str) -> str:
        return _ask(pipe, Ask("zone", organization_id)) or "UTC"

    def category_of(event_type: str) -> str | None:
        return _ask(pipe, Ask("category", event_type))

    counter = Counter(Path(begin.path), begin.samplers, categories=category_of, zone_of=zone_of)
    try:
        pipe.give(encode(Counted(counter.watermark, 0, 0.0)))
        while isinstance(count := _next(pipe), Count):
            pipe.give(encode(_count(counter, count)))
    finally:
        counter.close()


def _count(counter: Counter, count: Count) -> Counted:
    hidden = frozenset(count.hidden)
    events, seconds, upto = counter.events, counter.seconds, count.since
    if count.packs is not None:
        path = Path(count.packs.path)
        upto = counter.fold_packs(path, count.packs.keys, count.since, hidden)
    receipts = {(org, at, outcome, why): n for org, at, outcome, why, n in count.receipts}
    counter.write(counter.folder.fresh(), upto, receipts)
    return Counted(upto, counter.events - events, counter.seconds - seconds)


def _ask(pipe: Pipe, question: Ask) -> str | None:
    pipe.give(encode(question))
    told = _next(pipe)
    if not isinstance(told, Told):
        raise SystemExit(0)  # the daemon has gone
    return told.text


def _next(pipe: Pipe) -> ToClerk | None:
    body = pipe.take()
    return None if body is None else to_clerk.decode(body)


if __name__ == "__main__":
    main()
