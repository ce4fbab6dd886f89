"""A file is one room, a function fits the screen, and everything public says what it is for."""

from __future__ import annotations

import ast
from statistics import median

from tests.tidy.source import ROOT, modules, name_of, tree

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_MEDIAN_MAX = 12
Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(function: Function) -> int:
    """A function's length without its docstring."""
    first = function.body[0]
    doc = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        doc = (first.end_lineno or first.lineno) - first.lineno + 1
    return (function.end_lineno or function.lineno) - function.lineno + 1 - doc


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    counted = {name_of(p): len(p.read_text("utf-8").splitlines()) for p in modules(ROOT)}
    assert {name: n for name, n in counted.items() if n > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_sixty_lines_and_most_are_short() -> None:
    lengths = {
        f"{name_of(path)}:{node.lineno} {node.name}": lines_of(node)
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, Function)
    }
    assert {name: n for name, n in lengths.items() if n > FUNCTION_LINES_MAX} == {}
    assert median(lengths.values()) <= FUNCTION_LINES_MEDIAN_MAX


def test_every_module_has_a_docstring_that_says_what_it_is_for() -> None:
    bare = [
        name_of(path)
        for path in modules()
        if tree(path).body and ast.get_docstring(tree(path)) is None
    ]
    assert bare == []
