"""HTTP/1.1 read in one way only: what two parsers could read differently is refused, then closed.

A proxy in front of the broker and the broker itself must agree where a request ends. h11 is lenient
in a few places (for old clients); here the lenient places are shut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NoReturn

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer

from mlc_broker.model.errors import ConfigError

VERSIONS = frozenset({b"1.0", b"1.1"})
HOST = re.compile(rb"[A-Za-z0-9._~\-]*(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?")
CHUNK_LINE_BYTES_MAX = 256
# The private places of h11 that the two classes below override.
PATCH_POINTS = (
    (h11.Connection, "_extract_next_receive_event"),
    (h11.Connection, "_get_io_object"),
    (h11.Connection, "trailing_data"),
    (ChunkedReader, "__call__"),
)


class StrictConnection(h11.Connection):
    """An h11 server connection that refuses ambiguous framing, and bodies over their limit.

    Raises `h11.RemoteProtocolError` with the status to answer; `refusal` says it in words
    that hold nothing of what was sent.
    """

    refusal = ""

    def __init__(self, *, head_bytes_max: int, body_bytes_max: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=head_bytes_max)
        self._body_bytes_max = body_bytes_max
        self._body_bytes = 0

    @property
    def buffered(self) -> bool:
        """Whether bytes are waiting that do not make a whole request yet."""
        return bool(self._receive_buffer)

    def refuse(self, detail: str, status: int = 400) -> NoReturn:
        """End this connection's conversation with a status and a reason."""
        self.refusal = detail
        raise h11.RemoteProtocolError(detail, error_status_hint=status)

    def _extract_next_receive_event(self) -> Any:
        if self.their_state is h11.IDLE and self._receive_buffer:
            self._check_lines(self.trailing_data[0])
        event = super()._extract_next_receive_event()
        if isinstance(event, h11.Request):
            self._check_request(event)
        elif isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
            self._check_size(self._body_bytes)
        return event

    def _get_io_object(self, role: Any, event: Any, io_dict: Any) -> Callable[..., Any] | None:
        reader = super()._get_io_object(role, event, io_dict)
        return StrictChunks(self.refuse) if type(reader) is ChunkedReader else reader

    def _check_lines(self, buffer: bytes) -> None:
        """Check a request's head as it comes, before h11 joins and folds its lines."""
        head = _section(buffer)
        if _has_bare_newline(head):
            self.refuse("A line ends in CR LF, not in LF or CR alone.")
        if b"\r\n " in head or b"\r\n\t" in head:
            self.refuse("A header is one line: folded lines are not read.")
        if head.endswith(b"\r\n\r\n"):
            lengths = [
                line
                for line in head.lower().split(b"\r\n")
                if line.startswith((b"content-length:", b"content-length "))
            ]
            if len(lengths) > 1 or any(b"," in line for line in lengths):
                self.refuse("Send one Content-Length.")

    def _check_request(self, request: h11.Request) -> None:
        headers = dict(request.headers)
        spoken, target = request.http_version, request.target
        upgrade = headers.get(b"upgrade", b"").lower()
        self._body_bytes = 0
        if spoken not in VERSIONS:
            self.refuse("HTTP/1.1 is spoken here.")
        if b"transfer-encoding" in headers and (b"content-length" in headers or spoken == b"1.0"):
            self.refuse("Send either Content-Length or, in HTTP/1.1, Transfer-Encoding; not both.")
        if not HOST.fullmatch(headers.get(b"host", b"")):
            self.refuse("The Host header is not a host.")
        if b"websocket" in upgrade:
            self.refuse("This is the HTTP listener. WebSocket has one of its own: /v1/stream.")
        if b"h2c" in upgrade:
            self.refuse("HTTP/1.1 is spoken here; send no `Upgrade: h2c`.")
        if request.method == b"CONNECT" or not (target.startswith(b"/") or target == b"*"):
            self.refuse("The request's target is a path that begins with `/`.")
        self._check_size(int(headers.get(b"content-length", b"0")))

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > self._body_bytes_max:
            self.refuse(f"A body has at most {self._body_bytes_max} bytes.", 413)


class StrictChunks(ChunkedReader):
    """Chunks with short size lines and no bare line ends, in trailers too."""

    def __init__(self, refuse: Callable[[str], NoReturn]) -> None:
        super().__init__()
        self._refuse = refuse

    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """Return the next part of the body, or None while it is not whole."""
        if self._reading_trailer:
            if _has_bare_newline(_section(bytes(buf))):
                self._refuse("A line ends in CR LF, not in LF or CR alone.")
        elif not self._bytes_in_chunk and not self._bytes_to_discard:
            # A slice: copying the whole buffer for each tiny chunk would be somebody's weapon.
            line, found, _ = bytes(
                buf._data[: CHUNK_LINE_BYTES_MAX + 2]  # noqa: SLF001
            ).partition(b"\r\n")
            if len(line) > CHUNK_LINE_BYTES_MAX or (found and _has_bare_newline(line + found)):
                self._refuse("A chunk begins with its size on one short line.")
        return super().__call__(buf)


def check_h11() -> None:
    """Raise ConfigError where the installed h11 is not the one this page was written for."""
    for owner, name in PATCH_POINTS:
        if name not in vars(owner):
            raise ConfigError(
                f"h11 {version('h11')} has no {owner.__name__}.{name}: the HTTP guard cannot "
                'stand. Install the tried version: pip install "h11>=0.16,<0.17".'
            )


def _section(buffer: bytes) -> bytes:
    """Return the lines up to the first empty one, and that one; all of it where there is none."""
    if buffer.startswith(b"\r\n"):
        return buffer[:2]
    end = buffer.find(b"\r\n\r\n")
    return buffer if end < 0 else buffer[: end + 4]


def _has_bare_newline(lines: bytes) -> bool:
    pairs = lines.count(b"\r\n")
    returns = lines.count(b"\r") - lines.endswith(b"\r")  # its LF may still be on the way
    return lines.count(b"\n") != pairs or returns != pairs
