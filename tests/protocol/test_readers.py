"""What 20 readers cost those who publish: a figure, printed and not judged."""

from __future__ import annotations

import statistics
import threading
import time
from itertools import count

import pytest

from tests.daemon import Daemon
from tests.protocol.test_live import ADMIN, play

READERS = 20
PAUSE_SECONDS = 1.0  # between two questions of one reader
SLICE_SECONDS = 4.0
ROUNDS = 3


@pytest.mark.long
def test_publishing_goes_on_while_twenty_readers_ask(daemon: Daemon) -> None:
    key, token, numbers = daemon.key(), daemon.token(*ADMIN), count(1)
    speeds: dict[bool, list[float]] = {False: [], True: []}
    asked: list[float] = []

    def ask(stop: threading.Event) -> None:
        while not stop.wait(PAUSE_SECONDS):
            began = time.monotonic()
            assert daemon.get("/v1/events?limit=100&user_id=usr_1", token).status == 200
            asked.append(time.monotonic() - began)

    def publish() -> float:
        began, events = time.monotonic(), 0
        while time.monotonic() - began < SLICE_SECONDS:
            some = [play(next(numbers), user_id=f"usr_{n}") for n in range(500)]
            assert daemon.publish(some, key)["stored"] == len(some)
            events += len(some)
        return events / (time.monotonic() - began)

    publish()  # warm
    for _ in range(ROUNDS):  # by turns: a machine that grows slower costs both alike
        speeds[False].append(publish())
        stop = threading.Event()
        readers = [threading.Thread(target=ask, args=(stop,)) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        speeds[True].append(publish())
        stop.set()
        for reader in readers:
            reader.join()
    alone, among = (statistics.median(speeds[which]) for which in (False, True))
    print(
        f"\ningest alone {alone:,.0f}/s, while {READERS} readers asked {len(asked)} questions "
        f"{among:,.0f}/s: {1 - among / alone:.1%} less; "
        f"a question took {statistics.median(asked) * 1000:.0f} ms"
    )
    assert among > 0
