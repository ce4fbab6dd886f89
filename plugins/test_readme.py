"""The author's guide says what is so: its Python runs, its TOML is read, its commands exist."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from mlc_broker import Event
from mlc_broker.cli.main import cli
from mlc_broker.model.metric import check_made
from mlc_broker.testing import make_event, run

GUIDE = (Path(__file__).parent / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """All Python blocks, one after the other, as a reader would type them."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    return names


async def test_the_tests_in_the_guide_pass(guide: dict[str, Any]) -> None:
    tests = [value for name, value in guide.items() if name.startswith("test_")]
    assert len(tests) == 3
    for one in tests:
        assert inspect.iscoroutinefunction(one)
        await one()


async def test_the_derived_event_of_the_guide_is_emitted(guide: dict[str, Any]) -> None:
    made = await run(guide["Cheer"], [make_event(), make_event("page_view")])
    (cheered,) = made.emitted
    assert isinstance(cheered, Event)
    assert cheered.event_type == guide["CHEERED"].name


def test_the_metric_of_the_guide_can_be_declared(guide: dict[str, Any]) -> None:
    check_made(guide["BIG_PLAYS"])


def test_the_tables_in_the_guide_are_toml() -> None:
    found = [tomllib.loads(block) for block in blocks("toml")]
    assert found[0]["pipeline"][1] == {"use": "screen", "score_max": 100}
    assert found[1]["tests"][0]["expect"]["outcome"] == "rejected"


def test_the_commands_in_the_guide_exist() -> None:
    context = click.Context(cli)
    for words in re.findall(r"mlc-broker ((?:plugins )?[a-z]+)", GUIDE):
        command: click.Command | None = cli
        for word in words.split():
            assert isinstance(command, click.Group)
            command = command.get_command(context, word)
            assert command is not None, words


def test_every_example_stands_in_the_guide_and_has_its_test() -> None:
    folder = Path(__file__).parent
    for path in folder.glob("*.py"):
        if not path.name.startswith("test_"):
            assert f"`{path.name}`" in GUIDE
            assert (folder / f"test_{path.name}").exists()
