"""Both doors behind TLS: served, ended politely, and no older than TLS 1.2."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from mlc_broker.edge.server import serve_http
from mlc_broker.edge.sockets import listen, tls_context
from mlc_broker.edge.websocket import serve_websocket
from mlc_broker.model.errors import ConfigError
from tests.fault.doors import HANDSHAKE, LAST_GET, echo, frame, quart


@pytest.fixture
def server_context(tmp_path: Path) -> ssl.SSLContext:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    words = [
        *command.split(),
        "-subj",
        "/CN=localhost",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(words, check=True, capture_output=True)
    return tls_context(certificate, key)


@asynccontextmanager
async def tls_guest(serving: Any, *, newest: ssl.TLSVersion | None = None) -> AsyncIterator[Any]:
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_alpn_protocols(["h2", "http/1.1"])
    if newest:
        client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        client.maximum_version = newest
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serving)
        plain = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))
        async with plain:
            yield trio.SSLStream(plain, client, server_hostname="localhost", https_compatible=True)
        nursery.cancel_scope.cancel()


async def test_http_is_served_over_tls_as_http_1_and_ends(server_context: ssl.SSLContext) -> None:
    listeners = await listen("127.0.0.1:0")
    serving = partial(
        serve_http, quart(), listeners, shutdown=trio.Event(), ssl_context=server_context
    )
    async with tls_guest(serving) as stream:
        await stream.send_all(LAST_GET)
        data = b""
        with trio.fail_after(3):
            while piece := await stream.receive_some(4096):
                data += piece
        assert data.endswith(b"hello")
        assert stream.selected_alpn_protocol() == "http/1.1"


async def test_a_stream_is_served_over_tls(server_context: ssl.SSLContext) -> None:
    listeners = await listen("127.0.0.1:0")
    serving = partial(
        serve_websocket, echo, listeners, stopping=trio.Event(), ssl_context=server_context
    )
    async with tls_guest(serving) as stream:
        await stream.send_all(HANDSHAKE)
        assert b" 101 " in await stream.receive_some(4096)
        await stream.send_all(frame(1, b"hello"))
        assert (await stream.receive_some(4096)).endswith(b"hello")


async def test_tls_1_1_is_refused(server_context: ssl.SSLContext) -> None:
    listeners = await listen("127.0.0.1:0")
    serving = partial(
        serve_http, quart(), listeners, shutdown=trio.Event(), ssl_context=server_context
    )
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        async with tls_guest(serving, newest=ssl.TLSVersion.TLSv1_1) as stream:
            await must_fail(stream)


async def must_fail(stream: Any) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()


def test_a_certificate_that_cannot_be_used_names_the_keys_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_certificate"):
        tls_context(tmp_path / "none.pem", tmp_path / "none.pem")
