"""`mlc-broker conformance ws://…`: replay golden transcripts against any server of the protocol."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url

TRANSCRIPTS = Path(__file__).parents[2] / "clients" / "transcripts"
ANSWER_SECONDS_MAX = 10.0
UNAVAILABLE = 69


@click.command()
@click.argument("url")
@click.option("--token", required=True, help="A user token; see `mlc-broker token`.")
@click.option(
    "--transcripts",
    "folder",
    type=click.Path(path_type=Path),
    default=TRANSCRIPTS,
    help="A folder of *.jsonl; those of clients/transcripts unless given.",
)
def conformance(url: str, token: str, folder: Path) -> int:
    """Replay golden transcripts against the server at URL; exit status 1 where it differs."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise click.UsageError(
            f"no *.jsonl in {folder}: give --transcripts DIR, clients/transcripts of the source"
        )
    differing = 0
    for file in files:
        try:
            difference = trio.run(replay, url, token, file.read_text())
        except (OSError, HandshakeError) as error:
            click.echo(f"cannot reach {url}: {error!r}; is the server running?", err=True)
            return UNAVAILABLE
        differing += bool(difference)
        click.echo(f"{'DIFFERS' if difference else 'ok     '} {file.stem}{difference}")
    click.echo(f"{len(files) - differing} of {len(files)} transcripts agree")
    return 1 if differing else 0


async def replay(url: str, token: str, transcript: str) -> str:
    """Return how the server differs from a transcript, "" where it does not.

    OSError or HandshakeError where it cannot be reached.
    """
    words = {"$token": token, "$now": datetime.now(UTC).isoformat()}
    async with open_websocket_url(url) as socket:
        for number, line in enumerate(transcript.splitlines(), start=1):
            step = _filled(json.loads(line), words)
            with trio.move_on_after(ANSWER_SECONDS_MAX) as patience:
                if difference := await _take(step, socket):
                    return f"\n  line {number}: {difference}"
            if patience.cancelled_caught:
                return f"\n  line {number}: no answer within {ANSWER_SECONDS_MAX:g} s"
    return ""


async def _take(step: dict[str, Any], socket: WebSocketConnection) -> str:
    try:
        if "send" in step:
            await socket.send_message(json.dumps(step["send"]))
        elif "send_text" in step:
            await socket.send_message(step["send_text"])
        elif "expect" in step:
            return next(differences(step["expect"], json.loads(await socket.get_message())), "")
        elif "expect_close" in step:
            return f"expected to be closed, but came {await socket.get_message()!r}"
    except ConnectionClosed as closed:
        code = closed.reason.code if closed.reason else None
        wanted = step.get("expect_close")
        return "" if code == wanted else f"closed with {code}, expected {wanted or 'to go on'}"
    return ""


def differences(wanted: Any, got: Any, at: str = "$") -> Iterator[str]:
    """Yield where `got` lacks something of `wanted`; fields that nobody asked for may stand there."""
    if wanted == "$any":
        return
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key, value in wanted.items():
            if key in got:
                yield from differences(value, got[key], f"{at}.{key}")
            else:
                yield f"{at}.{key} is missing"
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for index, (one, other) in enumerate(zip(wanted, got, strict=True)):
            yield from differences(one, other, f"{at}[{index}]")
    elif wanted != got:
        yield f"{at} is {json.dumps(got)}, expected {json.dumps(wanted)}"


def _filled(value: Any, words: dict[str, str]) -> Any:
    """Put words in the place of `$token`, `$now` and `$id:name`; the latter are made when met."""
    if isinstance(value, dict):
        return {key: _filled(one, words) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, words) for one in value]
    if isinstance(value, str) and value.startswith("$id:"):
        return words.setdefault(value, str(uuid.uuid4()))
    return words.get(value, value) if isinstance(value, str) else value
