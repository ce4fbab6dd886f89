"""The strict check of an open part of an event: what passes is canonical JSON, encoded anew.

The fast way decodes by the part's struct and encodes what was understood. Where the two texts are
of one length, nothing was unknown, repeated or null, so the new text says all that the old one did
(why length is proof: see `Shape.check`). Everything else takes the slow way, which reads every
value. Either way what is kept is written from what was checked, so a repeated key or an odd
escape cannot carry anything past the check.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Raw, Struct

depth_max = 32  # levels; the part itself is the first
string_chars_max = 16_384
key_chars_max = 128
object_keys_max = 256
array_items_max = 4_096
INT_MIN, INT_MAX = -(2**63), 2**63 - 1  # what SQLite, Parquet and most clients can hold

T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound=Struct)


class SchemaError(ValueError):
    """The sender's mistake in an event's content. The text names the path: `$.properties.score`."""


class Checked(Struct, Generic[T_co], frozen=True, gc=False):
    """A part of an event after its check."""

    json: Raw  # canonical: no blanks, no nulls in objects, no key twice, UTF-8
    value: T_co  # the known fields, typed


class Shape(Generic[S]):
    """The check of one part of an event against one struct."""

    def __init__(self, struct: type[S], where: str) -> None:
        """Prepare the check; `where` is the part's path, such as `$.properties`."""
        names = struct.__struct_encode_fields__
        self._decode = msgspec.json.Decoder(struct).decode
        self._where = where
        self._spellings = {camel(name): name for name in names if camel(name) != name}
        floats = [
            field.name
            for field in msgspec.inspect.type_info(struct).fields  # type: ignore[attr-defined]
            if _holds_float(field.type)
        ]
        # None: what stands in these fields, so that no float was sent and a length is proof.
        self._floats_of = attrgetter(*floats, *floats[:1]) if floats else _no_floats
        self._no_floats = (None,) * (len(floats) + 1) if floats else ()

    def check(self, raw: Raw) -> Checked[S]:
        """Return what `raw` holds, canonical and typed; raises SchemaError.

        Encoding again never makes a text longer, but for a float in exponent form; so an equal
        length proves that nothing was left out. Where floats occur, the strings are counted too.
        """
        try:
            value = self._decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._check_slowly(raw)
        json = _encode(value)
        if (
            len(json) == len(raw)
            and (self._floats_of(value) == self._no_floats or _same(bytes(raw), json))
            and (json.find(_BACKSLASH) < 0 or json.find(_NUL) < 0)
        ):
            return Checked(Raw(json), value)
        return self._check_slowly(raw)

    def _check_slowly(self, raw: Raw) -> Checked[S]:
        json = _encode(plain(raw, self._where, self._spellings))
        try:
            value = self._decode(json)
        except msgspec.DecodeError as error:
            raise _placed(error, self._where) from None
        ordered = _encode(value)  # the known keys in the order of the struct, as the fast way has
        if len(ordered) == len(json) and (
            self._floats_of(value) == self._no_floats or _same(json, ordered)
        ):
            json = ordered
        return Checked(Raw(json), value)


class CachedShape(Shape[S]):
    """A Shape that remembers: the device and context of a session come again with every event."""

    entries_max = 4_096
    entry_bytes_max = 2_048

    def __init__(self, struct: type[S], where: str) -> None:
        """Prepare the check and an empty memory."""
        super().__init__(struct, where)
        self._known: dict[bytes, Checked[S]] = {}

    def check(self, raw: Raw) -> Checked[S]:
        """Return what `raw` holds, as Shape does; only what passed is remembered."""
        key = bytes(raw)
        found = self._known.get(key)
        if found is not None:
            return found
        checked = super().check(raw)
        if len(key) <= self.entry_bytes_max:
            if len(self._known) >= self.entries_max:
                self._known.clear()  # cheaper than bookkeeping at every hit
            self._known[key] = checked
        return checked


