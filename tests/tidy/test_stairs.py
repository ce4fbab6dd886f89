"""Law 7: stairs go down. Who may import whom."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tidy.source import PACKAGE, imports, modules, name_of

MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "runtime": set(),
    "pipeline": {"model", "runtime"},
    "store": {"model", "runtime"},
    "query": {"model", "runtime", "store"},
    "edge": {"model", "runtime", "pipeline", "query"},
    "simulate": {"model", "runtime"},  # a visitor from outside, who knows what things are
}
# outside the cellar's walls, and why
CELLAR_MAY_USE = {
    "model": {"msgspec", "numpy", "jsonschema_rs"},  # shapes, packed columns, org.* types
    "runtime": {"msgspec", "trio", "structlog", "prometheus_client"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def climbs(room: str, imported: str) -> bool:
    """Whether a room that imports this goes up the stairs."""
    parts = imported.split(".")
    if parts[0] != "mlc_broker" or len(parts) < 2:
        return False
    return parts[1] not in {room, "_version", *MAY_IMPORT[room]}


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_from_below(room: str) -> None:
    wrong = [
        f"{name_of(path)} imports {imported}"
        for path in modules(PACKAGE / room)
        for imported in imports(path)
        if climbs(room, imported)
    ]
    assert not wrong


@pytest.mark.parametrize("room", sorted(CELLAR_MAY_USE))
def test_the_cellar_needs_hardly_any_library(room: str) -> None:
    allowed = CELLAR_MAY_USE[room] | set(sys.stdlib_module_names) | {"mlc_broker"}
    wrong = [
        f"{name_of(path)} imports {imported}"
        for path in modules(PACKAGE / room)
        for imported in imports(path)
        if imported.split(".")[0] not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("room", "imported", "answer"),
    [
        ("edge", "mlc_broker.store.pack", True),
        ("pipeline", "mlc_broker.config", True),
        ("store", "mlc_broker.config_sections", True),
        ("query", "mlc_broker.store", False),
        ("model", "mlc_broker.runtime.clock", True),
        ("store", "trio", False),
    ],
)
def test_the_check_itself_tells_up_from_down(room: str, imported: str, answer: bool) -> None:
    assert climbs(room, imported) is answer
