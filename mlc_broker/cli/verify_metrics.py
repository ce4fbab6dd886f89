"""`mlc-broker verify --metrics`: counts every stored event anew, and compares, or mends.

A running daemon does it itself and goes on serving; without one the command does it here.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import click
import trio

from mlc_broker import wiring
from mlc_broker.cli import telephone
from mlc_broker.config import Config
from mlc_broker.counting import Counting
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.runtime.telemetry import Telemetry
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Store

_PROGRESS_SECONDS = 1.0


def check_metrics(config: Config, *, rebuild: bool = False) -> dict[str, Any]:
    """Return counts, and `faults`: what the kept cells say that a recount does not.

    Tells on stderr how far it is. With `rebuild` the cells are replaced, and nothing is at fault.
    """
    if telephone.runs(config):
        found = _by_daemon(config, rebuild=rebuild)
    else:
        found = trio.run(partial(_here, config, rebuild=rebuild))
    return {
        "files": found["files"],
        "events": found["events"],
        "cells": found["cells"],
        "faults": found["differences"],
    }


def _by_daemon(config: Config, *, rebuild: bool) -> dict[str, Any]:
    done = threading.Event()

    def tell() -> None:
        while not done.wait(_PROGRESS_SECONDS):
            _say(telephone.ask(config, "metrics.progress"))

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        found: dict[str, Any] = telephone.ask(config, "metrics.check", rebuild=rebuild)
    finally:
        done.set()
    return found


async def _here(config: Config, *, rebuild: bool) -> dict[str, Any]:
    clock = SystemClock()
    catalog = wiring.catalog_of(config)
    store = await Store.open(
        config.data_path,
        categories=wiring.category_of(catalog),
        limits=wiring.store_limits(config),
        clock=clock,
        durability=config.storage.durability,
    )
    roster = Roster(wiring.data_file(config, "roster.db"), clock=clock)
    try:
        await trio.to_thread.run_sync(roster.open)
        counting = Counting(
            config,
            store,
            roster,
            lambda: catalog,
            clock,
            telemetry=Telemetry(),
            audit=None,
            steps=list,
        )
        await counting.open()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_tell, counting)
                found = await counting.verify(rebuild=rebuild)
                nursery.cancel_scope.cancel()
        finally:
            await counting.rollups.close()
    finally:
        roster.close()
        await store.close()
    return found


async def _tell(counting: Counting) -> None:
    while True:
        await trio.sleep(_PROGRESS_SECONDS)
        _say({"files": counting.recounting.files, "events": counting.recounting.events})


def _say(so_far: dict[str, Any]) -> None:
    click.echo(f"{so_far['files']} files, {so_far['events']:,} events counted", err=True)
