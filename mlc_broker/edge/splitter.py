"""Cut JSON text into its parts where the decoder gives up on all of it because of one.

Two things in one event make msgspec refuse the whole text: half of a surrogate pair, and nesting
deeper than its stack. The text is JSON all the same, so its other events must not suffer. This
page finds where the parts begin and end without looking into them, and without recursion.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn


def object_parts(text: bytes) -> dict[str, bytes] | None:
    """Return the values of a JSON object by key, each as its own text; None: it is no object."""
    pieces = _pieces(text, b"{", b"}")
    if pieces is None:
        return None
    parts: dict[str, bytes] = {}
    for piece in pieces:
        match = _KEY.match(piece)
        if match is None:
            return None
        key = _loads(match.group(1))
        if not isinstance(key, str):
            return None
        parts[key] = piece[match.end() :].strip()
    return parts


def array_parts(text: bytes) -> list[bytes] | None:
    """Return the items of a JSON array, each as its own text; None: it is no array."""
    return _pieces(text, b"[", b"]")


def is_json(text: bytes) -> bool:
    """Tell whether `text` is JSON by the grammar alone. Nesting too deep to tell passes."""
    try:
        json.loads(text.decode("utf-8", "replace"), parse_constant=_not_a_number)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _pieces(text: bytes, first: bytes, last: bytes) -> list[bytes] | None:
    """Cut at the commas of the first level."""
    text = text.strip()
    if not (text.startswith(first) and text.endswith(last)) or len(text) < 2:
        return None
    pieces: list[bytes] = []
    depth, begin = 0, 1
    for match in MARK.finditer(text):
        mark = match.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if depth == 0 and match.end() != len(text):
                return None
        elif mark == b"," and depth == 1:
            pieces.append(text[begin : match.start()].strip())
            begin = match.end()
    if depth != 0:
        return None
    end = text[begin:-1].strip()
    if end or pieces:
        pieces.append(end)
    return pieces


def _loads(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(text)


_STRING = rb'"(?:[^"\\]|\\.)*"'
MARK = re.compile(_STRING + rb"|[\[\]{},]", re.DOTALL)
_KEY = re.compile(rb"\s*(" + _STRING + rb")\s*:", re.DOTALL)
