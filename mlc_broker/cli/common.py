"""What every command shares: `--config`, exit statuses, and errors in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from mlc_broker.config import Config, load
from mlc_broker.model.errors import BrokerError, ConfigError, DirectoryInUse

OK, FAILED, USAGE, UNAVAILABLE, FAULT, IN_USE, CONFIG = 0, 1, 64, 69, 70, 73, 78
_STOPPED = 130  # by Ctrl-C, as shells say it
_EXTRAS = {"pyarrow": "parquet"}

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """Add `--config FILE`; the command gets the checked `config: Config`."""
    return click.option(
        "--config",
        "config",
        default="config.toml",
        show_default=True,
        metavar="FILE",
        callback=_load,
        help="The daemon's configuration.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`: the answer for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def say(text: str) -> None:
    """Tell the person at the terminal; stdout stays for results."""
    click.echo(text, err=True)


def know_organization(config: Config, organization_id: str) -> None:
    """Put an organization into the roster where it is not: a credential is to work at once."""
    from mlc_broker.model.person import Organization
    from mlc_broker.runtime.clock import SystemClock
    from mlc_broker.store.roster import Roster

    config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    roster = Roster(config.data_path / "roster.db", clock=SystemClock())
    roster.open()
    try:
        if roster.organization(organization_id) is None:
            roster.put("organizations", organization_id, Organization())
            say(f"{organization_id}: new in the roster")
    finally:
        roster.close()


def explain(error: BaseException) -> tuple[int, list[str]]:
    """Return the exit status for an error, and what to tell: never a traceback."""
    error = _cause(error)
    match error:
        case click.exceptions.Exit():
            return error.exit_code, []
        case SystemExit():
            return error.code if isinstance(error.code, int) else FAILED, []
        case click.UsageError():
            return USAGE, [_usage(error)]
        case click.ClickException():
            return USAGE, [error.format_message()]
        case click.Abort() | KeyboardInterrupt():
            return _STOPPED, ["stopped"]
        case BrokenPipeError():
            return OK, []
        case ConfigError():
            return CONFIG, str(error).splitlines()
        case DirectoryInUse():
            return IN_USE, str(error).splitlines()
        case BrokerError():
            hint = getattr(error, "hint", "")
            return UNAVAILABLE, [f"{error}; {hint}" if hint else str(error)]
        case ModuleNotFoundError() if (extra := _extra(error)) is not None:
            return UNAVAILABLE, [
                f"this needs the package {error.name}: pip install 'mlc-broker[{extra}]'"
            ]
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return UNAVAILABLE, [f"{where}{error.strerror or error}"]
        case _:
            return FAULT, [_our_fault(error)]


def _load(_context: click.Context, _option: click.Parameter, value: str) -> Config:
    return load(Path(value))


def _cause(error: BaseException) -> BaseException:
    """Nurseries wrap: the first error that is somebody's to mend is the one to tell."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [_cause(part) for part in error.exceptions]
    return next((part for part in inner if isinstance(part, BrokerError)), inner[0])


def _usage(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx else "mlc-broker"
    return f"{error.format_message()} (`{command} --help` tells more)"


def _extra(error: ModuleNotFoundError) -> str | None:
    return _EXTRAS.get((error.name or "").partition(".")[0])


def _our_fault(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        where = f" at {file.name}:{trace.tb_lineno}"
    said = " ".join(str(error).split())[:300]
    return (
        f"this is a fault of ours: {type(error).__name__}: {said}{where}. Please report it with the "
        "command that you gave; MLC_DEBUG=1 before it shows more"
    )
