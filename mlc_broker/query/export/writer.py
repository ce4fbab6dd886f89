"""What turns stored lines into a file of some format, piece by piece, in constant memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar


class Writer(ABC):
    """One export's format. Sync, used by one thread at a time.

    `add` gets whole lines of JSON, each with its end, and returns what can leave already.
    """

    media: ClassVar[str]
    extension: ClassVar[str]
    surveys: ClassVar[bool] = False  # wants to see all events before the first byte

    def survey(self, body: bytes) -> None:  # noqa: B027 (most need none)
        """Look at events that will come through `add` later."""

    def begin(self) -> bytes:
        """Return what stands before the first event."""
        return b""

    @abstractmethod
    def add(self, body: bytes) -> bytes:
        """Take events; return bytes that can leave."""

    def end(self) -> Iterator[bytes]:
        """Yield what is left, in pieces."""
        yield from ()

    def close(self) -> None:  # noqa: B027 (most have none)
        """Let temporary files go; called once, whatever happened."""


class JsonLines(Writer):
    """One event a line: the stored bytes themselves."""

    media = "application/x-ndjson"
    extension = "jsonl"

    def add(self, body: bytes) -> bytes:
        """Return the lines as they are."""
        return body


class JsonArray(Writer):
    """One JSON array."""

    media = "application/json"
    extension = "json"

    def __init__(self) -> None:
        self._first = True

    def begin(self) -> bytes:
        """Return the bracket."""
        return b"["

    def add(self, body: bytes) -> bytes:
        """Return the events with commas between them."""
        if not body:
            return b""
        before = b"\n" if self._first else b",\n"
        self._first = False
        return before + body[:-1].replace(b"\n", b",\n")

    def end(self) -> Iterator[bytes]:
        """Yield the bracket."""
        yield b"\n]\n"
