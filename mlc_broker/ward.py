"""The quarantine joined to the pipeline: what was refused, sent through the whole chain again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import trio

from mlc_broker import wiring
from mlc_broker.config import Config
from mlc_broker.edge import codec
from mlc_broker.edge.admission import Admission
from mlc_broker.edge.http.quarantine import Causes, Replayed, ReplayForm
from mlc_broker.model.batch import Batch, Origin, Outcome, Receipt
from mlc_broker.model.errors import Malformed
from mlc_broker.model.event import Facts, rfc3339
from mlc_broker.model.principal import Principal
from mlc_broker.runtime.control import Arguments, Handler
from mlc_broker.store.quarantine import Cause, Kept, Quarantine

BATCH_EVENTS = 200
NEVER_AGAIN = frozenset({"forbidden"})  # it was not the sender's to send, and is not ours


class Ward:
    """Shows causes and replays events."""

    def __init__(
        self,
        config: Config,
        quarantine: Quarantine,
        submit: Callable[[Batch], Awaitable[list[Receipt]]],
        admission: Admission,
    ) -> None:
        self._quarantine, self._submit, self._admission = quarantine, submit, admission
        self._limits = wiring.wire_limits(config)
        self._bytes_max = config.storage.quarantine_bytes_max
        self._lock = trio.Lock()  # two replays at once would only do the work twice

    def verbs(self) -> dict[str, Handler]:
        """Return what the commands may ask over the house telephone."""

        async def causes(_: Arguments) -> Any:
            return await self.causes()

        async def show(asked: Arguments) -> Any:
            return await self.show(msgspec.convert(asked, ReplayForm))

        async def replay(asked: Arguments) -> Any:
            return await self.replay(msgspec.convert(asked, ReplayForm))

        return {
            "quarantine.list": causes,
            "quarantine.show": show,
            "quarantine.replay": replay,
        }

    async def causes(self) -> Causes:
        """Return what is kept, by cause."""
        await self._quarantine.flush()
        file = self._quarantine.file
        causes = await trio.to_thread.run_sync(file.causes)
        return Causes([_shown(cause) for cause in causes], file.bytes, self._bytes_max)

    async def replay(self, wanted: ReplayForm) -> Replayed:
        """Send events through the chain; what is answered for leaves the quarantine.

        What is refused again is kept anew by the chain itself, so its old entry goes too.
        """
        async with self._lock:
            await self._quarantine.flush()
            told: Counter[str] = Counter()
            after, left = 0, wanted.limit
            last = await trio.to_thread.run_sync(self._quarantine.file.last_id)
            while left > 0:
                kept = await trio.to_thread.run_sync(
                    partial(
                        self._quarantine.file.read,
                        outcome=Outcome(wanted.outcome),
                        reason=wanted.reason,
                        limit=min(left, BATCH_EVENTS),
                        after=after,
                    )
                )
                kept = [one for one in kept if one.id <= last]
                if not kept:
                    break
                after, left = kept[-1].id, left - len(kept)
                told.update(await self._again([k for k in kept if k.reason not in NEVER_AGAIN]))
            return Replayed(replayed=told.total(), **told)

    async def show(self, wanted: ReplayForm) -> list[dict[str, Any]]:
        """Return events as they were kept, for the person at the terminal."""
        await self._quarantine.flush()
        kept = await trio.to_thread.run_sync(
            partial(
                self._quarantine.file.read,
                outcome=Outcome(wanted.outcome),
                reason=wanted.reason,
                limit=wanted.limit,
            )
        )
        shown: list[dict[str, Any]] = msgspec.to_builtins(kept)
        return shown

    async def _again(self, kept: list[Kept]) -> Counter[str]:
        told: Counter[str] = Counter()
        done: list[int] = []
        by_organization: dict[str | None, list[Kept]] = {}
        for one in kept:
            by_organization.setdefault(one.organization_id, []).append(one)
        for organization_id, some in by_organization.items():
            principal = Principal(kind="ingest", id="replay", organization_id=organization_id)
            whole = [one for one in some if one.event is not None]
            rest = [one for one in some if one.event is None and one.original]
            for group, batch in (
                (whole, self._batch_of(whole, principal)),
                (rest, self._reread(rest, principal)),
            ):
                if batch is None:
                    continue
                receipts = await self._submit(batch)
                told.update(receipt.outcome.value for receipt in receipts)
                done += [
                    one.id
                    for one, receipt in zip(group, receipts, strict=True)
                    if receipt.outcome is not Outcome.RETRY
                ]
        await trio.to_thread.run_sync(self._quarantine.file.remove, done)
        return told

    def _batch_of(self, kept: list[Kept], principal: Principal) -> Batch | None:
        # As they came, by the time they came: what the roster says is looked up anew.
        events = [
            msgspec.structs.replace(one.event, facts=_facts(one)) for one in kept if one.event
        ]
        if not events:
            return None
        received_at = max(one.at for one in kept)
        return Batch(
            Origin(principal=principal, received_at=received_at, transport="replay"), events
        )

    def _reread(self, kept: list[Kept], principal: Principal) -> Batch | None:
        if not kept:
            return None
        raws = [(one.original or "").encode() for one in kept]
        try:
            submission = codec.read_each(raws, self._limits, suspect=True)
        except Malformed:
            return None
        return self._admission.admit(submission, principal, "replay")


def _shown(cause: Cause) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(cause)
    return shown | {"first_at": rfc3339(cause.first_at), "last_at": rfc3339(cause.last_at)}


def _facts(kept: Kept) -> Facts:
    before = kept.event.facts if kept.event is not None else Facts()
    return Facts(
        received_at=before.received_at or kept.at,
        client_timestamp=before.client_timestamp,
        derived_from=before.derived_from,
    )
