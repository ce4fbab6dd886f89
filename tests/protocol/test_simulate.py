from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.daemon import Daemon


def simulate(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "mlc_broker", "simulate", "--config", str(daemon.config)),
            *("--ws", daemon.ws, "--url", daemon.http, "--speed", "0", *words),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def row(table: str, name: str) -> int:
    found = re.search(rf"(?m)^\s*{re.escape(name)}\s+([\d,]+)$", table)
    assert found, (name, table)
    return int(found.group(1).replace(",", ""))


def test_a_simulated_lesson_ends_without_differences(daemon: Daemon) -> None:
    told = simulate(daemon, "--students", "20", "--minutes", "20", "--bad-share", "0.03")
    assert told.returncode == 0, told.stdout + told.stderr
    assert row(told.stdout, "differences") == 0
    assert row(told.stdout, "stored") > 500
    assert row(told.stdout, "duplicate") > 0
    assert row(told.stdout, "rejected schema") > 0


def test_the_simulator_notices_what_somebody_else_took_away(daemon: Daemon) -> None:
    """A comparison that cannot fail would prove nothing: here the store is emptied behind it."""
    other = Daemon(daemon.directory.parent / "other").start()
    try:
        # Published to one daemon, read back from another that shares nothing but the secret.
        for name in ("jwt.secret",):
            (other.directory / name).write_bytes((daemon.directory / name).read_bytes())
        other.restart()
        other.organization("org_demo")
        told = subprocess.run(
            [
                *(sys.executable, "-m", "mlc_broker", "simulate", "--config", str(daemon.config)),
                *("--ws", daemon.ws, "--url", other.http, "--speed", "0"),
                *("--students", "3", "--minutes", "3"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        other.kill()
    assert told.returncode == 1, told.stdout + told.stderr
    assert row(told.stdout, "acknowledged as stored, but not there") > 0


def test_without_a_daemon_it_says_so_and_ends_with_69(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "d")
    daemon.start()
    daemon.stop()
    told = simulate(daemon, "--students", "1", "--minutes", "1")
    assert told.returncode == 69, told.stderr
    assert "mlc-broker serve" in told.stderr
    assert "Traceback" not in told.stderr


def test_only_one_of_two_files_is_wrong_usage(daemon: Daemon, tmp_path: Path) -> None:
    told = simulate(daemon, "--games", str(tmp_path / "games.csv"))
    assert told.returncode == 64
    assert "--sequence" in told.stderr


def test_interrupted_it_still_compares_what_was_sent(daemon: Daemon) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlc_broker", "simulate", "--config", str(daemon.config)),
            *("--ws", daemon.ws, "--url", daemon.http, "--forever", "--students", "10"),
            *("--speed", "300"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first line of progress: it plays
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert row(out, "differences") == 0
    assert row(out, "stored") > 0


def test_the_demo_starts_everything_and_ends_everything(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = subprocess.run(
        [sys.executable, "-m", "mlc_broker", "init", str(folder)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0
    config = folder / "config.toml"
    config.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", config.read_text()))
    told = subprocess.run(
        [
            *(sys.executable, "-m", "mlc_broker", "demo", str(folder), "--once"),
            *("--students", "5", "--minutes", "5", "--speed", "0"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "/console/" in told.stdout
    assert told.stdout.count("usr_") >= 5
    assert row(told.stdout, "differences") == 0
