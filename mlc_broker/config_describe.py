"""What a key takes, in words: for errors and for the reference."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import msgspec
from msgspec import inspect

_SHOWN_CHARACTERS_MAX = 60


def expectation(kind: Any) -> str:
    """Return what values of this type look like, as in `a whole number from 1 to 256`."""
    return _words(inspect.type_info(kind))


def meaning(kind: Any) -> str:
    """Return the description that stands in the type's Meta."""
    info = inspect.type_info(kind)
    if isinstance(info, inspect.Metadata):
        return str((info.extra_json_schema or {}).get("description", ""))
    return ""


def shown(value: Any) -> str:
    """Return a value as TOML writes it, shortened."""
    text = written(value)
    if len(text) > _SHOWN_CHARACTERS_MAX:
        return text[: _SHOWN_CHARACTERS_MAX - 1] + "…"
    return text


def written(value: Any) -> str:
    """Return a value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10_000:
            return f"{value:_}"
        case int() | float():
            return str(value)
        case date() | datetime() | time():
            return value.isoformat()
        case list() | tuple():
            return "[" + ", ".join(written(item) for item in value) + "]"
        case dict():
            inner = ", ".join(f"{key} = {written(item)}" for key, item in value.items())
            return "{ " + inner + " }"
        case _:
            return msgspec.json.encode(str(value)).decode()


def _words(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            return _words(info.type)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _range(info)
        case inspect.FloatType():
            return "a number" + _range(info)
        case inspect.LiteralType():
            return " or ".join(sorted(written(value) for value in info.values))
        case inspect.StrType():
            longest = f" of at most {info.max_length} characters" if info.max_length else ""
            return "a text in quotes" + longest
        case inspect.VarTupleType():
            return f"a list, each {_words(info.item_type)}"
        case inspect.DictType():
            return "a table"
        case inspect.UnionType():
            kinds = [part for part in info.types if not isinstance(part, inspect.NoneType)]
            return " or ".join(_words(part) for part in kinds)
        case _:
            return "a section"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    low, high = info.ge, info.le
    above = f" above {written(info.gt)}" if info.gt is not None else ""
    if low is not None and high is not None:
        return f" from {written(low)} to {written(high)}"
    if low is not None:
        return f" from {written(low)}"
    if above and high is not None:
        return f"{above} and at most {written(high)}"
    return above
