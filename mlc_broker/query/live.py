"""The live feed: who may read what was just committed gets the stored lines, a moment later.

`committed` is called with every commit and only notes it; a task of its own looks, ten times a
second, what of it each subscriber may see. It is the same look as a query's: a Scope on packed
columns (`store/select.py`). Without subscribers nothing is noted at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from mlc_broker.model.errors import StoreError, TooMany, Unavailable
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Hierarchy, Principal, Role, Scope
from mlc_broker.query.live_subscription import LiveLimits, Subscription
from mlc_broker.query.scopes import Asker, asker_for, ferpa_class
from mlc_broker.store.audit_entry import Entry
from mlc_broker.store.columns import Rows
from mlc_broker.store.hot import Committed
from mlc_broker.store.index import MENTIONED
from mlc_broker.store.select import Selection, Words, mentions, select
from mlc_broker.store.store import Store

SLICE_SECONDS = (
    0.001  # of delivering, then as long a pause: a commit takes several turns of the loop
)

Rename = Callable[[bytes], bytes]
"""A stored line with its person's pseudonym in place of their id."""


class AccessLog(Protocol):
    """Who keeps the access log: `store/audit.py` fits."""

    async def record(self, *entries: Entry) -> None:
        """Commit entries; StoreError where they cannot be written: then nothing may be read."""


class Watcher(Protocol):
    """Who knows how metrics change."""

    async def watch(
        self, principal: Principal, metric: str, group_by: list[str], window: str, filter_: Filter
    ) -> AsyncIterator[tuple[Any, list[dict[str, Any]]]]:
        """Begin to watch: the value at once, and after every change. Raises ClientError."""


class Live:
    """All live subscribers of one store. Hand `committed` to its `on_commit`, and run `run`."""

    def __init__(
        self,
        store: Store,
        hierarchy: Hierarchy,
        *,
        rename: Rename,
        access_log: AccessLog | None = None,
        watcher: Watcher | None = None,
        limits: LiveLimits | None = None,
    ) -> None:
        """`rename` gives pseudonyms to lines that are read across organizations."""
        self.watcher = watcher
        self.access_log = access_log
        self.limits = limits or LiveLimits()
        self.last = last_sequence(store)  # of what was committed
        self.store = store
        self._hierarchy = hierarchy
        self._rename = rename
        self._subscribers: set[Subscription] = set()
        self._noted: list[Committed] = []
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._subscribers)

    def committed(self, committed: Committed) -> None:
        """Note a commit; called by the writer behind it."""
        self.last = committed.sequence + committed.pack.n - 1
        if self._subscribers:
            self._noted.append(committed)
            self._wake.set()

    async def run(self) -> None:
        """Deliver what is noted, for ever."""
        while True:
            await self._wake.wait()
            await trio.sleep(self.limits.deliver_seconds)
            self._wake = trio.Event()
            await self.deliver()

    async def deliver(self) -> None:
        """Give every subscriber what has been noted."""
        noted, self._noted = self._noted, []
        for group in _by_file(noted):
            words = self.store.files.hot[group[0].hot].dictionary
            batch = Batch(group, self._rename)
            await trio.lowlevel.checkpoint()
            began = trio.current_time()
            for subscriber in list(self._subscribers):
                self._offer(subscriber, batch, words)
                if trio.current_time() - began > SLICE_SECONDS:
                    await trio.sleep(SLICE_SECONDS)  # publishing goes first
                    began = trio.current_time()

    async def subscribe(self, principal: Principal, filter_: Filter) -> Subscription:
        """Begin a subscription: from this call's return on nothing is left out but by `missed`.

        Raises Forbidden where there is nothing to read, TooMany where too many read already, and
        Unavailable where the access log cannot be written.
        """
        await self.admit(principal, filter_)
        return self.join(principal, filter_, after=self.last)

    async def admit(self, principal: Principal, filter_: Filter) -> None:
        """Write down who begins to read what; raises as `subscribe`."""
        asker = asker_for(principal, self._hierarchy, filter_)
        if len(self._subscribers) >= self.limits.subscribers_max:
            raise TooMany(f"At most {self.limits.subscribers_max} live readers: try again later.")
        if self.access_log is not None and not _reads_own(principal, filter_):
            try:
                await self.access_log.record(_entry(asker, filter_))
            except StoreError as error:
                raise Unavailable(f"Nothing is read unlogged: {error}") from error

    def join(self, principal: Principal, filter_: Filter, *, after: int) -> Subscription:
        """Return a subscription to what is committed behind the sequence `after`. Admit first."""
        subscription = Subscription(
            principal,
            filter_,
            self.scope(principal, filter_),
            after=after,
            limits=self.limits,
            leave=self._subscribers.discard,
        )
        self._subscribers.add(subscription)
        return subscription

    async def watch(
        self, principal: Principal, metric: str, group_by: list[str], window: str, filter_: Filter
    ) -> AsyncIterator[tuple[Any, list[dict[str, Any]]]]:
        """Begin to watch a metric; raises ClientError."""
        if self.watcher is None:
            raise Unavailable("Metrics are not watched here.", retry_after_ms=60_000)
        return await self.watcher.watch(principal, metric, group_by, window, filter_)

    def scope(self, principal: Principal, filter_: Filter) -> Scope:
        """Return what the principal may read now; a System Admin may name one organization."""
        return asker_for(principal, self._hierarchy, filter_).scope

    def selection(self, subscription: Subscription) -> Selection:
        """Return what a subscriber may see now: the roster may have changed since."""
        subscription.scope = self.scope(subscription.principal, subscription.filter)
        return self.store.select(subscription.scope, subscription.filter)

    def lines(self, scope: Scope, lines: list[bytes]) -> list[bytes]:
        """Return stored lines as this scope reads them."""
        return [self._rename(line) for line in lines] if scope.pseudonymous else lines

    def end(self) -> None:
        """End every subscription: the daemon stops."""
        for subscription in list(self._subscribers):
            subscription.end()

    def _offer(self, subscription: Subscription, batch: Batch, words: Words) -> None:
        wanted = self.selection(subscription)
        places = batch.mentioning(mentions(words, wanted))
        if len(places):
            places = places[select(batch.rows[places], words, wanted)]
        if subscription.after >= batch.first:
            places = places[batch.sequences[places] > subscription.after]
        if len(places):
            pseudonymous = subscription.scope.pseudonymous
            lines = batch.lines(places.tolist(), pseudonymous=pseudonymous)
            subscription.put(batch.sequences[places].tolist(), lines)


