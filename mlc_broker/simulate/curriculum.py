"""Games, their target scores, and the sequence in which a class walks through their stages.

Read from CSV files of the legacy system's shape, dirt and all, or made up in the same shape.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from msgspec import Struct

from mlc_broker.model.errors import ConfigError

ROWS_MAX = 100_000
STAGES = ("learn", "play", "quiz", "challenge", "review")
TARGET_MAX = 1_000_000


class Game(Struct, frozen=True, kw_only=True):
    """A game and the score that each of its stages asks for."""

    game_id: str  # G-00120
    name: str
    concepts: tuple[str, ...]
    targets: dict[str, int]  # stage → raw score
    midi: bool = False


class Step(Struct, frozen=True, kw_only=True):
    """One stage of one game, in its place in the sequence."""

    assignment: str
    game: Game
    stage: str
    position: int

    @property
    def stage_id(self) -> str:
        """The id of the stage, in the specification's form."""
        return f"{self.game.game_id}-{self.stage}"

    @property
    def target(self) -> int:
        """The raw score asked for; 100 where nobody has set one."""
        return self.game.targets.get(self.stage, 100)


class Curriculum(Struct, frozen=True, kw_only=True):
    """What there is to play. `skipped` counts the rows that no sense could be made of."""

    sequence_id: str
    assignments: tuple[tuple[Step, ...], ...]
    games: int
    skipped: int = 0

    @property
    def steps(self) -> int:
        """How many steps there are in all assignments."""
        return sum(map(len, self.assignments))


def load_curriculum(games: Path, sequence: Path) -> Curriculum:
    """Read both files. Rows without sense are skipped and counted; raise ConfigError if all are."""
    known, bad_games = read_games(_rows(games))
    if not known:
        raise ConfigError(
            f"{games}: no row has a game id like GAM-0120 in its fourth column: "
            "is this the games master list?"
        )
    assignments, bad_steps = read_sequence(_rows(sequence), known)
    if not assignments:
        raise ConfigError(
            f"{sequence}: no row names a stage of a known game "
            "(columns part_type, part_number, stage): is this the sequence's upload file?"
        )
    return Curriculum(
        sequence_id=f"seq_{sequence.stem.removeprefix('sequence-').lower()}"[:64],
        assignments=assignments,
        games=len(known),
        skipped=bad_games + bad_steps,
    )


def read_games(rows: Sequence[Sequence[str]]) -> tuple[dict[str, Game], int]:
    """Return games by their four digits, and how many rows that look like games were skipped."""
    games: dict[str, Game] = {}
    skipped = 0
    for row in rows:
        found = _GAME.match(row[3].strip()) if len(row) > 3 else None
        if not found:
            continue
        number = found.group(1)
        if number in games or len(row) < 32:
            skipped += 1
            continue
        targets = {
            stage: score
            for stage, cell in zip(STAGES, row[27:32], strict=True)
            if (score := _score(cell)) is not None
        }
        games[number] = Game(
            game_id=f"G-{int(number):05d}",
            name=" ".join((row[2] or row[1]).split())[:100] or f"Game {number}",
            concepts=_concepts(row[17], *row[20:22]),
            targets=targets,
            midi="M" in row[10],
        )
    return games, skipped


def read_sequence(
    rows: Sequence[Sequence[str]], games: dict[str, Game]
) -> tuple[tuple[tuple[Step, ...], ...], int]:
    """Return the assignments in order, and how many rows of the sequence were skipped."""
    columns = {name.strip().lower(): i for i, name in enumerate(rows[0])} if rows else {}
    if not {"group", "active", "seq_order", "part_number", "stage"} <= columns.keys():
        return (), len(rows)
    groups: dict[str, list[tuple[str, Game, str]]] = {}
    skipped = 0
    for row in rows[1:]:
        if len(row) < len(columns):
            skipped += 1
            continue
        cell = {name: row[i].strip() for name, i in columns.items()}
        found = _PART.match(cell["part_number"])
        stage = _STAGE.get(cell["stage"].upper())
        game = games.get(found.group(1)) if found else None
        if not game or not stage or cell["active"] not in {"A", "a"}:
            skipped += 1
        else:
            groups.setdefault(cell["group"], []).append((cell["seq_order"].zfill(8), game, stage))
    return tuple(_ordered(groups)), skipped


