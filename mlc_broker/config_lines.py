"""Where each key of a TOML file stands: tomllib knows, but does not tell."""

from __future__ import annotations

import re
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_NAME = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"^\s*\[\s*({_NAME})\s*\]")
_ENTRY = re.compile(rf"^\s*\[\[\s*({_NAME})\s*\]\]")
_KEY = re.compile(rf"^\s*({_NAME})\s*=")
_FENCES = ('"""', "'" * 3)


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of every section, list entry and key of a valid file.

    Keys inside inline tables are not found; ask for what is around them.
    """
    lines: dict[KeyPath, int] = {}
    entries: dict[str, int] = {}
    here: KeyPath = ()
    fence = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if fence:
            fence = "" if fence in line else fence
        elif entry := _ENTRY.match(line):
            name = ".".join(_parts(entry[1]))
            entries[name] = entries.get(name, -1) + 1
            here = (name, entries[name])
            lines.setdefault((name,), number)
            lines[here] = number
        elif header := _HEADER.match(line):
            here = _inside(_parts(header[1]), entries)
            lines.setdefault(here, number)
        elif key := _KEY.match(line):
            lines.setdefault((*here, *_parts(key[1])), number)
            fence = next((mark for mark in _FENCES if line.count(mark) % 2), "")
    return lines


def _parts(name: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_PART, name)]


def _inside(parts: list[str], entries: dict[str, int]) -> KeyPath:
    """`[pipeline.rates]` belongs to the last `[[pipeline]]` before it."""
    if parts[0] in entries:
        return (parts[0], entries[parts[0]], *parts[1:])
    return tuple(parts)
