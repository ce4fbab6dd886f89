"""Add what a game teaches, from a registry of games: a JSON file, read again when it changes.

`{"G-01542": {"concepts": ["intervals"]}, "G-00120": {"concepts": ["rhythm", "tempo"]}}`
"""

import json
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from mlc_broker import Event, Processor, Stage, Verdict

FILE_BYTES_MAX = 16 * 1024**2
CONCEPTS_MAX = 32


class Games(Processor):
    """Fill `facts.concepts` by `game_id`. A registry that cannot be read leaves the last one."""

    name = "games"
    stage = Stage.EXTEND

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """The keys of its [[pipeline]] table. A relative `file` starts at this plugin's folder."""

        file: str = "games.json"
        look_seconds: float = 2.0  # how often the file is looked at

    settings: Settings

    async def open(self) -> None:
        """Read the registry; without one, no game is known until there is."""
        self._path = Path(__file__).parent / self.settings.file
        self._games: dict[str, tuple[str, ...]] = {}
        self._stamp = (0, 0)
        self._look_at = self.tools.clock.now()
        self._look(self._look_at)

    async def process(self, event: Event) -> Verdict:
        """Return the event with the concepts of its game."""
        now = self.tools.clock.now()
        if now >= self._look_at:
            self._look(now)
        concepts = self._games.get(str(event.properties.get("game_id")))
        if concepts is None:
            return event
        return event.but(facts=replace(event.facts, concepts=concepts))

    def _look(self, now: datetime) -> None:
        self._look_at = now + timedelta(seconds=self.settings.look_seconds)
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp == self._stamp or found.st_size > FILE_BYTES_MAX:
                return
            self._games = _read(self._path)
            self._stamp = stamp
        except (OSError, ValueError, TypeError, AttributeError):
            return  # half-written, or wrong: the last one stays


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    games = json.loads(path.read_text("utf-8"))
    return {
        game_id: tuple(str(concept) for concept in game.get("concepts", ())[:CONCEPTS_MAX])
        for game_id, game in games.items()
    }
