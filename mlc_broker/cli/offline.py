"""The data directory for a command, while no daemon has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mlc_broker import wiring
from mlc_broker.config import Config
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Store
from mlc_broker.telling import Telling


@asynccontextmanager
async def offline(config: Config) -> AsyncIterator[tuple[Telling, Roster]]:
    """Open what answers questions; raises DirectoryInUse when a daemon has the directory."""
    clock = SystemClock()
    store = await Store.open(
        config.data_path,
        categories=wiring.category_of(wiring.catalog_of(config)),
        limits=wiring.store_limits(config),
        clock=clock,
        durability=config.storage.durability,
    )
    try:
        roster = Roster(config.data_path / "roster.db", clock=clock)
        await trio.to_thread.run_sync(roster.open)
        try:
            telling = Telling(config, store, roster, clock)
            try:
                yield telling, roster
            finally:
                telling.close()
        finally:
            roster.close()
    finally:
        await store.close()