def made_up_curriculum(random: Random, *, games: int = 60, assignments: int = 40) -> Curriculum:
    """Make a curriculum of the real one's proportions: targets to 9,000, reviews after quizzes."""
    names = [f"{a} {b}" for a in _ADJECTIVES for b in _NOUNS]
    random.shuffle(names)
    made = [_made_up_game(random, number + 1, names[number]) for number in range(games)]
    groups: dict[str, list[tuple[str, Game, str]]] = {}
    for number in range(assignments):
        fresh = [made[(number * 4 + i) % games] for i in range(4)]
        old = [made[(number * 4 - 12 - i) % games] for i in range(3)] if number > 3 else []
        steps = [(game, stage) for game in fresh for stage in ("learn", "play", "quiz")]
        steps += [(fresh[0], "challenge")] if number % 3 == 0 else []
        steps += [(game, "review") for game in old]
        groups[f"{5 * (number + 1):03d}A"] = [
            (f"{i:08d}", game, stage) for i, (game, stage) in enumerate(steps)
        ]
    return Curriculum(sequence_id="seq_demo", assignments=tuple(_ordered(groups)), games=games)


_GAME = re.compile(r"^GAM-(\d{4})$")
_PART = re.compile(r"^(\d{4})(?:-\d[A-Z]?)?$")
_STAGE = {
    "LEARN": "learn",
    "PLAY": "play",
    "QUIZ": "quiz",
    "CHALLENGE": "challenge",
    "REVIEW": "review",
    "REV2": "review",
    "REV3": "review",
}
_ADJECTIVES = ("Brisk", "Quiet", "Copper", "Lucky", "Winding", "Paper", "Marble", "Rainy")
_NOUNS = (
    "Kite Notes",
    "Drum Steps",
    "Lantern Intervals",
    "River Scales",
    "Pebble Rhythms",
    "Harbor Chords",
    "Compass Keys",
    "Meadow Echoes",
)
_AREAS = ("pitch", "rhythm", "intervals", "scales", "chords", "memory", "symbols", "keyboard")
_TARGETS = (60, 90, 300, 800, 1400, 1800, 2300, 2850, 3400, 5200, 9000)


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = []
            for row in csv.reader(file):
                rows.append(row)
                if len(rows) > ROWS_MAX:
                    raise ConfigError(f"{path} has more than {ROWS_MAX} rows; split it.")
            return rows
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise ConfigError(f"{path} is not a CSV file: {error}") from error


def _score(cell: str) -> int | None:
    digits = cell.strip().replace(",", "")
    if not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if 0 < len(digits) < 8 and 0 < int(digits) <= TARGET_MAX else None


def _concepts(*cells: str) -> tuple[str, ...]:
    words = (re.sub(r"[^a-z0-9]+", "_", cell.lower()).strip("_")[:50] for cell in cells)
    return tuple(dict.fromkeys(word for word in words if word)) or ("music",)


def _ordered(groups: dict[str, list[tuple[str, Game, str]]]) -> Iterator[tuple[Step, ...]]:
    position = 0
    for group, steps in groups.items():
        ordered = []
        for _, game, stage in sorted(steps, key=lambda step: step[0]):
            position += 1
            ordered.append(Step(assignment=group, game=game, stage=stage, position=position))
        yield tuple(ordered)


def _made_up_game(random: Random, number: int, name: str) -> Game:
    quiz = random.choice(_TARGETS)
    targets = {
        "learn": max(1, quiz // 2),
        "play": max(1, quiz * 3 // 4),
        "quiz": quiz,
        "challenge": quiz + quiz // 5,
        "review": quiz,
    }
    return Game(
        game_id=f"G-{number * 10:05d}",
        name=name,
        concepts=tuple(random.sample(_AREAS, 2)),
        targets=targets,
        midi=random.random() < 0.1,
    )
