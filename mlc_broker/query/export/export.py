"""An export: everything asked for and in scope, streamed whole. Two entries in the access log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np
import trio
from msgspec import Struct

from mlc_broker.model.errors import Unavailable
from mlc_broker.model.filter import Filter
from mlc_broker.query.export.ahead import Ahead
from mlc_broker.query.export.writer import Writer
from mlc_broker.query.query import Queries, entry_of
from mlc_broker.query.scopes import Asker
from mlc_broker.store.reader import Deadline, Piece, ViewGone
from mlc_broker.store.select import Selection
from mlc_broker.store.view import FileView

CHUNK_BYTES = 1024 * 1024
PEOPLE_MAX = 100_000  # counted exactly up to here
RETRY_MS = 5_000


class Exports:
    """Opens exports, so many at once and no more."""

    def __init__(self, queries: Queries) -> None:
        self.queries = queries
        self.running = 0

    async def open(
        self, asker: Asker, wanted: Filter, make: Callable[[], Writer], name: str
    ) -> Export:
        """Begin an export: its first entry is written. Iterate it to its end, or `aclose` it.

        Raises Unavailable when too many are running, or the access log cannot be written.
        """
        if self.running >= self.queries.limits.exports_max:
            raise Unavailable(
                f"{self.running} exports are running: try again when one has ended.",
                retry_after_ms=RETRY_MS,
            )
        export = Export(self, asker, wanted, make(), name)
        try:
            await export.begin()
        except BaseException:
            export.release()
            raise
        return export


class Chunk(Struct, frozen=True, gc=False):
    """What leaves at once, and for the access log: of how many events, and of whom."""

    body: bytes
    count: int
    people: list[tuple[str, str]]  # (organization, user), those who were in no chunk before


class Export:
    """One export, as an async iterator of bytes."""

    def __init__(
        self, exports: Exports, asker: Asker, wanted: Filter, writer: Writer, name: str
    ) -> None:
        self.writer = writer
        self.count = 0
        self.people: dict[str, set[str]] = {}
        self._exports = exports
        self._queries = exports.queries
        self._asker = asker
        self._wanted = wanted
        self._name = name
        self._holds = True
        self._chunks: Any = None
        self._exports.running += 1

    async def begin(self) -> None:
        """Say in the access log that it begins: whom it will show is not known yet."""
        if not self._is_own():
            await self._record("export.begin", unknown=True)

    def __aiter__(self) -> Export:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes."""
        if self._chunks is None:
            self._chunks = self._run()
        chunk: bytes = await self._chunks.__anext__()
        return chunk

    async def aclose(self) -> None:
        """End it, whether all has left or not."""
        if self._chunks is not None:
            await self._chunks.aclose()
        self.release()

    def release(self) -> None:
        """Make room for another export; may be called twice."""
        if self._holds:
            self._holds = False
            self._exports.running -= 1

    def __del__(self) -> None:
        # A client that left before the first byte: nobody iterated, so nobody closed.
        self.release()

    # --- running ---

    async def _run(self) -> Any:
        whole = False
        try:
            in_thread, writer = self._queries.in_thread, self.writer
            if writer.surveys:
                async with aclosing(self._events(self._survey)) as looked:
                    async for _ in looked:
                        pass
            yield await in_thread(writer.begin)
            async with aclosing(self._events(self._add)) as chunks:
                async for chunk in chunks:
                    yield chunk
            rest = writer.end()
            while (chunk := await in_thread(next, rest, None)) is not None:
                yield chunk
            whole = True
        finally:
            with trio.CancelScope(shield=True):
                await self._finish(whole=whole)

    def _survey(self, body: bytes) -> bytes:
        self.writer.survey(body)
        return b""

    def _add(self, body: bytes) -> bytes:
        return self.writer.add(body)

    async def _events(self, take: Callable[[bytes], bytes]) -> Any:
        """Yield what `take` makes of all events, in order."""
        selection = self._queries.store.select(self._asker.scope, self._wanted)
        deadline = Deadline(self._queries.limits.export_seconds_max)
        for view in self._queries.store.views(selection):
            views: Sequence[FileView] = [view]
            while views:
                chunks = self._chunks_of(views, selection, deadline, take)
                try:
                    async with aclosing(Ahead(chunks, self._queries.in_thread)) as ahead:
                        while (chunk := await ahead.take()) is not None:
                            self._note(chunk)
                            if chunk.body:
                                yield chunk.body
                    views = ()
                except ViewGone:
                    views = self._newer(view, selection)

    def _newer(self, gone: FileView, selection: Selection) -> list[FileView]:
        """Return the version of a sealed file that took the place of one that has left."""
        slot = gone.path.name.split(".")[0]
        views = [
            view
            for view in self._queries.store.views(selection)
            if view.path.parent == gone.path.parent and view.path.name.split(".")[0] == slot
        ]
        if any(view.path == gone.path for view in views):
            raise Unavailable(f"{gone.path.name} cannot be read now: begin the export again.")
        return views

    def _chunks_of(
        self,
        views: Sequence[FileView],
        selection: Selection,
        deadline: Deadline,
        take: Callable[[bytes], bytes],
    ) -> Iterator[Chunk]:
        """Yield a file's events, made ready; runs in a thread."""
        gathered: list[bytes] = []
        people: list[tuple[str, str]] = []
        count = size = 0
        seen: set[int] = set()
        for piece in self._queries.reader.scan(views, selection, deadline=deadline):
            if take == self._add:
                people += self._people_of(piece, seen)
                count += len(piece.rows)
            gathered.append(self._shown(piece.body))
            size += len(piece.body)
            if size >= CHUNK_BYTES:
                yield Chunk(take(b"".join(gathered)), count, people)
                gathered, people, count, size = [], [], 0, 0
        if gathered:
            yield Chunk(take(b"".join(gathered)), count, people)

    def _shown(self, body: bytes) -> bytes:
        if not self._asker.scope.pseudonymous:
            return body
        line = self._queries.pseudonyms.line
        return b"".join(line(one) + b"\n" for one in body.split(b"\n")[:-1])

    def _people_of(self, piece: Piece, seen: set[int]) -> list[tuple[str, str]]:
        rows = piece.rows
        pairs = rows["organization"].astype("<u8") << np.uint64(32) | rows["user"]
        # A set of ints: for some hundred rows numpy's own `unique` costs two or three times as much.
        new = sorted(pair for pair in set(pairs.tolist()) - seen if pair & 0xFFFFFFFF)
        if not new:
            return []
        seen.update(new)
        names = piece.words.names(code for pair in new for code in divmod(pair, 1 << 32))
        return [
            (names.get(organization, ""), names.get(user, ""))
            for organization, user in (divmod(pair, 1 << 32) for pair in new)
        ]

    def _note(self, chunk: Chunk) -> None:
        """Count what is about to leave: what was only read ahead is nobody's reading."""
        self.count += chunk.count
        for organization, user in chunk.people:
            if sum(map(len, self.people.values())) < PEOPLE_MAX:
                self.people.setdefault(organization, set()).add(user)

    async def _finish(self, *, whole: bool) -> None:
        await self._queries.in_thread(self.writer.close)
        self.release()
        me = self._asker.principal
        self.people.get(me.organization_id or "", set()).discard(me.id)
        if any(self.people.values()):
            await self._record("export.end", cut_off=not whole)

    async def _record(self, action: str, *, unknown: bool = False, cut_off: bool = False) -> None:
        entry = entry_of(
            self._asker, action, self._wanted, self.people, self.count, unknown=unknown
        )
        detail = f"{self._name}{', cut off' if cut_off else ''}"
        await self._queries.record(msgspec.structs.replace(entry, detail=detail))

    def _is_own(self) -> bool:
        """Whether nobody else can be in it: a student's own."""
        me = frozenset({self._asker.id})
        grants = self._asker.scope.grants
        return bool(grants) and all(grant.user_ids == me for grant in grants)
