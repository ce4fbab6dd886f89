"""Every error of the broker, by who can fix it.

BrokerError
├── ConfigError
│   ├── UnknownProcessor
│   ├── WrongOrder
│   └── UnsafePlugin
├── PluginError
│   ├── PluginLoadError
│   └── ProcessorFailed
├── ClientError
│   ├── Malformed
│   ├── Unauthenticated
│   ├── Forbidden
│   ├── NotFound
│   ├── TooLarge
│   ├── TooMany
│   ├── Unsupported
│   ├── RateLimited
│   └── Unavailable
└── StoreError
    ├── ShardUnavailable
    ├── ShardCorrupt
    └── DirectoryInUse
"""

from __future__ import annotations

from typing import ClassVar


class BrokerError(Exception):
    """Something that somebody must act on. The class says who; the message says how."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigError(BrokerError):
    """The configuration is not usable. The operator mends it; exit status 78."""


class UnknownProcessor(ConfigError):
    """The configuration names a processor that nobody provides."""


class WrongOrder(ConfigError):
    """A processor stands before one that must come first."""


class UnsafePlugin(ConfigError):
    """A plugin file can be written by somebody who should not be able to."""


class PluginError(BrokerError):
    """A plugin's author can fix this. It never stops the house."""


class PluginLoadError(PluginError):
    """A plugin could not be loaded."""


class ProcessorFailed(PluginError):
    """A processor broke on an event."""


class ClientError(BrokerError):
    """The sender can fix this, and is told."""

    code: ClassVar[str] = "malformed"
    status: ClassVar[int] = 400
    close_code: ClassVar[int | None] = None  # None: a WebSocket stays open
    retry_after_ms: int | None = None


class Malformed(ClientError):
    """The message is not what it should be."""


class Unauthenticated(ClientError):
    """There is no valid credential."""

    code = "unauthenticated"
    status = 401
    close_code = 1008


class Forbidden(ClientError):
    """This credential may not do that."""

    code = "forbidden"
    status = 403


class NotFound(ClientError):
    """There is nothing of that name in this credential's scope."""

    code = "not_found"
    status = 404


class TooLarge(ClientError):
    """The message is over its limit."""

    code = "too_large"
    status = 413
    close_code = 1009


class TooMany(ClientError):
    """There are more events in the batch than `max_batch`."""

    code = "too_many"
    status = 413


class Unsupported(ClientError):
    """The body is of a type or an encoding that is not read here."""

    code = "unsupported"
    status = 415


class RateLimited(ClientError):
    """Too much in too short a time."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str = "", *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Unavailable(ClientError):
    """The daemon cannot do this now. Try again later."""

    code = "unavailable"
    status = 503

    def __init__(self, message: str = "", *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class StoreError(BrokerError):
    """The machine, or its keeper, can fix this."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ShardUnavailable(StoreError):
    """A file cannot be written or read now: its events say `retry`."""


class ShardCorrupt(StoreError):
    """A file is damaged. It is set aside and a new one is begun."""


class DirectoryInUse(StoreError):
    """Another daemon works in this data directory; exit status 73."""
