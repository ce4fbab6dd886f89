"""What is taken out of a file leaves no byte behind: neither events nor the words for them."""

from __future__ import annotations

from pathlib import Path

from mlc_broker.store.select import gone_for
from mlc_broker.store.shard import Shard
from tests.fakes_store import SetClock, event, ids, outcomes, read, running

ADA, BEN = "ada-lovelace-1815", "ben-1990"
HIDDEN = frozenset({("org", ADA)})
NEVER = -(2**62)


def everything(place: Path) -> bytes:
    """Return every byte of every file but the manifest, which knows who is being erased."""
    files = [file for file in place.rglob("*") if file.is_file() and file.name[:4] != "meta"]
    return b"".join(file.read_bytes() for file in files)


async def fill(place: Path) -> Path:
    """Store and seal events of both; return the home."""
    async with running(place) as store:
        for number in range(300):
            who = ADA if number % 2 else BEN
            made = event(number, user_id=who, session_id=f"session-of-{who}-{number // 20}")
            await outcomes(store, made)
        await store.seal_now()
        await store.release(grace_seconds=0)
    assert ADA.encode() in everything(place)
    return next(place.glob("shards/*/*/*.db"))


async def test_a_person_dropped_from_a_home_leaves_no_byte_in_it(tmp_path: Path) -> None:
    shard = Shard(await fill(tmp_path))
    assert sum(shard.drop(gone_for(NEVER, HIDDEN), code) for code in shard.codes([ADA])) == 150
    assert shard.checkpoint()
    assert ADA.encode() not in everything(tmp_path)
    assert BEN.encode() in everything(tmp_path)
    shard.close()
    assert ADA.encode() not in everything(tmp_path)
    async with running(tmp_path) as store:
        assert {line["user_id"] for line in read(store)} == {BEN}


async def test_a_code_is_not_given_again_after_its_word_is_gone(tmp_path: Path) -> None:
    shard = Shard(await fill(tmp_path))
    before = shard.codes([ADA])
    shard.drop(gone_for(NEVER, HIDDEN), before[0])
    assert shard.codes([ADA]) == []
    assert shard._code("somebody new") not in before
    shard.close()


async def test_a_merged_home_has_only_the_words_that_it_uses(tmp_path: Path) -> None:
    home = await fill(tmp_path)
    shard, target = Shard(home), home.with_name("0.1.db")
    assert sum(shard.merge_into(target, gone_for(NEVER, HIDDEN), run=1)) == 150
    shard.close()
    home.unlink()
    assert ADA.encode() not in everything(tmp_path)
    assert BEN.encode() in everything(tmp_path)


async def test_sealing_leaves_a_hidden_persons_words_behind(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        await outcomes(store, event(1, user_id=ADA), event(2, user_id=BEN))
        await store.hide("org", ADA)
        await store.seal_now()
        await store.release(grace_seconds=0)
        assert ADA.encode() not in everything(tmp_path)
        assert ids(read(store)) == ["evt_00000002"]
        await outcomes(store, event(3, user_id=BEN))
    assert ADA.encode() not in everything(tmp_path)
