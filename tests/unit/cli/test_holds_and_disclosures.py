"""`hold`, `disclosures` and what `policy` shows of them."""

from __future__ import annotations

from pathlib import Path

from tests.unit.cli.test_main import Capture, command, place

__all__ = ["place"]


def test_a_hold_is_begun_shown_in_the_policy_and_ended(place: str, capsys: Capture) -> None:
    config = ("--config", place)
    on = ("--org", "org_north", "--user", "usr_7")
    added = command(capsys, "hold", "add", *on, "--reason", "case 12/26", *config)
    assert added[0] == 0, added[2]
    assert "usr_7 of org_north: case 12/26" in command(capsys, "hold", "list", *config)[1]
    policy = command(capsys, "policy", *config)[1]
    assert "Legal hold on usr_7 of org_north" in policy
    assert "case 12/26" in policy
    assert command(capsys, "hold", "remove", *on, *config)[0] == 0
    assert "Legal hold" not in command(capsys, "policy", *config)[1]
    status, _, told = command(capsys, "hold", "remove", *on, *config)
    assert (status, "no hold on usr_7" in told) == (69, True)


def test_a_hold_needs_a_reason(place: str, capsys: Capture) -> None:
    status, _, told = command(
        capsys, "hold", "add", "--org", "o", "--reason", " ", "--config", place
    )
    assert (status, "tell why" in told) == (64, True)


def test_disclosures_say_none_plainly(place: str, capsys: Capture) -> None:
    assert command(capsys, "disclosures", "--config", place)[1].startswith("none:")
    assert command(capsys, "disclosures", "--json", "--config", place)[1].strip() == "[]"


def test_disclosures_name_each_sink_with_its_categories_and_levels(
    place: str, capsys: Capture
) -> None:
    with Path(place).open("a") as file:
        file.write('\n[[sinks]]\nuse = "webhook"\nname = "vendor"\ncategories = ["learning"]\n')
    status, told, trouble = command(capsys, "disclosures", "--config", place)
    assert status == 0, trouble
    assert told == "vendor (webhook): learning; levels standard\n"
