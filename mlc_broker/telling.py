"""The roof over telling: the reader, the access log and the questions, joined to their pages."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from mlc_broker import wiring
from mlc_broker.config import Config
from mlc_broker.edge.house import House, WhatBecame
from mlc_broker.edge.http.app import Wing
from mlc_broker.edge.http.audit import AuditPages
from mlc_broker.edge.http.events import EventPages
from mlc_broker.edge.routes import wing
from mlc_broker.model.batch import Outcome
from mlc_broker.model.catalog import Catalog
from mlc_broker.model.event import rfc3339
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal, Role
from mlc_broker.query.access import AccessLog
from mlc_broker.query.cursor import Cursors
from mlc_broker.query.export.export import Exports
from mlc_broker.query.pseudonyms import Pseudonyms
from mlc_broker.query.query import Limits, Queries, receipt_scope
from mlc_broker.query.scopes import Asker
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.audit import AuditLog
from mlc_broker.store.ids import Hasher
from mlc_broker.store.reader import Reader
from mlc_broker.store.receipts import ReceiptBook, Told
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Store

AUDIT = "audit.db"
AUDIT_KEY = "audit.key"


class Telling:
    """What answers questions. Open it after the store and the roster."""

    def __init__(self, config: Config, store: Store, roster: Roster, clock: Clock) -> None:
        """Open the access log; raises StoreError."""
        secret = store.files.manifest.secret
        self.audit = AuditLog(
            wiring.data_file(config, AUDIT), wiring.secret_of(config, AUDIT_KEY), clock=clock
        )
        self.reader = Reader(open_files_max=config.storage.open_files_max)
        self.queries = Queries(
            store,
            self.reader,
            self.audit,
            hasher=Hasher(secret("ids")),
            cursors=Cursors(secret("cursors")),
            pseudonyms=Pseudonyms(wiring.secret_of(config, config.privacy.pseudonym_key_file)),
            organization_ids=roster.organization_ids,
            limits=Limits(
                query_seconds_max=config.http.query_seconds_max,
                exports_max=config.http.exports_max,
                export_seconds_max=config.http.export_seconds_max,
            ),
        )
        self.exports = Exports(self.queries)
        self.access = AccessLog(self.audit, self.queries.cursors)

    def wings(self, house: House, catalog: Catalog) -> list[Wing]:
        """Return the pages."""

        def canonical(event_type: str) -> str:
            kind = catalog.resolve(event_type)
            return event_type if kind is None else kind.name

        events = EventPages(self.queries, self.exports, canonical).routes()
        audit = AuditPages(self.access).routes()
        return [(wing("events", events, house), events), (wing("audit", audit, house), audit)]

    async def who_read(self, organization_id: str, user_id: str) -> list[dict[str, Any]]:
        """Return who has read this person's events, newest first."""
        return await self.access.who_read(organization_id, user_id)

    @property
    def troubles(self) -> list[str]:
        """What is wrong with what is read, for `/healthz`."""
        found = [f"{place}: {why}" for place, why in self.reader.troubles.items()]
        return [*self.audit.troubles, *found]

    def close(self) -> None:
        """Let the files go."""
        self.reader.close()
        self.audit.close()


class WhatBecameOf:
    """What became of an event: the store knows what is there, the book what is not."""

    def __init__(self, queries: Queries, roster: Roster, book: ReceiptBook) -> None:
        self._queries, self._roster, self._book = queries, roster, book

    async def find(
        self, organization_id: str | None, event_id: str, principal: Principal
    ) -> WhatBecame | None:
        """Return the last word on the event, if it is in this principal's scope."""
        scope = receipt_scope(principal, self._roster, organization_id)
        line = await self._queries.find(scope, event_id)
        if line is not None:
            if principal.kind == "user":
                asker = Asker(principal=principal, scope=scope)
                await self._queries.note(asker, "receipts.get", Filter(), [line], detail=event_id)
            return _stored(event_id, line)
        told = await self._told(principal, organization_id, event_id)
        if told is None:
            return None
        return WhatBecame(
            event_id=event_id,
            outcome=told.outcome,
            reason=told.reason,
            detail=told.detail,
            received_at=rfc3339(told.at),
        )

    async def _told(
        self, principal: Principal, organization_id: str | None, event_id: str
    ) -> Told | None:
        if principal.role is Role.SYSTEM_ADMIN:
            every = [None, *self._roster.organization_ids()]
            named = every if organization_id is None else [organization_id]
            return await self._book.find(named, event_id)
        if principal.kind == "ingest" or principal.role is Role.SUBSCRIBER_ADMIN:
            return await self._book.find([organization_id], event_id)
        if principal.kind == "user":
            return await self._book.find([organization_id], event_id, principal.id)
        return None


class _Head(Struct):
    """Of a stored line, what a receipt tells."""

    event_type: str
    meta: _Times


class _Times(Struct):
    received_at: str | None = None
    stored_at: str | None = None


def _stored(event_id: str, line: bytes) -> WhatBecame:
    head = _head(line)
    return WhatBecame(
        event_id=event_id,
        outcome=Outcome.STORED,
        event_type=head.event_type,
        received_at=head.meta.received_at,
        stored_at=head.meta.stored_at,
    )


_head = msgspec.json.Decoder(_Head).decode