def plain(
    raw: Raw | bytes, where: str, spellings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the object in `raw`, every value checked against this page's limits.

    Nulls in objects are left out, for they mean the same as a missing key; `spellings` maps other
    spellings of first-level keys to the right ones. A bare `null` is an empty object.
    """
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        _refuse(f"Nested deeper than {depth_max} levels", where)
    except UnicodeDecodeError:
        _refuse("Not valid UTF-8", where)
    except msgspec.ValidationError as error:
        raise _placed(error, where) from None
    except msgspec.DecodeError as error:
        _refuse(_why_not_json(str(error)), where)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(f"Expected `object`, got `{_JSON_NAMES.get(type(value), 'number')}`", where)
    if spellings and not spellings.keys().isdisjoint(value):
        value = _respelt(value, spellings, where)
    return _checked_object(value, where, 1)


def camel(name: str) -> str:
    """Return the camelCase spelling of a snake_case name."""
    head, *tail = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in tail)


def _checked(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, str):
        _check_text(value, where, string_chars_max, "`str`")
    elif isinstance(value, dict):
        return _checked_object(value, where, depth + 1)
    elif isinstance(value, list):
        return _checked_array(value, where, depth + 1)
    elif type(value) is int and not INT_MIN <= value <= INT_MAX:
        _refuse("Integer beyond 64 bits", where)
    return value


def _checked_object(value: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
    _check_depth(depth, where)
    if len(value) > object_keys_max:
        _refuse(f"Object has {len(value)} keys, over the limit of {object_keys_max}", where)
    kept = {}
    for key, item in value.items():
        if len(key) > key_chars_max or "\0" in key:
            _check_text(key, where, key_chars_max, "key")
        kind = type(item)
        if kind is bool or kind is float or (kind is str and len(item) < 256 and "\0" not in item):
            kept[key] = item  # nothing to find: no path is made
        elif item is not None:
            kept[key] = _checked(item, f"{where}.{key}", depth)
    return kept


def _checked_array(value: list[Any], where: str, depth: int) -> list[Any]:
    _check_depth(depth, where)
    if len(value) > array_items_max:
        _refuse(f"Array has {len(value)} items, over the limit of {array_items_max}", where)
    return [_checked(item, f"{where}[{i}]", depth) for i, item in enumerate(value)]


def _check_depth(depth: int, where: str) -> None:
    if depth > depth_max:
        _refuse(f"Nested deeper than {depth_max} levels", where)


def _check_text(text: str, where: str, chars_max: int, noun: str) -> None:
    if len(text) > chars_max:
        _refuse(f"Expected {noun} of length <= {chars_max}", where)
    if "\0" in text:
        _refuse("Text holds the character NUL", where)


def _respelt(value: dict[str, Any], spellings: Mapping[str, str], where: str) -> dict[str, Any]:
    right: dict[str, Any] = {}
    for key, item in value.items():
        name = spellings.get(key, key)
        if item is None:
            continue
        if name in right:
            _refuse(f"`{camel(name)}` and `{name}` are one property; send one of them", where)
        right[name] = item
    return right


def _same(raw: bytes, json: bytes) -> bool:
    """Tell whether no string, and so no key, got lost. Without escapes a quote is a delimiter."""
    return raw == json or (raw.find(_BACKSLASH) < 0 and raw.count(_QUOTE) == json.count(_QUOTE))


def _no_floats(_: object) -> tuple[()]:
    return ()


def _holds_float(info: Any) -> bool:
    if isinstance(info, msgspec.inspect.FloatType):
        return True
    if isinstance(info, msgspec.inspect.StructType):
        return any(_holds_float(field.type) for field in info.fields)
    if isinstance(info, msgspec.inspect.UnionType):
        return any(_holds_float(kind) for kind in info.types)
    inner = (getattr(info, name, None) for name in ("type", "item_type", "value_type"))
    return any(_holds_float(kind) for kind in inner if kind is not None)


def _placed(error: msgspec.DecodeError, where: str) -> SchemaError:
    """Return msgspec's own words, with the path as seen from the whole event."""
    text = str(error)
    return SchemaError(
        text.replace(" - at `$", f" - at `{where}", 1)
        if " - at `$" in text
        else f"{text} - at `{where}`"
    )


def _why_not_json(text: str) -> str:
    # msgspec says "truncated" of a lone surrogate, as it looks for the other half.
    return "Not valid JSON (a lone surrogate, perhaps)" if "truncated" in text else text


def _refuse(text: str, where: str) -> NoReturn:
    raise SchemaError(f"{text} - at `{where}`")


_JSON_NAMES = {list: "array", str: "str", bool: "bool", int: "int", float: "float"}
_BACKSLASH = 92  # one byte is found sooner than six
_QUOTE = 34
_NUL = b"\\u0000"
_encode = msgspec.json.Encoder().encode
