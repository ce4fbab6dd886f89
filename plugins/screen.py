"""Refuse impossible scores, skip empty plays, mark the rest."""

from msgspec import Struct

from mlc_broker import Drop, Event, Processor, Reject, Stage, Verdict


class Screen(Processor):
    """What no player can have done is refused; what nobody played is left out."""

    name = "screen"
    stage = Stage.EXTEND  # where plugins stand: after protect

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """The keys of its [[pipeline]] table."""

        score_max: int = 9000

    settings: Settings

    async def process(self, event: Event) -> Verdict:
        """Return the event marked, or why it is not kept."""
        properties = event.properties
        match properties:
            case {"score": int(score)} if score > self.settings.score_max:
                return Reject("implausible", f"score {score} is over {self.settings.score_max}")
            case {"duration_ms": 0}:
                return Drop("empty_play")
        return event.but(properties=properties | {"screened": True})
