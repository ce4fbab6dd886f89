"""What systemd and the daemon tell each other: readiness, the watchdog, sockets made beforehand.

Without systemd every call does nothing and costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

import trio

_FIRST_HANDED_FD = 3
_MICROSECONDS = 1_000_000
_STATUS_CHARACTERS_MAX = 200


class Notifier:
    """Tells systemd how we are, by the socket named in `$NOTIFY_SOCKET`."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """Both doors are open."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A SIGHUP is being carried out; `ready` ends it."""
        self._send("RELOADING=1")

    def stopping(self) -> None:
        """We take no more."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        line = text.replace("\n", " ")[:_STATUS_CHARACTERS_MAX]
        self._send(f"STATUS={line}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A missing or full socket is systemd's trouble, never ours.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify,
        ):
            notify.setblocking(False)
            notify.sendto(message.encode(), self._address)


def watchdog_seconds(
    environ: Mapping[str, str] = os.environ, pid: int | None = None
) -> float | None:
    """Return how long we may be silent, or None when nobody watches."""
    value = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", "")
    if meant and meant != str(os.getpid() if pid is None else pid):
        return None
    if not value.isdigit() or int(value) == 0:
        return None
    return int(value) / _MICROSECONDS


async def feed_watchdog(
    notifier: Notifier, every_seconds: float, probe: Callable[[], Awaitable[bool]]
) -> None:
    """Say `alive` as long as `probe`, which crosses the loop and the writers, says True.

    A probe that hangs feeds nobody: then systemd ends the process and starts it anew. Hand in a
    third of `watchdog_seconds()`.
    """
    while True:
        if await probe():
            notifier.alive()
        await trio.sleep(every_seconds)


def handed_sockets(
    environ: Mapping[str, str] = os.environ, pid: int | None = None
) -> dict[str, socket.socket]:
    """Return the listening sockets that a .socket unit made, by their `FileDescriptorName=`."""
    if environ.get("LISTEN_PID", "") != str(os.getpid() if pid is None else pid):
        return {}
    count = environ.get("LISTEN_FDS", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for index in range(int(count) if count.isdigit() else 0):
        name = names[index] if index < len(names) and names[index] else f"unnamed-{index}"
        handed = socket.socket(fileno=_FIRST_HANDED_FD + index)
        handed.set_inheritable(False)
        found[name] = handed
    return found
