from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from mlc_broker.model.errors import ConfigError
from mlc_broker.simulate.curriculum import (
    Game,
    load_curriculum,
    made_up_curriculum,
    read_games,
    read_sequence,
)

HEAD = ["code", "group", "level_title", "unit_title", "course_category", "course_tags", "active"]
HEAD += [
    "seq_order",
    "part_type",
    "part_number",
    "stage",
    "name",
    "description",
    "vimeo_url",
    "pdf",
]


def game_row(game_id: str, *targets: str) -> list[str]:
    row = [""] * 32
    row[1:4] = ["Some Game", "", game_id]
    row[10] = "M"
    row[17] = "PITCH"
    row[20] = "Grand Staff"
    row[27:32] = targets
    return row


def step_row(part: str, stage: str, *, active: str = "A", order: str = "00100") -> list[str]:
    return ["LIFE", "005A", "", "", "", "", active, order, "GAM-", part, stage, "", "", "", ""]


def test_targets_are_read_raw_and_empty_or_dashed_cells_have_none() -> None:
    games, skipped = read_games([game_row("GAM-0120", "9,000", "6", "-", "", " 3400 ")])
    assert skipped == 0
    assert games["0120"].targets == {"learn": 9000, "play": 6, "review": 3400}
    assert games["0120"].game_id == "G-00120"
    assert games["0120"].concepts == ("pitch", "grand_staff")
    assert games["0120"].midi


def test_headings_short_rows_and_second_rows_of_a_game_are_skipped() -> None:
    whole = game_row("GAM-0120", "1", "2", "3", "4", "5")
    rows = [[], ["x"] * 40, game_row("GAME"), game_row("GAM-0130"), whole, whole]
    games, skipped = read_games(rows)
    assert list(games) == ["0120"]
    assert skipped == 2


def test_steps_of_unknown_games_bad_stages_and_inactive_rows_are_counted_not_played() -> None:
    games, _ = read_games([game_row("GAM-0120", "1", "2", "3", "4", "5")])
    rows = [
        HEAD,
        step_row("0120-3E", "QUIZ", order="00200"),
        step_row("0120-1E", "LEARN", order="00100"),
        step_row("0712-1E", "LEARN"),
        step_row("0120-1E", "DANCE"),
        step_row("0120-1E", "LEARN", active="x"),
        step_row("0120E", "LEARN"),
        ["LIFE"],
    ]
    assignments, skipped = read_sequence(rows, games)
    assert [step.stage_id for step in assignments[0]] == ["G-00120-learn", "G-00120-quiz"]
    assert [step.target for step in assignments[0]] == [1, 3]
    assert skipped == 5


def test_a_third_review_is_played_as_a_review() -> None:
    games: dict[str, Game] = read_games([game_row("GAM-0120", "1", "2", "3", "4", "5")])[0]
    assignments, _ = read_sequence([HEAD, step_row("0120-7E", "REV3")], games)
    assert assignments[0][0].stage == "review"


def test_the_made_up_curriculum_reaches_the_real_targets_and_is_the_same_for_a_seed() -> None:
    one, other = made_up_curriculum(Random(1)), made_up_curriculum(Random(1))
    targets = [step.target for assignment in one.assignments for step in assignment]
    assert one == other
    assert max(targets) >= 9000
    assert min(targets) < 100
    assert {step.stage for assignment in one.assignments for step in assignment} == {
        "learn",
        "play",
        "quiz",
        "challenge",
        "review",
    }


def test_a_file_that_is_no_curriculum_is_told_apart_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "games.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="GAM-0120"):
        load_curriculum(tmp_path / "games.csv", tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_curriculum(tmp_path / "missing.csv", tmp_path / "none.csv")
