from __future__ import annotations

import trio

from mlc_broker.model.batch import Outcome
from mlc_broker.simulate.ledger import KEPT, Difference, Ledger, Sent
from mlc_broker.simulate.screen import Progress, show


async def test_the_line_tells_the_rates_since_the_last_line(autojump_clock: object) -> None:
    ledger = Ledger()
    progress = Progress(ledger)
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show, progress, said.append)
        ledger.sent = 50
        progress.acknowledged(40, 0.012)
        await trio.sleep(1.5)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert "50 sent/s" in said[0]
    assert "40 acked/s" in said[0]
    assert "p50 12" in said[0]
    assert "0 sent/s" in said[1]


async def test_the_table_names_every_kind_of_difference_and_shows_examples() -> None:
    ledger = Ledger()
    ledger.receive(Sent(event={}, event_id="run-00001", fate=KEPT), Outcome.REJECTED, "schema")
    table = Progress(ledger).table("export", 7)
    for kind in Difference:
        assert kind in table
    assert "rejected schema" in table
    assert "run-00001" in table
