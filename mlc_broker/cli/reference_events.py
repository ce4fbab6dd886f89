"""docs/events.md, written from the catalog: `python -m mlc_broker.cli.reference_events FILE`."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from mlc_broker.model import jsoncheck
from mlc_broker.model.catalog import DEFAULT_MAX_SCORE, AnyType, Catalog, Context, Device
from mlc_broker.model.types.base import properties_schema

_OPENING = f"""\
# Event types

This page is written from the catalog by `python -m mlc_broker.cli.reference_events docs/events.md`;
a test compares the two. The same, as JSON Schema: `GET /v1/schemas`.

Every property may be missing unless a type says what it needs. A null means the same as a missing
key. A camelCase spelling of a type or of a property is taken, and stored in snake_case. Keys that
are not listed are kept, within these limits: {jsoncheck.depth_max} levels,
{jsoncheck.object_keys_max} keys an object of {jsoncheck.key_chars_max} characters each,
{jsoncheck.array_items_max:,} items an array, {jsoncheck.string_chars_max:,} characters a text,
integers of 64 bits.

A score is raw and never over its `max_score`, which is {DEFAULT_MAX_SCORE} where it is not given;
only a challenge without a `max_score` is open.

*Retention* is the class of the period: `standard` 2,555 days, `sensitive` 1,095, `pii` and `system`
365. *Sampling*: `never`; `performance` and `high_volume` at the rates of the environment; `debug` is
collected in development and staging only. *Text* marks what people may have written: it is looked
through before it is stored.
"""


def reference(catalog: Catalog | None = None) -> str:
    """Return the reference of the catalog's event types in Markdown; the standard ones if None."""
    types = (catalog or Catalog.standard()).types.values()
    parts = [_OPENING, _part("device_info", Device), _part("context", Context)]
    for category, members in groupby(types, key=lambda kind: kind.category):
        parts.append(f"## {category.replace('_', ' ').capitalize()}\n")
        parts += [_section(kind) for kind in members]
    return "\n".join(parts)


def _section(kind: AnyType) -> str:
    schema = kind.properties_schema()
    aliases = ", ".join(f"`{name}`" for name in kind.spellings[1:]) or "none"
    lines = [
        f"### `{kind.name}`\n",
        f"{kind.group}. {schema.get('description', kind.title)}\n",
        f"Privacy `{kind.privacy}`; retention `{kind.retention}`; sampling `{kind.sampling}`.",
        f"Also called: {aliases}.\n",
    ]
    for group in schema.get("allOf", []):
        names = [name for choice in group.get("anyOf", []) for name in choice.get("required", [])]
        lines.append(f"Needs one of: {', '.join(f'`{name}`' for name in names)}.\n")
    if kind.text - schema.get("properties", {}).keys():
        extra = ", ".join(f"`{name}`" for name in sorted(kind.text - schema["properties"].keys()))
        lines.append(f"Also text, if sent: {extra}.\n")
    return "\n".join([*lines, _table(schema)])


def _part(name: str, struct: type[Device | Context]) -> str:
    return f"## `{name}`\n\n{struct.__doc__}\n\n{_table(properties_schema(struct))}"


def _table(schema: dict[str, Any]) -> str:
    defs = schema.get("$defs", {})
    rows = [
        f"| `{name}` | {_kind(part, defs)} |" for name, part in schema.get("properties", {}).items()
    ]
    return "\n".join(["| property | value |", "|---|---|", *rows, ""])


def _kind(schema: dict[str, Any], defs: dict[str, Any]) -> str:
    """Say in words what a schema allows."""
    if "anyOf" in schema:
        kinds = [_kind(part, defs) for part in schema["anyOf"] if part.get("type") != "null"]
        if len(kinds) > 1 and kinds[1] == kinds[0].replace("integer", "number"):
            return kinds[1]  # an integer is a number too
        return " or ".join(kinds)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        inner = defs[schema["$ref"].rpartition("/")[2]]["properties"]
        return "object: " + "; ".join(f"`{n}` {_kind(part, defs)}" for n, part in inner.items())
    if schema.get("type") == "array":
        items = _kind(schema.get("items", {}), defs)
        return f"array of at most {schema.get('maxItems', jsoncheck.array_items_max)}: {items}"
    if schema.get("type") == "object":
        return f"object of at most {schema.get('maxProperties', jsoncheck.object_keys_max)} keys"
    return _simple(schema)


def _simple(schema: dict[str, Any]) -> str:
    kind = str(schema.get("type", "any"))
    if kind == "string":
        words = "text" if schema.get("x-text") else "string"
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        return f"{words}, {low} to {high:,} characters" if high else words
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"{kind}, {low:,} to {high:,}" if low is not None and high is not None else kind


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
