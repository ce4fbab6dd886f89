"""A small HTTP/1.1 client on trio and h11: one request a connection, answers read in pieces."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import h11
import msgspec
import trio

BODY_BYTES_MAX = 16 * 1024 * 1024
LINE_BYTES_MAX = 4 * 1024 * 1024
READ_BYTES = 65_536

Line: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Away(Exception):
    """The daemon cannot be reached, or the connection broke: what was not answered is open."""


class Refused(Exception):
    """The daemon answered with an error that trying again will not change."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Answer(msgspec.Struct, frozen=True):
    """Status, headers in lower case, and the whole body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body decoded; raise Refused when it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except ValueError as error:
            raise Refused(f"the answer is not JSON: {self.body[:200]!r}") from error

    @property
    def retry_after_seconds(self) -> float:
        """How long the daemon asks to wait; 1 s where it does not say."""
        said = self.headers.get("retry-after", "1")
        return min(30.0, float(said)) if said.isdigit() else 1.0


async def open_stream(url: str, *, seconds_max: float) -> Line:
    """Connect to the host of a URL (http, https, ws, wss); raise Away when it is not there."""
    there = urlsplit(url)
    secure = there.scheme in {"https", "wss"}
    port = there.port or (443 if secure else 80)
    try:
        with trio.fail_after(seconds_max):
            stream = await trio.open_tcp_stream(there.hostname or "", port)
            if not secure:
                return stream
            context = ssl.create_default_context()
            return trio.SSLStream(stream, context, server_hostname=there.hostname)
    except (OSError, trio.TooSlowError) as error:
        raise Away(f"{there.netloc} does not answer: {error}") from error


async def request(
    base: str,
    method: str,
    path: str,
    *,
    token: str | None = None,
    body: bytes = b"",
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
    seconds_max: float = 30.0,
) -> Answer:
    """Ask once and read the whole answer; raise Away when the connection breaks."""
    try:
        with trio.fail_after(seconds_max):
            async with asked(
                base, method, path, token=token, body=body,
                content_type=content_type, headers=headers,
            ) as (status, said, parts):  # fmt: skip
                whole = bytearray()
                async for part in parts:
                    whole += part
                    if len(whole) > BODY_BYTES_MAX:
                        raise Refused(f"the answer is longer than {BODY_BYTES_MAX} bytes")
                return Answer(status, said, bytes(whole))
    except trio.TooSlowError as error:
        raise Away(f"{method} {path}: no answer in {seconds_max:.0f} s") from error


@asynccontextmanager
async def asked(
    base: str,
    method: str,
    path: str,
    *,
    token: str | None = None,
    body: bytes = b"",
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
) -> AsyncIterator[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
    """Ask, and hand out status, headers and the body in pieces, however long it is."""
    there = urlsplit(base)
    said = [("Host", there.netloc), ("Connection", "close"), *headers]
    if token:
        said.append(("Authorization", f"Bearer {token}"))
    if body:
        said += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    stream = await open_stream(base, seconds_max=10)
    parser = h11.Connection(h11.CLIENT)
    try:
        out = parser.send(h11.Request(method=method, target=path, headers=said)) or b""
        out += (parser.send(h11.Data(data=body)) or b"") if body else b""
        await stream.send_all(out + (parser.send(h11.EndOfMessage()) or b""))
        event = await _next(parser, stream)
        while isinstance(event, h11.InformationalResponse):
            event = await _next(parser, stream)
        if not isinstance(event, h11.Response):
            raise Away(f"{method} {path}: the connection was closed without an answer")
        names = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in event.headers}
        async with aclosing(_parts(parser, stream)) as parts:
            yield event.status_code, names, parts
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
        raise Away(f"{method} {path}: {error}") from error
    finally:
        await trio.aclose_forcefully(stream)


async def lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Cut a body into its lines; raise Refused when one is longer than anything sensible."""
    rest = bytearray()
    async for part in parts:
        rest += part
        *whole, last = rest.split(b"\n")
        for line in whole:
            if line.strip():
                yield bytes(line)
        rest = last
        if len(rest) > LINE_BYTES_MAX:
            raise Refused(f"a line of the answer is longer than {LINE_BYTES_MAX} bytes")
    if rest.strip():
        yield bytes(rest)


async def _parts(parser: h11.Connection, stream: trio.abc.Stream) -> AsyncGenerator[bytes, None]:
    while True:
        event = await _next(parser, stream)
        if isinstance(event, h11.Data):
            yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return
        else:
            raise Away("the answer broke off")


async def _next(parser: h11.Connection, stream: trio.abc.Stream) -> Any:
    while True:
        event = parser.next_event()
        if event is not h11.NEED_DATA:
            return event
        parser.receive_data(bytes(await stream.receive_some(READ_BYTES)))
