"""The roof over plugins: their actors, the watchdog, and the telephone that commands call on."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from mlc_broker import wiring
from mlc_broker.config import Config, load
from mlc_broker.model.errors import BrokerError
from mlc_broker.pipeline.actor import Actor
from mlc_broker.pipeline.plugins import Plugins, troubles
from mlc_broker.pipeline.processor import Tools
from mlc_broker.pipeline.registry import Step
from mlc_broker.runtime.control import Control

CONTROL = "control.sock"


class Extending:
    """Open it after the store, which has taken the data directory; `close` it last."""

    def __init__(self, config: Config, random: Random) -> None:
        self._config, self._random = config, random
        self.plugins = Plugins(config.data_path, types_path=config.types_path)
        self.control = Control(config.data_path / CONTROL, {}, told=(BrokerError,))
        self._actors: Callable[[], Sequence[Actor]] = list

    def actors(self, steps: Sequence[Step], tools: Tools) -> list[Actor]:
        """Return an actor for each step of the chain."""
        seconds = self._config.limits.answer_seconds_max
        return self.plugins.actors(steps, tools, self._random, answer_seconds_max=seconds)

    def answer(
        self,
        actors: Callable[[], Sequence[Actor]],
        tools: Callable[[], Tools],
        reload: Callable[[], Awaitable[str]],
    ) -> None:
        """Let `mlc-broker plugins …` reach the daemon."""
        self._actors = actors
        handlers = self.plugins.handlers(
            actors, tools, lambda: wiring.steps_of(load(self._config.file)), reload
        )
        self.control.add(handlers)

    def health(self) -> dict[str, Any]:
        """Return what `/healthz` tells of plugins: nothing while all are well."""
        found = troubles(self._actors())
        return {"status": "degraded", "plugins": found} if found else {}

    def close(self) -> None:
        """The house ends well."""
        self.plugins.stop()

    def leave(self) -> None:
        """Everything is written; a plugin that would not let trio end is not waited for."""
        if self.plugins.left_behind:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
