"""What both listeners need below their protocols: sockets, counts of guests, and files to open."""

from __future__ import annotations

import resource
import socket
import ssl
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from mlc_broker.model.errors import ConfigError

Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]
BACKLOG_CONNECTIONS = 1024
KEEPALIVE_IDLE_SECONDS = 30
KEEPALIVE_PROBE_SECONDS = 10
KEEPALIVE_PROBES_MAX = 3
UNACKNOWLEDGED_MS_MAX = 60_000  # sent bytes that a vanished peer never acknowledges


class Doorkeeper:
    """Counts the guests of one listener: all of them, and those of one address.

    Loopback has no limit of its own: behind a reverse proxy everybody comes from there.
    """

    def __init__(self, *, connections_max: int, connections_per_address_max: int) -> None:
        self._connections_max = connections_max
        self._per_address_max = connections_per_address_max
        self._guests: Counter[str] = Counter()
        self.connections = 0

    @contextmanager
    def admit(self, address: str) -> Generator[bool]:
        """Let one connection in while the block runs; False where there is no room for it."""
        if not self._room(address):
            yield False
            return
        self.connections += 1
        self._guests[address] += 1
        try:
            yield True
        finally:
            self.connections -= 1
            self._guests[address] -= 1
            if not self._guests[address]:
                del self._guests[address]

    def _room(self, address: str) -> bool:
        if self.connections >= self._connections_max:
            return False
        return _is_local(address) or self._guests[address] < self._per_address_max


async def listen(address: str) -> list[trio.SocketListener]:
    """Open the TCP listeners of a `HOST:PORT`; port 0 asks for a free one.

    Raises ConfigError, which names the address, where it is unusable.
    """
    host, port = split_address(address)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG_CONNECTIONS)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot listen on {address}: {reason}; change `listen`.") from error
    # One name with two addresses gets two free ports; only one of them can be announced.
    for spare in listeners[1:] if port == 0 else ():
        await spare.aclose()
    return listeners[:1] if port == 0 else listeners


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPv6]:PORT`; ConfigError where it is neither."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f'"{address}" is no address; write `listen = "127.0.0.1:7310"`.')
    return bare, int(port)


def inherit(descriptors: Sequence[int]) -> list[trio.SocketListener]:
    """Make listeners of the file descriptors that systemd's socket activation hands over."""
    return [
        trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        for descriptor in descriptors
    ]


def addresses(listeners: Sequence[Listener]) -> list[str]:
    """Say where the listeners are, as `HOST:PORT` or the path of a UNIX socket."""
    return [_name_of(plain(listener).socket.getsockname()) for listener in listeners]


def plain(listener: Listener) -> trio.SocketListener:
    """Return the socket listener, from inside TLS where there is TLS."""
    if isinstance(listener, trio.SSLListener):
        inner = listener.transport_listener
        if not isinstance(inner, trio.SocketListener):
            raise TypeError(f"TLS stands on a socket here, not on {type(inner).__name__}")
        return inner
    return listener


def encrypt(listeners: Sequence[Listener], context: ssl.SSLContext | None) -> list[Listener]:
    """Put TLS around plain listeners; without a context they stay as they are."""
    if context is None:
        return list(listeners)
    return [trio.SSLListener(plain(it), context, https_compatible=True) for it in listeners]


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Make the TLS side of a listener: TLS 1.2 and 1.3, forward secrecy, HTTP/1.1 only.

    A renewed certificate comes into force for new connections when `load_cert_chain`
    is called on the same context again.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the TLS certificate {certificate} with its key {key} cannot be used: {error}; "
            "mend `tls_certificate` and `tls_key`."
        ) from error
    return context


def watch_for_vanished_peers(sock: trio.socket.SocketType) -> None:
    """Let the kernel end a connection whose other end is gone without a word."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    with suppress(OSError):  # a peer that has already left
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
            ("TCP_KEEPINTVL", KEEPALIVE_PROBE_SECONDS),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES_MAX),
            ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS_MAX),
        ):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def peer_address(sock: trio.socket.SocketType) -> str:
    """Return the address (no port) at the other end; empty for UNIX sockets and for the gone."""
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""


def raise_open_files_limit() -> int:
    """Lift this process's soft limit of open files to the hard one; return what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # some platforms refuse their own maximum
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _is_local(address: str) -> bool:
    return not address or address == "::1" or address.startswith(("127.", "::ffff:127."))


def _name_of(name: object) -> str:
    if isinstance(name, tuple):
        host, port = str(name[0]), name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(name)
