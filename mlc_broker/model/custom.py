"""Custom event types: a JSON Schema file of `properties` each, named `org.…`.

The validator comes from jsonschema-rs, which is imported only where there are such files: an
installation without custom types need not have it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import msgspec
from msgspec import Raw, Struct

from mlc_broker.model.errors import ConfigError
from mlc_broker.model.event import Privacy, Retention
from mlc_broker.model.jsoncheck import Checked, SchemaError, plain
from mlc_broker.model.principal import CATEGORIES, INTERACTION, PERFORMANCE
from mlc_broker.model.types.base import Sampling

if TYPE_CHECKING:
    import jsonschema_rs

name_chars_max = 64
schema_bytes_max = 262_144
files_max = 1_000

_NAME_CHARACTERS = frozenset(string.ascii_lowercase + string.digits + "_.")


class CustomType(Struct, frozen=True, kw_only=True, eq=False):
    """An event type that an organization declared."""

    name: str  # org.…
    title: str
    json_schema: dict[str, Any]  # of `properties`
    check: Callable[[Raw], Checked[Any]]  # as EventType's; the value is a dict
    category: str = INTERACTION  # collected by consent: the safest, where the file does not say
    group: str = "Custom"
    privacy: Privacy = "standard"
    sampling: Sampling = "never"
    aliases: tuple[str, ...] = ()
    environments: frozenset[str] | None = None
    text: frozenset[str] = frozenset()

    @property
    def retention(self) -> Retention:
        """The retention class: `system` for system performance, else the privacy level."""
        return "system" if self.category == PERFORMANCE else self.privacy

    @property
    def spellings(self) -> tuple[str, ...]:
        """The one name that means this type."""
        return (self.name, *self.aliases)

    def properties_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of `properties`, with an `$id` for its own references."""
        hidden = ("$schema", "$id", "x-event-type")
        kept = {key: value for key, value in self.json_schema.items() if key not in hidden}
        return {"$id": f"/v1/schemas/{self.name}/properties", **kept}


def load_custom_types(path: Path) -> list[CustomType]:
    """Return the types declared by the `*.json` files in `path`, in the order of their names.

    A missing directory has none. Raises ConfigError, naming file and key.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else []
    if len(files) > files_max:
        raise ConfigError(f"{path}: {len(files)} event types, over the limit of {files_max}")
    types: dict[str, Path] = {}
    loaded = []
    for file in files:
        kind = _load(file)
        if kind.name in types:
            _refuse(file, "x-event-type", f"another name; {types[kind.name].name} has this one")
        types[kind.name] = file
        loaded.append(kind)
    return loaded


def custom_type(schema: dict[str, Any], file: Path) -> CustomType:
    """Return the type that `schema` declares; `file` is what an error names (ConfigError)."""
    name = _name(schema, file)
    title = schema.get("title", name)
    if not isinstance(title, str):
        _refuse(file, "title", "a string")
    if schema.get("type", "object") != "object":
        _refuse(file, "type", '"object", for the schema is that of `properties`')
    return CustomType(
        name=name,
        title=title[:256],
        json_schema=schema,
        check=_checker(schema, file),
        category=_choice(schema, file, "x-category", CATEGORIES, INTERACTION),
        privacy=_choice(schema, file, "x-privacy", get_args(Privacy), "standard"),
        sampling=_choice(schema, file, "x-sampling", get_args(Sampling), "never"),
        environments=_environments(schema),
        text=_text(schema, file),
    )


def _load(file: Path) -> CustomType:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(text) > schema_bytes_max:
        raise ConfigError(f"{file}: {len(text)} bytes, over the limit of {schema_bytes_max}")
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigError(f"{file}: expected a JSON Schema, an object")
    return custom_type(schema, file)


def _name(schema: dict[str, Any], file: Path) -> str:
    """Return the type's name: by `x-event-type`, else the first of `$id`, `title` that is one."""
    if "x-event-type" in schema:
        found = [schema["x-event-type"]]
    else:
        found = [schema.get("$id"), schema.get("title")]
    tails = [text.rpartition("/")[2] for text in found if isinstance(text, str)]
    name = next((tail for tail in tails if _is_name(tail)), "")
    if not name:
        limits = f"org. and then a-z 0-9 _ . , at most {name_chars_max} characters"
        _refuse(file, "x-event-type", f'a name like "org.practice_log": {limits}')
    return name


def _is_name(name: str) -> bool:
    return (
        name.startswith("org.")
        and len("org.") < len(name) <= name_chars_max
        and _NAME_CHARACTERS.issuperset(name)
    )


def _choice(
    schema: dict[str, Any], file: Path, key: str, choices: tuple[str, ...], default: str
) -> Any:
    value = schema.get(key, default)
    if value not in choices:
        _refuse(file, key, "one of " + ", ".join(choices))
    return value


def _environments(schema: dict[str, Any]) -> frozenset[str] | None:
    debug = schema.get("x-sampling") == "debug"
    return frozenset({"development", "staging"}) if debug else None


def _text(schema: dict[str, Any], file: Path) -> frozenset[str]:
    """Return the names of free text: those listed in `x-text`, and properties marked with it."""
    listed = schema.get("x-text", [])
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        _refuse(file, "x-text", "a list of names of properties")
    properties = schema.get("properties")
    marked = properties.items() if isinstance(properties, dict) else ()
    return frozenset(listed) | {
        name for name, part in marked if isinstance(part, dict) and part.get("x-text") is True
    }


def _checker(schema: dict[str, Any], file: Path) -> Callable[[Raw], Checked[Any]]:
    errors = _validator(schema, file).iter_errors

    def check(raw: Raw) -> Checked[dict[str, Any]]:
        value = plain(raw, "$.properties")
        for error in errors(value):
            where = "".join(
                f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path
            )
            raise SchemaError(f"{error.message} - at `$.properties{where}`")
        return Checked(Raw(msgspec.json.encode(value)), value)

    return check


def _validator(schema: dict[str, Any], file: Path) -> jsonschema_rs.Validator:
    try:
        import jsonschema_rs  # noqa: PLC0415  only where there are custom types
    except ImportError:
        raise ConfigError(
            f"{file}: custom event types need the package jsonschema-rs; install it"
        ) from None
    try:
        # Offline: a reference never makes the daemon fetch. RegexOptions: linear-time patterns.
        return jsonschema_rs.Draft202012Validator(
            schema, mask="the value", offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        words = str(error).splitlines()[0]
        raise ConfigError(f"{file}: is not a JSON Schema (2020-12): {words}") from None


def _refuse(file: Path, key: str, expected: str) -> NoReturn:
    raise ConfigError(f"{file}: {json.dumps(key)}: expected {expected}")
