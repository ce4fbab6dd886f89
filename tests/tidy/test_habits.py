"""Habits that a linter does not know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, modules, name_of, tracked, tree

# Guards of the house: a connection, a processor's step, a commit, a supervised task; and places
# where code that is not ours is loaded. A further one needs an argument in review, and a line here.
MAY_CATCH_EVERYTHING = {
    "cli/main.py": "the last barrier: no traceback reaches a user",
    "runtime/supervisor.py": "a supervised task",
    "pipeline/actor.py": "a processor's step",
    "pipeline/registry.py": "a plugin's own settings",
    "pipeline/plugin_files.py": "a plugin's own import",
    "pipeline/cell.py": "a processor's step",
    "pipeline/cage.py": "a processor's step, in its own process",
    "pipeline/shadow.py": "a processor's step",
    "pipeline/contract.py": "a plugin's own exception, being read",
    "pipeline/plugins.py": "a plugin's own task",
    "cli/plugins_command.py": "a processor's step, being tried",
    "testing.py": "a processor's step, being tried",
    "runtime/control.py": "a connection",
    "pipeline/chain.py": "a processor's step",
    "pipeline/work.py": "a processor's step",
    "edge/websocket.py": "a connection",
    "edge/server.py": "a connection",
    "edge/guest.py": "a connection",
    "edge/http/ingest.py": "a request",
    "store/shard.py": "verify looks for whatever is wrong with a pack",
    "store/writer.py": "a commit",
}
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK|raise NotImplementedError)\b")
# No machine's own paths, and no mirror of a package registry, stands in what we publish.
MACHINE = re.compile(
    r"(?<![\w./-])/(?:root|work|opt/(?:pypi|wheels))/|/tmp/w\b|registry\.(?!npmjs\.org)[\w-]+\.\w+/"
)
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".ts",
    ".js",
    ".json",
    ".html",
    ".css",
    ".service",
    ".socket",
    ".yml",
}


def catches_everything(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    last = node.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False  # it tidies up, and lets the error go on
    if node.type is None:
        return True
    return isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")


def test_only_the_known_guards_catch_everything() -> None:
    found = {
        name_of(path)
        for path in modules()
        if any(catches_everything(node) for node in ast.walk(tree(path)))
    }
    assert found - MAY_CATCH_EVERYTHING.keys() == set()


def test_no_unfinished_work_is_marked_in_the_code() -> None:
    found = [
        f"{name_of(path)}:{number}"
        for path in modules(ROOT)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_no_file_names_a_path_of_one_machine_or_a_registry() -> None:
    texts = [path for path in tracked() if path.suffix in TEXT or path.name == "Makefile"]
    texts = [path for path in texts if path != Path(__file__)]
    found = [
        f"{name_of(path)}:{number} {line.strip()[:100]}"
        for path in texts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert found == []


def turns_the_clock(path: Path, sleep: ast.Call) -> bool:
    """A checkpoint, or a mock clock that jumps: neither takes time."""
    return ast.unparse(sleep.args[0]) == "0" or "clock" in path.read_text("utf-8")


@pytest.mark.parametrize("sleeper", ["time.sleep", "trio.sleep"])
def test_unit_tests_do_not_sleep_but_turn_the_clock(sleeper: str) -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules(ROOT / "tests" / "unit")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == sleeper
        if sleeper == "time.sleep" or not turns_the_clock(path, node)
    ]
    assert found == []


def test_nobody_opens_a_database_file_as_a_plain_file() -> None:
    # Closing it would drop SQLite's locks on that file for the whole process.
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in ("open", "read_bytes", "write_bytes")
        and ".db" in ast.unparse(node)
    ]
    assert found == []


def test_sqlite_comes_through_one_door() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import)
        and any(alias.name in ("sqlite3", "pysqlite3") for alias in node.names)
    ]
    assert found == []
