"""The real daemon as a child process, for tests: `python -m mlc_broker serve` on free ports."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlc_broker.config import load
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.roster import Roster

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
READY = re.compile(r"^ready ws=(ws://\S+) http=(http://\S+)\s*$")


class Answer:
    """An HTTP answer: `status`, `headers`, `body`, and `json()`."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


class Daemon:
    """A daemon in its own directory. `start()` it, talk to `ws` and `http`, `stop()` or `kill()` it.

    Daemon(path, settings={"events": {"max_batch": 10}}, append="[[sinks]]\\n…")

    daemon.token("usr_1", "org_1", "teacher")    a user token (the organization is made known)
    daemon.key("org_1")                          an ingest key
    daemon.get(path, token), daemon.put(path, record, token), daemon.delete(path, token)
    daemon.publish(events, token)                the ack, over HTTP
    daemon.lines                                 what it said on stderr
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: dict[str, dict[str, Any]] | None = None,
        append: str = "",
        environment: str = "",
    ) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        self.ws = ""
        self.http = ""
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._settings = dict(settings or {})
        self._append = append
        if environment:
            events = self._settings.get("events", {})
            self._settings["events"] = events | {"environment": environment}
        self._organizations: set[str] = set()
        self._tokens: dict[tuple[str, ...], str] = {}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Daemon:
        """Start it (made by `init` at the first time) and wait for its ready line."""
        if not self.config.exists():
            self._init()
        self.process = self._serve()
        patience = threading.Timer(START_SECONDS_MAX, self.process.kill)
        patience.start()
        try:
            assert self.process.stdout is not None
            for line in self.process.stdout:
                if found := READY.match(line):
                    self.ws, self.http = found.groups()
                    break
            else:
                self.process.wait()
                said = "".join(self.lines[-30:])
                raise AssertionError(
                    f"no ready line, exit status {self.process.returncode}; it said:\n{said}"
                )
        finally:
            patience.cancel()
        return self

    def stop(self) -> int:
        """SIGTERM, and its exit status. A daemon that does not end in time is a failure."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._tidy()
        return status

    def kill(self) -> None:
        """kill -9: no goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._tidy()

    def restart(self) -> Daemon:
        """Stop it if it runs, and start it again: on new ports."""
        if self.running:
            self.stop()
        return self.start()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def command(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run another command of mlc-broker on the same configuration: `command("check")`."""
        told = subprocess.run(
            [sys.executable, "-m", "mlc_broker", *words, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if expect is not None:
            assert told.returncode == expect, (words, told.returncode, told.stdout, told.stderr)
        return told

    def organization(self, organization_id: str, **record: Any) -> None:
        """Make an organization known to the roster."""
        if organization_id not in self._organizations:
            self.roster({"organizations": {organization_id: {"name": organization_id} | record}})
            self._organizations.add(organization_id)

    def roster(self, records: dict[str, dict[str, Any]]) -> None:
        """Load `{"organizations": {id: …}, "users": …, "classes": …, "enrollments": …}`."""
        config = load(self.config)
        config.data_path.mkdir(exist_ok=True)
        roster = Roster(config.data_path / "roster.db", clock=SystemClock())
        roster.open()
        try:
            roster.put_many(
                (kind, key, record)
                for kind, some in records.items()
                for key, record in some.items()
            )
        finally:
            roster.close()

    def token(self, sub: str, org: str = "org_1", role: str = "student") -> str:
        """Return a user token, signed with this daemon's secret."""
        asked = ("token", "--sub", sub, "--org", org, "--role", role)
        if asked not in self._tokens:
            self.organization(org)
            self._tokens[asked] = self.command(*asked).stdout.strip().splitlines()[-1]
        return self._tokens[asked]

    def key(self, org: str = "org_1", *more: str) -> str:
        """Return an ingest key; `more` are further arguments of `keys create`."""
        self.organization(org)
        told = self.command("keys", "create", "--org", org, "--name", "test", *more).stdout
        found = re.search(r"mlc_[ia]k_\S+", told)
        assert found, told
        return found.group()

    def request(
        self,
        method: str,
        path: str,
        token: str | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask over HTTP, with no library between the test and the socket's words."""
        there = urlsplit(self.http)
        said = dict(headers or {})
        if token is not None:
            said["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=30)
        try:
            connection.request(method, path, body, said)
            answer = connection.getresponse()
            return Answer(
                answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()

    def get(self, path: str, token: str | None = None) -> Answer:
        return self.request("GET", path, token)

    def put(self, path: str, record: Any, token: str | None = None) -> Answer:
        body = json.dumps(record).encode()
        return self.request("PUT", path, token, body, {"Content-Type": "application/json"})

    def delete(self, path: str, token: str | None = None) -> Answer:
        return self.request("DELETE", path, token)

    def post(self, path: str, record: Any, token: str | None = None) -> Answer:
        body = json.dumps(record).encode()
        return self.request("POST", path, token, body, {"Content-Type": "application/json"})

    def publish(self, events: Sequence[Any], token: str) -> dict[str, Any]:
        """Publish over HTTP and return the ack, which must come."""
        answer = self.post("/v1/events", list(events), token)
        assert answer.status == 200, answer
        ack: dict[str, Any] = answer.json()
        return ack

    def _init(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "mlc_broker", "init", str(self.directory)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", self.config.read_text())
        for section, keys in self._settings.items():
            for key, value in keys.items():
                text = _set(text, section, key, value)
        self.config.write_text(f"{text}\n{self._append}\n")

    def _serve(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlc_broker", "serve", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Somebody must read what it says, or a full pipe would stop it.
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as said:
            for line in said:
                self.lines.append(line)
                del self.lines[:-1000]

    def _tidy(self) -> None:
        assert self.process is not None
        if self.process.stdout is not None:
            self.process.stdout.close()


def _set(text: str, section: str, key: str, value: Any) -> str:
    """Set a key of a TOML section, in its place."""
    line = f"{key} = {json.dumps(value)}"
    head = f"[{section}]"
    before, found, after = text.partition(f"{head}\n")
    if not found:
        return f"{head}\n{line}\n\n{text}"
    body, *rest = re.split(r"(?m)^(?=\[)", after, maxsplit=1)
    body = re.sub(rf"(?m)^{key}\s*=.*\n", "", body)
    return f"{before}{head}\n{line}\n{body}{''.join(rest)}"


def wait_until(true: Any, *, seconds_max: float = 10.0) -> None:
    """Wait until `true()` is true, or fail."""
    deadline = time.monotonic() + seconds_max
    while not true():
        assert time.monotonic() < deadline, f"still not true after {seconds_max} s"
        time.sleep(0.02)
