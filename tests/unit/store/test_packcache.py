"""Opened packs stay as long as there is room, by what they really take."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlc_broker.model.principal import EVERYTHING
from mlc_broker.store.pack import Pack
from mlc_broker.store.reader import Deadline, Found, Reader
from mlc_broker.store.store import Store
from tests.fakes_store import event, outcomes, running

PACKS, EVENTS = 12, 40


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Pack]:
    """The packs that were read whole and checked."""
    packs: list[Pack] = []
    verify = Pack.verify

    def noting(pack: Pack) -> None:
        packs.append(pack)
        verify(pack)

    monkeypatch.setattr(Pack, "verify", noting)
    return packs


async def filled(store: Store) -> None:
    for number in range(PACKS):
        await outcomes(store, *(event(EVENTS * number + n) for n in range(EVENTS)))


def everything(reader: Reader, store: Store) -> list[Found]:
    selection = store.select(EVERYTHING)
    views = store.views(selection)
    return reader.page(views, selection, limit=1_000, deadline=Deadline(5.0))


async def test_what_fits_is_checked_once(tmp_path: Path, checked: list[Pack]) -> None:
    async with running(tmp_path) as store:
        await filled(store)
        reader = Reader()
        first = everything(reader, store)
        assert (len(first), len(checked)) == (PACKS * EVENTS, PACKS)
        assert everything(reader, store) == first
        assert len(checked) == PACKS
        reader.close()


async def test_lines_that_were_asked_for_take_room_too(tmp_path: Path, checked: list[Pack]) -> None:
    async with running(tmp_path) as store:
        await filled(store)
        line_bytes = len(everything(Reader(), store)[0].line)
        bare = Reader(cache_bytes_max=PACKS * EVENTS * line_bytes)  # their lines alone are more
        first = everything(bare, store)
        assert everything(bare, store) == first
        checked.clear()
        assert everything(bare, store) == first
        assert 0 < len(checked) <= PACKS
        bare.close()
