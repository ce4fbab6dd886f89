"""The daemon's log: JSON lines on stderr, words on a terminal, levels that systemd understands.

Never an event's content, a name or a credential at `info` or above. Control characters are escaped
everywhere, so that one entry is one line whatever a client sent.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

_VALUE_CHARACTERS_MAX = 2000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SYSLOG = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def set_up(
    stream: TextIO | None = None,
    *,
    level: str = "info",
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send structlog, and the libraries' own logging, to `stream` (stderr)."""
    out = sys.stderr if stream is None else stream
    under_systemd = bool(environ.get("JOURNAL_STREAM") or environ.get("INVOCATION_ID"))
    last: Any = _words if out.isatty() else _json_line(prefixed=under_systemd)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            exception_in_words,
            escape_controls,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)


def escape_controls(_logger: Any, _name: str, entry: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Escape line ends, escape sequences and the like; shorten what is too long."""
    return {_clean_text(str(key)): _clean(value) for key, value in entry.items()}


def exception_in_words(
    _logger: Any, _name: str, entry: MutableMapping[str, Any]
) -> Mapping[str, Any]:
    """Turn `exc_info` into one line: what it was and where; the file and line help to report it."""
    info = entry.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        entry["error"] = f"{type(error).__name__}: {error}"
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None:
            code = trace.tb_frame.f_code
            entry["at"] = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
    return entry


def _clean(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {_clean_text(str(key)): _clean(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(item) for item in value]
        case _:
            return _clean_text(str(value))


def _clean_text(text: str) -> str:
    short = text if len(text) <= _VALUE_CHARACTERS_MAX else text[:_VALUE_CHARACTERS_MAX] + "…"
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", short)


def _json_line(*, prefixed: bool) -> Any:
    render = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)

    def line(logger: Any, name: str, entry: MutableMapping[str, Any]) -> str:
        number = _SYSLOG.get(str(entry.get("level")), 6)
        prefix = f"<{number}>" if prefixed else ""  # systemd reads the level from it
        return prefix + str(render(logger, name, entry))

    return line


def _words(_logger: Any, _name: str, entry: MutableMapping[str, Any]) -> str:
    at, level, event = (str(entry.pop(key, "")) for key in ("timestamp", "level", "event"))
    rest = "  ".join(f"{key}={value}" for key, value in entry.items())
    return f"{at[11:23]} {level:<8} {event}  {rest}".rstrip()


class _Bridge(logging.Handler):
    """Hands what libraries log to structlog: one format, one place that escapes."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        write = getattr(structlog.get_logger(), level if level in _SYSLOG else "info")
        entry: dict[str, Any] = {"library": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            entry["exc_info"] = record.exc_info[1]
        write(record.getMessage(), **entry)
