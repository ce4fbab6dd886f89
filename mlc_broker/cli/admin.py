"""How a command talks to the running daemon: its addresses from `endpoints.json`, a short token.

The token is a System Admin's, signed with the secret that this machine has anyway: who can read
the secret file may do what the daemon may.
"""

from __future__ import annotations

import getpass
import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from mlc_broker.cli.common import know_organization
from mlc_broker.config import Config
from mlc_broker.config_files import read_secret
from mlc_broker.model.errors import BrokerError
from mlc_broker.runtime.clock import SystemClock

ENDPOINTS = "endpoints.json"
ANSWER_SECONDS_MAX = 30.0  # twice a stream's heartbeat
TOKEN_SECONDS = 900
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what a daemon may listen on)


class NoDaemon(BrokerError):
    """No daemon answers: start it with `mlc-broker serve`, or name its configuration."""


class Answered(BrokerError):
    """The daemon refused; `status` is HTTP's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the daemon says {status}: {detail}")
        self.status = status


class Endpoints(Struct, frozen=True):
    """Where a running daemon listens."""

    ws: str
    http: str
    pid: int
    version: str = ""
    secret_file: str = ""


class Said(Struct, frozen=True):
    """One server-sent event."""

    data: bytes
    event: str = ""
    id: str = ""


class AdminClient:
    """Asks the daemon as a System Admin, one connection a question."""

    def __init__(self, config: Config, endpoints: Endpoints, organization_id: str) -> None:
        self.endpoints = endpoints
        self._config = config
        self._organization_id = organization_id

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON that the daemon answers; raises Answered, NoDaemon."""
        with self._ask(path, query, {}) as answer:
            return msgspec.json.decode(answer.read())

    def listen(
        self, path: str, query: Mapping[str, Any] | None = None, *, after: str = ""
    ) -> Iterator[Said]:
        """Yield server-sent events until the stream ends; raises Answered, NoDaemon."""
        headers = {"Last-Event-ID": after} if after else {}
        with self._ask(path, query, headers) as answer:
            fields: dict[str, bytes] = {}
            while line := answer.readline():
                name, _, value = line.rstrip(b"\n").partition(b": ")
                if name:
                    fields[name.decode()] = value
                elif data := fields.pop("data", b""):
                    event, cursor = fields.pop("event", b""), fields.pop("id", b"")
                    yield Said(data, event.decode(), cursor.decode())

    @contextmanager
    def _ask(
        self, path: str, query: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        asked = f"{path}?{urlencode(query, doseq=True)}" if query else path
        connection = self._connection()
        try:
            connection.request("GET", asked, headers={"Authorization": self._bearer(), **headers})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise Answered(answer.status, _detail(answer.read()))
            yield answer
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            raise NoDaemon(f"no daemon answers at {self.endpoints.http}: {error}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        there = urlsplit(self.endpoints.http)
        host = _ANYWHERE.get(there.hostname or "", there.hostname or "")
        if there.scheme == "http":
            return http.client.HTTPConnection(host, there.port, timeout=ANSWER_SECONDS_MAX)
        # Its own certificate, and no other, is what proves that this is our daemon.
        certificate = self._config.secret_path(self._config.http.tls_certificate or "")
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return http.client.HTTPSConnection(
            host, there.port, timeout=ANSWER_SECONDS_MAX, context=context
        )

    def _bearer(self) -> str:
        from mlc_broker.edge.credentials import make_token

        auth = self._config.auth
        own = self._config.secret_path(auth.secret_file)
        token = make_token(
            read_secret(Path(self.endpoints.secret_file or own)),
            sub=f"cli:{getpass.getuser()}",
            org=self._organization_id,
            role="system_admin",
            now=SystemClock().now(),
            seconds=min(TOKEN_SECONDS, auth.token_seconds_max),
            issuer=auth.issuer,
        )
        return f"Bearer {token}"


def admin_client(config: Config) -> AdminClient:
    """Return a client of the daemon that runs with this configuration; NoDaemon where none does."""
    file = config.data_path / ENDPOINTS
    try:
        endpoints = msgspec.json.decode(file.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        raise NoDaemon(
            f"no daemon runs on {config.data_path}: start one with "
            f"`mlc-broker serve --config {config.file}`"
        ) from None
    return AdminClient(config, endpoints, _some_organization(config))


def printable(text: object) -> str:
    """Return text that moves no cursor and rings no bell: what it says may be an attacker's."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def _some_organization(config: Config) -> str:
    """Return an organization that the roster knows: a token must be of one."""
    from mlc_broker.store.roster import Roster

    roster = Roster(config.data_path / "roster.db", clock=SystemClock())
    roster.open()
    try:
        known = sorted(roster.organization_ids())
    finally:
        roster.close()
    if known:
        return known[0]
    know_organization(config, "operators")
    return "operators"


def _detail(body: bytes) -> str:
    try:
        return printable(msgspec.json.decode(body)["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return printable(body[:200].decode(errors="replace"))
