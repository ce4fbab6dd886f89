"""Who may send what: submissions become batches, stamped with what only the broker can know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from mlc_broker.edge.messages import Submission
from mlc_broker.model.batch import Batch, Origin
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.principal import Principal
from mlc_broker.model.verdict import Reject
from mlc_broker.runtime.clock import Clock


class Admission:
    """The porter: overwrites facts, fills in whose event it is, refuses what is not the sender's."""

    def __init__(self, category_of: Callable[[str], str | None], clock: Clock) -> None:
        """`category_of` knows the category of an event type, aliases included; None: unknown."""
        self._category_of = category_of
        self._clock = clock

    def admit(self, submission: Submission, principal: Principal, transport: str) -> Batch:
        """Return the batch of a submission; what is not this credential's to send is `forbidden`."""
        received_at = self._clock.now()
        origin = Origin(
            principal=principal,
            received_at=received_at,
            sent_at=submission.sent_at,
            transport=transport,
        )
        facts = Facts(received_at=received_at, sent_at=submission.sent_at)
        events = self._stamped(submission.events, principal, facts)
        event_ids = submission.event_ids
        if event_ids is None:
            event_ids = [event.event_id for event in submission.events if isinstance(event, Event)]
        batch = Batch(origin, events, event_ids)
        batch.originals = submission.originals
        if len(batch.pending) + len(batch.originals) < len(batch):
            batch.originals = batch.originals | _forbidden(submission.events, events)
        return batch

    def _stamped(
        self, events: Sequence[Event | Reject], principal: Principal, facts: Facts
    ) -> list[Event | Reject]:
        match principal.kind:
            case "user":
                return _own(events, principal, facts)
            case "ingest":
                return _of_the_organization(events, principal, facts)
            case "anonymous":
                return [
                    event if isinstance(event, Reject) else self._nobodys(event, principal, facts)
                    for event in events
                ]

    def _nobodys(self, event: Event, principal: Principal, facts: Facts) -> Event | Reject:
        if event.user_id is not None:
            return Reject("forbidden", "An anonymous key sends events without a user_id.")
        if event.organization_id not in (None, principal.organization_id):
            return _WRONG_ORGANIZATION
        category = self._category_of(event.event_type)
        # An unknown type has no category: the pipeline says so, in better words.
        if category is not None and category not in (principal.categories or ()):
            return Reject("forbidden", f"This key may not send events of the category {category}.")
        return replace(event, facts=facts, organization_id=principal.organization_id)


def _forbidden(
    sent: Sequence[Event | Reject], admitted: Sequence[Event | Reject]
) -> dict[int, bytes]:
    """Return the events that were refused here, as text: for the quarantine, like other refusals."""
    return {
        at: msgspec.json.encode(before)
        for at, (before, after) in enumerate(zip(sent, admitted, strict=True))
        if isinstance(after, Reject) and isinstance(before, Event)
    }


def _own(
    events: Sequence[Event | Reject], principal: Principal, facts: Facts
) -> list[Event | Reject]:
    user, organization = principal.id, principal.organization_id
    admitted: list[Event | Reject] = []
    for event in events:
        if isinstance(event, Reject):
            admitted.append(event)
        elif event.user_id is not None and event.user_id != user:
            admitted.append(_WRONG_USER)
        elif event.organization_id is not None and event.organization_id != organization:
            admitted.append(_WRONG_ORGANIZATION)
        else:
            admitted.append(replace(event, facts=facts, user_id=user, organization_id=organization))
    return admitted


def _of_the_organization(
    events: Sequence[Event | Reject], principal: Principal, facts: Facts
) -> list[Event | Reject]:
    organization = principal.organization_id
    admitted: list[Event | Reject] = []
    for event in events:
        if isinstance(event, Reject):
            admitted.append(event)
        elif event.organization_id is not None and event.organization_id != organization:
            admitted.append(_WRONG_ORGANIZATION)
        else:
            admitted.append(replace(event, facts=facts, organization_id=organization))
    return admitted


_WRONG_USER = Reject("forbidden", "user_id is not this token's: leave it out, or send your own.")
_WRONG_ORGANIZATION = Reject(
    "forbidden", "organization_id is not this credential's: leave it out, or send its own."
)
