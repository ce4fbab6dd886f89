"""What `mlc-broker plugins new NAME` writes: a plugin that works, and its test."""

from __future__ import annotations

PLUGIN = '''"""Say here in one line what {name} does."""

from msgspec import Struct

from mlc_broker import Drop, Event, Processor, Reject, Stage, Verdict


class {kind}(Processor):
    """Drop what is too short to count; mark the rest."""

    name = "{name}"
    stage = Stage.EXTEND  # where plugins stand: behind protect

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """The keys of its [[pipeline]] table, with their defaults."""

        duration_ms_min: int = 1

    settings: Settings

    async def process(self, event: Event) -> Verdict:
        """Return the event, perhaps changed; or Drop, or Reject."""
        properties = event.properties
        match properties:
            case {{"duration_ms": int(duration)}} if duration < 0:
                return Reject("implausible", "duration_ms is below 0")
            case {{"duration_ms": int(duration)}} if duration < self.settings.duration_ms_min:
                return Drop("too_short")
        return event.but(properties=properties | {{"{field}": True}})
'''

TEST = '''"""Run it by `mlc-broker plugins test`, or by pytest."""

import trio

from mlc_broker import Drop, Event
from mlc_broker.testing import check_processor, make_event, run
from {folder}.{file} import {kind}


def test_a_play_that_is_too_short_is_dropped_and_others_are_marked() -> None:
    async def main() -> None:
        short = make_event("page_view", properties={{"duration_ms": 5}})
        long = make_event("page_view", properties={{"duration_ms": 5000}})
        first, second = await run({kind}, [short, long], duration_ms_min=1000)
        assert first == Drop("too_short")
        assert isinstance(second, Event)
        assert second.properties["{field}"] is True

    trio.run(main)


def test_it_keeps_its_contract() -> None:
    trio.run(check_processor, {kind})
'''


def write(name: str, folder: str) -> dict[str, str]:
    """Return the texts of both files by their names."""
    file = name.replace("-", "_")
    kind = "".join(part.capitalize() for part in file.split("_"))
    words = {"name": name, "file": file, "kind": kind, "field": file, "folder": folder}
    return {f"{file}.py": PLUGIN.format(**words), f"test_{file}.py": TEST.format(**words)}