class Batch:
    """Commits of one hot file that are delivered together; every line is opened once."""

    def __init__(self, commits: list[Committed], rename: Rename) -> None:
        self.rows: Rows = np.concatenate([commit.rows for commit in commits])
        self.first = commits[0].sequence
        self.sequences: NDArray[np.int64] = np.concatenate(
            [np.arange(it.sequence, it.sequence + it.pack.n, dtype=np.int64) for it in commits]
        )
        self._rename = rename
        self._places = [
            (commit.pack, place) for commit in commits for place in range(commit.pack.n)
        ]
        self._opened: dict[int, list[bytes]] = {}
        self._renamed: dict[int, bytes] = {}
        codes = np.concatenate([self.rows[name] for name in MENTIONED])
        order = np.argsort(codes, kind="stable")
        self._mentioned, self._at = codes[order], order % len(self.rows)

    def mentioning(self, needs: list[list[int]]) -> NDArray[np.intp]:
        """Return the places of rows that mention one code of the shortest list in `needs`.

        Most readers want one person's or one class's events: they look at those rows alone.
        """
        if not needs:
            return np.arange(len(self.rows))
        codes = np.array(min(needs, key=len), self._mentioned.dtype)
        begins = np.searchsorted(self._mentioned, codes, "left").tolist()
        ends = np.searchsorted(self._mentioned, codes, "right").tolist()
        found = [self._at[i:j] for i, j in zip(begins, ends, strict=True) if i < j]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.intp)

    def lines(self, places: list[int], *, pseudonymous: bool) -> list[bytes]:
        """Return the lines at these places of `rows`."""
        if not pseudonymous:
            return [self._line(place) for place in places]
        for place in places:
            if place not in self._renamed:
                self._renamed[place] = self._rename(self._line(place))
        return [self._renamed[place] for place in places]

    def _line(self, place: int) -> bytes:
        pack, within = self._places[place]
        opened = self._opened.get(id(pack))
        if opened is None:
            opened = self._opened[id(pack)] = pack.lines()
        return opened[within]


def _reads_own(principal: Principal, filter_: Filter) -> bool:
    return principal.role is Role.STUDENT or filter_.user_id == frozenset({principal.id})


def _entry(asker: Asker, filter_: Filter) -> Entry:
    principal, scope = asker.principal, asker.scope
    asked = msgspec.to_builtins(filter_, order="deterministic")
    return Entry(
        who=principal.id,
        role=principal.role or "",
        action="live",
        asker_organization_id=principal.organization_id,
        organization_id=scope.organization_id,
        filters={name: value for name, value in asked.items() if value is not None},
        more_subjects=True,  # whose events will come by is not known yet
        ferpa_class=ferpa_class(asker),
    )


def last_sequence(store: Store) -> int:
    """Return the sequence of the last event that was committed."""
    return max((_last_of(hot.index.entries) for hot in store.files.hot.values()), default=0)


def _last_of(entries: NDArray[Any]) -> int:
    return int(entries[-1]["key"] + entries[-1]["n"]) - 1 if len(entries) else 0


def _by_file(commits: list[Committed]) -> list[list[Committed]]:
    groups: dict[int, list[Committed]] = {}
    for commit in commits:
        groups.setdefault(commit.hot, []).append(commit)
    return list(groups.values())
