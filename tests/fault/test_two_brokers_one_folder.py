from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from tests.daemon import Daemon


def test_a_second_daemon_in_the_same_directory_ends_with_73_and_the_first_goes_on(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon()
    second = subprocess.run(
        [sys.executable, "-m", "mlc_broker", "serve", "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 73, second.stderr
    assert "ready" not in second.stdout
    assert "Traceback" not in second.stderr
    assert daemon.get("/healthz").status == 200


def test_after_a_kill_the_directory_is_free_at_once(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.kill()
    daemon.start()
    assert daemon.get("/healthz").status == 200
