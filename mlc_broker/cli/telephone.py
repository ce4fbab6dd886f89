"""How a command calls the running daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlc_broker.config import Config
from mlc_broker.model.errors import BrokerError, ConfigError
from mlc_broker.runtime import control

CONTROL = "control.sock"


def runs(config: Config) -> bool:
    """Say whether a daemon of this configuration answers."""
    return control.answers(config.data_path / CONTROL)


def ask(config: Config, verb: str, *, seconds_max: float = 60.0, **args: Any) -> Any:
    """Ask the daemon; BrokerError tells what it refused, an OSError that none runs."""
    try:
        return control.ask(config.data_path / CONTROL, verb, args, seconds_max=seconds_max)
    except control.Refused as error:
        raise _in_words(error) from None


def follow(config: Config, verb: str, **args: Any) -> Iterator[Any]:
    """Yield what the daemon tells until it has no more."""
    try:
        yield from control.follow(config.data_path / CONTROL, verb, args)
    except control.Refused as error:
        raise _in_words(error) from None


def _in_words(error: control.Refused) -> BrokerError:
    kind = {"ConfigError": ConfigError}.get(error.kind, BrokerError)
    return kind(str(error))
