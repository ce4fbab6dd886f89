"""Cursors: where a page ended, signed, so that nobody can make one up."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from struct import Struct as Layout

from mlc_broker.model.errors import Malformed
from mlc_broker.store.reader import Position

_POSITION = Layout("<cqQQ")
_SEAL_BYTES = 12
_EVENTS, _ENTRIES = b"e", b"a"


class Cursors:
    """Makes and reads cursors.

    They outlive restarts, sealing and new events: they name a time and an event, no place in a file.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key[:64]

    def of_position(self, position: Position) -> str:
        """Return the cursor that goes on behind this event."""
        return self._sealed(_EVENTS, position.ts, position.low, position.high)

    def position(self, cursor: str) -> Position:
        """Return the event behind which to go on; raises Malformed."""
        return Position(*self._opened(_EVENTS, cursor))

    def of_entry(self, number: int) -> str:
        """Return the cursor that goes on behind this entry of the access log."""
        return self._sealed(_ENTRIES, number, 0, 0)

    def entry(self, cursor: str) -> int:
        """Return the entry behind which to go on; raises Malformed."""
        return self._opened(_ENTRIES, cursor)[0]

    def _sealed(self, kind: bytes, *numbers: int) -> str:
        body = _POSITION.pack(kind, *numbers)
        return urlsafe_b64encode(body + self._seal(body)).rstrip(b"=").decode()

    def _opened(self, kind: bytes, cursor: str) -> tuple[int, int, int]:
        try:
            data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except ValueError:
            data = b""
        body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
        if len(body) == _POSITION.size and hmac.compare_digest(seal, self._seal(body)):
            told, ts, low, high = _POSITION.unpack(body)
            if told == kind:
                return ts, low, high
        raise Malformed("`cursor` is not one of ours: take it from `next` of the page before.")

    def _seal(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=_SEAL_BYTES).digest()
