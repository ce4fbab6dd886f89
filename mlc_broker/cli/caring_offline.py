"""Care for the data directory while no daemon has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mlc_broker import wiring
from mlc_broker._version import __version__
from mlc_broker.caring import Caring
from mlc_broker.config import Config
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.quarantine import QuarantineFile
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Store


@asynccontextmanager
async def caring_offline(config: Config) -> AsyncIterator[tuple[Caring, Store, Roster]]:
    """Open what cares; raises DirectoryInUse when a daemon has the directory."""
    clock = SystemClock()
    store = await Store.open(
        config.data_path,
        categories=wiring.category_of(wiring.catalog_of(config)),
        limits=wiring.store_limits(config),
        clock=clock,
        durability=config.storage.durability,
    )
    try:
        roster = Roster(wiring.data_file(config, "roster.db"), clock=clock)
        await trio.to_thread.run_sync(roster.open)
        quarantine = open_quarantine(config)
        quarantine.held = lambda: store.files.held
        caring = Caring(config, store, roster, clock)
        caring.purge.places.append(("quarantine", quarantine))
        try:
            yield caring, store, roster
        finally:
            caring.close()
            quarantine.close()
            roster.close()
    finally:
        await store.close()


def open_quarantine(config: Config) -> QuarantineFile:
    """Open the quarantine's file; no daemon may have it."""
    return QuarantineFile(
        wiring.data_file(config, "quarantine.db"),
        wiring.secret_of(config, "quarantine.key")[:32],
        build=__version__,
        bytes_max=config.storage.quarantine_bytes_max,
    )
