"""The Python client against the real daemon: nothing lost, nothing twice."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from tests.daemon import Daemon

sys.path.insert(0, str(Path(__file__).parents[2] / "clients" / "python"))

from mlc_events import Client, Limits, Queue, Receipt

QUICK = Limits(batch_seconds=0.2, retry_seconds=0.05, offline_seconds=0.3)
SCORE = {"game_id": "G-01542", "stage_id": "G-01542-quiz", "score": 87}


def client(daemon: Daemon, receipts: list[Receipt], **options: object) -> Client:
    """Return a client of the daemon that writes its receipts down."""
    told = {"stream": daemon.ws, "limits": QUICK, "on_receipt": receipts.append} | options
    return Client(daemon.http, daemon.token("usr_1"), **told)


async def all_of(receipts: list[Receipt], count: int) -> None:
    """Wait for so many receipts."""
    with trio.fail_after(20):
        while len(receipts) < count:
            await trio.sleep(0.02)


async def test_what_a_server_reports_is_stored_over_the_websocket(daemon: Daemon) -> None:
    receipts: list[Receipt] = []
    async with client(daemon, receipts).open() as reporting:
        ids = [reporting.track("game_stage_complete", SCORE) for _ in range(250)]
        await all_of(receipts, 250)
    assert [receipt.event_id for receipt in receipts] == ids
    assert {receipt.outcome for receipt in receipts} == {"stored"}


async def test_http_does_where_there_is_no_websocket(daemon: Daemon) -> None:
    receipts: list[Receipt] = []
    async with client(daemon, receipts, stream="ws://127.0.0.1:9/v1/stream").open() as reporting:
        reporting.track("game_stage_complete", SCORE)
        reporting.track("no_such_type", {})
        await all_of(receipts, 2)
    assert [receipt.outcome for receipt in receipts] == ["stored", "rejected"]
    assert receipts[1].reason == "unknown_type"


async def test_what_was_not_sent_waits_on_the_disk_for_the_next_process(
    daemon: Daemon, tmp_path: Path
) -> None:
    receipts: list[Receipt] = []
    path = tmp_path / "unsent.db"
    token = daemon.token("usr_1")
    daemon.stop()
    away = Client(daemon.http, token, Queue(path), daemon.ws, QUICK, receipts.append)
    async with away.open() as reporting:
        ids = [reporting.track("game_stage_complete", SCORE) for _ in range(120)]
        await trio.sleep(0.3)
    assert receipts == []
    away.queue.close()
    daemon.start()
    back = client(daemon, receipts, queue=Queue(path))
    async with back.open():
        await all_of(receipts, 120)
    assert [receipt.event_id for receipt in receipts] == ids
    assert len(back.queue) == 0
    back.queue.close()


def test_a_full_queue_drops_the_oldest_that_is_not_critical() -> None:
    queue = Queue(events_max=3)
    lost = [queue.put(name, "{}", critical=name < "c") for name in "abcde"]
    assert lost == [[], [], [], ["c"], ["d"]]
    assert [id_ for id_, _ in queue.take(9)] == ["a", "b", "e"]
    queue.close()
