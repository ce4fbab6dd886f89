"""The documents say what the code does."""

from __future__ import annotations

import inspect

import click
import pytest

from mlc_broker.cli import reference_config
from mlc_broker.cli.main import COMMANDS, cli
from mlc_broker.model import errors
from mlc_broker.model.errors import BrokerError
from tests.tidy.source import ROOT


def drawn(kind: type[BrokerError], prefix: str = "") -> list[str]:
    """The tree of errors as a drawing."""
    below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    lines = []
    for number, child in enumerate(below):
        last = number == len(below) - 1
        lines.append(f"{prefix}{'└── ' if last else '├── '}{child.__name__}")
        lines += drawn(child, prefix + ("    " if last else "│   "))
    return lines


def test_the_drawing_of_the_errors_shows_the_classes() -> None:
    drawing = inspect.getdoc(errors) or ""
    assert "\n".join(["BrokerError", *drawn(BrokerError)]) in drawing


def test_every_error_has_a_docstring_that_can_stand_as_its_message() -> None:
    for kind in BrokerError.__subclasses__():
        assert str(kind()).endswith((".", "78.", "73."))


def test_the_reference_of_the_configuration_is_current() -> None:
    written = (ROOT / "docs" / "config.md").read_text("utf-8")
    assert written == reference_config.markdown(), "`make docs` writes it anew"


def test_config_toml_is_current() -> None:
    written = (ROOT / "config.toml").read_text("utf-8")
    assert written == reference_config.full_toml(), "`make docs` writes it anew"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_says_what_it_does(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    if command is None:
        assert name not in cli.list_commands(context)
        return
    kinds = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    assert [kind.name for kind in kinds if not kind.help] == []
