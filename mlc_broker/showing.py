"""The roof over what is shown: the live feed, the pages, and where the daemon is to be found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from prometheus_client import Gauge

from mlc_broker import wiring
from mlc_broker._version import __version__
from mlc_broker.config import Config
from mlc_broker.edge.house import House
from mlc_broker.edge.http.app import Wing
from mlc_broker.edge.http.live import live_wing
from mlc_broker.edge.http.pages import DemoToken, pages_wing
from mlc_broker.query.live import Live
from mlc_broker.query.live_figures import Figures
from mlc_broker.query.live_flow import Flow
from mlc_broker.query.live_subscription import LiveLimits
from mlc_broker.query.pseudonyms import Pseudonyms
from mlc_broker.runtime.clock import Clock
from mlc_broker.runtime.telemetry import Telemetry
from mlc_broker.store.hot import Committed
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Store

if TYPE_CHECKING:
    from mlc_broker.dev import Guests

ENDPOINTS = "endpoints.json"


class Fan:
    """Tells several of every commit, in order. They must not wait, and not raise."""

    def __init__(self, hooks: Iterable[Callable[[Committed], None]]) -> None:
        self._hooks = tuple(hooks)

    def __call__(self, committed: Committed) -> None:
        """Tell them."""
        for hook in self._hooks:
            hook(committed)


class Showing:
    """What shows the house to those who look. Open it after the store and the roster."""

    def __init__(
        self,
        config: Config,
        store: Store,
        roster: Roster,
        telemetry: Telemetry,
        clock: Clock,
        *,
        steps: Callable[[], Iterable[Any]],
        dev: Guests | None = None,
    ) -> None:
        """`steps` are the processors in force; `dev` has the demo's people (`serve --dev`)."""
        self._config, self._dev = config, dev
        key = wiring.secret_of(config, config.privacy.pseudonym_key_file)
        self.live = Live(
            store,
            roster,
            rename=Pseudonyms(key).line,
            limits=LiveLimits(subscriber_events_max=config.websocket.subscriber_events_max),
        )
        self.flow = Flow(store.files)
        self.figures = Figures(
            telemetry, self.flow, steps=steps, subscribers=self.live, clock=clock
        )
        readers = Gauge("mlc_live_readers", "Live subscriptions", registry=telemetry.registry)
        readers.set_function(lambda: len(self.live))

    def wings(self, house: House, stopping: trio.Event, stream_url: str) -> list[Wing]:
        """Return the pages; `stream_url` is where browsers reach the WebSocket."""
        dev = self._dev

        def demo_token() -> DemoToken:
            assert dev is not None
            return DemoToken(dev.token("student"), stream_url)

        return [
            live_wing(house, self.live, self.figures, stopping),
            pages_wing(house, None if dev is None else demo_token),
        ]

    @contextmanager
    def endpoints(self, ws: str, http: str) -> Iterator[None]:
        """Write where the daemon listens for the commands that talk to it, and take it away."""
        path = endpoints_file(self._config)
        told = {
            "ws": f"{ws}/v1/stream",
            "http": http,
            "pid": os.getpid(),
            "version": __version__,
            # `serve --dev` signs with a secret of its own.
            "secret_file": str(self._config.secret_path(self._config.auth.secret_file)),
        }
        fresh = path.with_name(path.name + ".new")
        handle = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(told, file)
        fresh.replace(path)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


def endpoints_file(config: Config) -> Path:
    """Return the file that says where a running daemon listens."""
    return wiring.data_file(config, ENDPOINTS)
