"""Twenty dashboards beside those who publish: what their questions cost the ingest.

`python -m tests.benchmarks.readers` asks until its input ends, and prints the median answer in ms.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from statistics import median

from mlc_broker.cli.bench_load import generate
from mlc_broker.cli.bench_pages import ORGANIZATION
from tests.benchmarks.contestants import ROOT, Broker, python

READERS = 20
PAUSE_SECONDS = 1.0  # between two questions of one reader
ROUNDS = 3
PATHS = ("/v1/events?limit=100&user_id=usr_00042", "/v1/metrics/plays?grain=day")


def beside_readers(broker: Broker, seconds: float) -> dict[str, float]:
    """Return the ingest alone, the ingest while readers ask, and the share of it that is left."""
    token = broker.daemon.token("usr_admin", ORGANIZATION, "subscriber_admin")
    http = broker.doors["http"]
    rates: dict[bool, list[float]] = {False: [], True: []}
    asked = 0.0
    for _ in range(ROUNDS):  # by turns: a machine that grows slower costs both alike
        rates[False].append(_ingest(broker, seconds))
        readers = subprocess.Popen(
            python("tests.benchmarks.readers", str(http.port), token),
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            rates[True].append(_ingest(broker, seconds))
        finally:
            said, _ = readers.communicate("")
        asked = json.loads(said or "0")
    alone, among = median(rates[False]), median(rates[True])
    return {
        "ingest alone: events/s": alone,
        f"ingest beside {READERS} readers: events/s": among,
        f"ingest beside {READERS} readers: share": among / alone,
        "a reader's question meanwhile, median: ms": asked,
    }


def _ingest(broker: Broker, seconds: float) -> float:
    door = broker.doors["websocket"]
    return generate(door.plan(100, connections=8, window=4, seconds=seconds)).events_per_second


def _read(port: int, token: str, number: int, over: threading.Event, took: list[float]) -> None:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    path = PATHS[number % len(PATHS)]
    over.wait(PAUSE_SECONDS * number / READERS)  # not all at the same moment
    while not over.is_set():
        began = time.perf_counter()
        line.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = line.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}")
        took.append(1000 * (time.perf_counter() - began))
        over.wait(PAUSE_SECONDS)
    line.close()


def main() -> None:
    port, token = int(sys.argv[1]), sys.argv[2]
    over, took = threading.Event(), list[float]()
    readers = [
        threading.Thread(target=_read, args=(port, token, number, over, took))
        for number in range(READERS)
    ]
    for reader in readers:
        reader.start()
    sys.stdin.read()
    over.set()
    for reader in readers:
        reader.join()
    print(json.dumps(median(took) if took else 0.0))


if __name__ == "__main__":
    main()
