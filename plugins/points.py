"""Points for a finished stage, and a bonus for every streak of passed ones: derived events.

A derived event, `org.points_awarded`, goes its own way through the chain once its source is
stored. It makes no further ones, so points never feed on points. A resend of the source makes it
again under the same id: a duplicate. Streaks are kept in memory: after a restart they begin anew.
"""

from collections import OrderedDict
from typing import Annotated

from msgspec import Meta, Struct

from mlc_broker import Event, EventType, Processor, Properties, Stage, Verdict

SEEN_MAX = 64  # ids of a player's last plays: a resend is no second play


class PointsAwarded(Properties, frozen=True, kw_only=True, omit_defaults=True):
    """What `org.points_awarded` carries."""

    points: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    bonus: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    streak: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    game_id: Annotated[str, Meta(max_length=64)] | None = None
    needs = (("points",),)


POINTS_AWARDED = EventType(
    name="org.points_awarded",
    category="learning_progress",
    group="Gameplay",
    title="Points awarded",
    properties=PointsAwarded,
)


class Streak(Struct):
    """A player's passed stages in a row, and the plays that were counted."""

    length: int = 0
    seen: OrderedDict[str, int] = OrderedDict()


class Points(Processor):
    """Award points by score; every `streak_every` passed stages in a row, a bonus."""

    name = "points"
    stage = Stage.EXTEND

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """The keys of its [[pipeline]] table."""

        points_max: int = 10  # for a perfect score
        streak_every: int = 3
        streak_bonus: int = 5
        players_max: int = 100_000  # whose streaks are remembered: those who played last

    settings: Settings

    async def open(self) -> None:
        """Nobody has a streak yet."""
        self._players: OrderedDict[tuple[str | None, str], Streak] = OrderedDict()

    async def process(self, event: Event) -> Verdict:
        """Return the event as it is; emit what it earned."""
        if event.event_type == "game_stage_complete" and event.user_id is not None:
            self._award(event, event.user_id)
        return event

    def _award(self, event: Event, user_id: str) -> None:
        play = event.properties
        score, best = play.get("score"), play.get("max_score", 100)
        if not isinstance(score, int) or not isinstance(best, int) or best <= 0:
            return
        streak = self._streak(event, user_id, passed=play.get("passed") is True)
        bonus = streak > 0 and streak % self.settings.streak_every == 0
        earned = {
            "points": self.settings.points_max * score // best,
            "bonus": self.settings.streak_bonus if bonus else 0,
            "streak": streak,
        }
        if isinstance(play.get("game_id"), str):
            earned["game_id"] = play["game_id"]
        self.tools.emit(event.but(event_type=POINTS_AWARDED.name, properties=earned))

    def _streak(self, event: Event, user_id: str, *, passed: bool) -> int:
        """Count a play once: a resend finds the streak as it was then."""
        key = (event.organization_id, user_id)
        player = self._players.pop(key, None) or Streak(seen=OrderedDict())
        self._players[key] = player
        if len(self._players) > self.settings.players_max:
            self._players.popitem(last=False)
        if event.event_id not in player.seen:
            player.length = player.length + 1 if passed else 0
            player.seen[event.event_id] = player.length
            if len(player.seen) > SEEN_MAX:
                player.seen.popitem(last=False)
        return player.seen[event.event_id]
