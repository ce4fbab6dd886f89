"""The golden transcripts hold for our own daemon, and a wrong one is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.daemon import Daemon


def conformance(daemon: Daemon, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command against a daemon."""
    words = ["conformance", daemon.ws, "--token", daemon.token("usr_1"), *more]
    return subprocess.run(
        [sys.executable, "-m", "mlc_broker", *words], capture_output=True, text=True, check=False
    )


def test_the_daemon_agrees_with_every_transcript(daemon: Daemon) -> None:
    told = conformance(daemon)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "6 of 6 transcripts agree" in told.stdout


def test_a_difference_is_named_with_its_line(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text(
        '{"send": {"op": "hello", "token": "$token"}}\n{"expect": {"op": "goodbye"}}\n'
    )
    told = conformance(daemon, "--transcripts", str(tmp_path))
    assert told.returncode == 1
    assert 'line 2: $.op is "welcome", expected "goodbye"' in told.stdout


def test_a_server_that_is_not_there_is_unavailable(daemon: Daemon) -> None:
    daemon.token("usr_1")
    daemon.stop()
    told = conformance(daemon)
    assert told.returncode == 69
    assert "is the server running?" in told.stderr
