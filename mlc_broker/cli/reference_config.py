"""The configuration described: config.toml with every key, the short one of `init`, docs/config.md.

`python -m mlc_broker.cli.reference_config` writes config.toml and docs/config.md anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import NODEFAULT

from mlc_broker.config import LISTS, TABLES
from mlc_broker.config_describe import expectation, meaning, written
from mlc_broker.config_sections import DEFAULT_STEPS, Section

_HEAD = """\
# MLC broker: every key, with its default. Leave out what you do not change.
# `mlc-broker check` tells what is wrong in it, with the line. docs/config.md says the same at length.
# A unit stands in a key's name; sizes are in bytes. Relative names start at this file's folder.
"""
_SHORT_HEAD = """\
# MLC broker. Keys that are not here have defaults: docs/config.md lists them all.
# After a change: `mlc-broker check`, then `systemctl reload mlc-broker` (SIGHUP).
"""
_CHAIN = """
# The processors, in order. A plugin of yours stands behind "protect".
# Each entry takes `on_failure`, `seconds_max`, `isolation`, and the processor's own settings.
"""
_SHORT = {
    "http": ("listen", "tls_certificate", "tls_key"),
    "websocket": ("listen", "tls_certificate", "tls_key"),
    "storage": ("path", "durability"),
    "auth": ("secret_file", "jwks_file"),
    "events": ("environment", "max_age_days", "max_batch"),
    "privacy": ("unknown_age", "pseudonym_key_file"),
    "plugins": ("path",),
}
_ENTRIES = (
    ("sinks", 'use = "webhook"'),
    ("tests", 'name = "an impossible score is refused"'),
)


def full_toml() -> str:
    """Return config.toml with every key at its default."""
    parts = [_HEAD, *(_table(name, kind) for name, kind in TABLES.items()), _chain()]
    parts += [_entry(name, LISTS[name], first) for name, first in _ENTRIES]
    return "".join(parts)


def short_toml() -> str:
    """Return the file that `init` writes: the keys that people change."""
    tables = [_table(name, TABLES[name], only=keys) for name, keys in _SHORT.items()]
    return "".join([_SHORT_HEAD, *tables, _chain()])


def markdown() -> str:
    """Return docs/config.md."""
    lines = [
        "# Configuration",
        "",
        "Made from `mlc_broker/config_sections.py`; do not edit. Every key has a default. An unknown",
        "key, or a wrong value, stops the start with the file, the line and what was expected (exit",
        "status 78); `mlc-broker check` says it beforehand. SIGHUP reads the file again; a bad one is",
        "reported and the old one stays in force.",
    ]
    for name, kind in TABLES.items():
        lines += ["", f"## `[{name}]`", "", *_rows(kind)]
    for name, kind in LISTS.items():
        lines += ["", f"## `[[{name}]]`", "", *_rows(kind)]
    return "\n".join(lines) + "\n"


def _fields(kind: type[Section]) -> Iterator[tuple[str, Any, Any]]:
    for field in msgspec.structs.fields(kind):
        default = field.default
        if default is NODEFAULT and field.default_factory is not NODEFAULT:
            default = field.default_factory()
        yield field.name, field.type, default


def _summary(kind: type[Section]) -> str:
    return (kind.__doc__ or "").split("\n")[0]


def _table(name: str, kind: type[Section], only: Sequence[str] | None = None) -> str:
    lines = ["", f"[{name}]", f"# {_summary(kind)}"]
    below = ""
    for key, annotation, default in _fields(kind):
        if only is not None and key not in only:
            continue
        if isinstance(default, Section):
            below += _table(f"{name}.{key}", type(default))
            continue
        note = meaning(annotation)
        if default is None:
            lines.append(f'# {key} = "…"  # {note}')
        else:
            lines.append(f"{key} = {written(default)}  # {note}")
    return "\n".join(lines) + "\n" + below


def _chain() -> str:
    return _CHAIN + "\n".join(f'[[pipeline]]\nuse = "{name}"\n' for name in DEFAULT_STEPS)


def _entry(name: str, kind: type[Section], first: str) -> str:
    """An example, commented out: these lists are empty by default."""
    lines = ["", f"# {_summary(kind)}", f"# [[{name}]]", f"# {first}"]
    for key, annotation, default in _fields(kind):
        if key != first.split(" ", 1)[0] and key != "settings":
            value = (
                "{ … }" if default is NODEFAULT else '"…"' if default is None else written(default)
            )
            lines.append(f"# {key} = {value}  # {meaning(annotation)}")
    return "\n".join(lines) + "\n"


def _rows(kind: type[Section], prefix: str = "") -> list[str]:
    lines = (
        []
        if prefix
        else [_doc(kind), "", "| key | takes | default | meaning |", "|---|---|---|---|"]
    )
    for key, annotation, default in _fields(kind):
        if isinstance(default, Section):
            lines += _rows(type(default), f"{prefix}{key}.")
            continue
        shown = (
            {NODEFAULT: "must be given", None: "unset"}.get(default) if _hashable(default) else None
        )
        if shown is None:
            shown = f"`{written(default)}`"
        lines.append(
            f"| `{prefix}{key}` | {expectation(annotation)} | {shown} | {meaning(annotation)} |"
        )
    return lines


def _hashable(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _doc(kind: type[Section]) -> str:
    return " ".join((kind.__doc__ or "").split())


if __name__ == "__main__":
    Path("config.toml").write_text(full_toml(), "utf-8")
    Path("docs/config.md").write_text(markdown(), "utf-8")
