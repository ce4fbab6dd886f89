"""Plugins as their author and the operator meet them: reload, shadow, the kit, derived events."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import trio

from tests.daemon import Daemon
from tests.load import Load
from tests.plugin_house import outcomes, play, put_plugin, stored, use_plugin

EXAMPLES = Path(__file__).resolve().parents[2] / "plugins"
MARK = """
class Mark(Processor):
    name = "mark"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        colour: str = "red"

    async def process(self, event):
        return event.but(properties=event.properties | {"colour": self.settings.colour, "code": 1})
"""


async def test_reload_under_load_drops_no_connection_and_no_event(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = await trio.to_thread.run_sync(lambda: make_daemon(start=False))
    put_plugin(daemon, "mark", MARK)
    use_plugin(daemon, "mark")
    await trio.to_thread.run_sync(daemon.start)
    load = Load(daemon, writers=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        for number in range(2, 6):
            acks = load.acks
            put_plugin(daemon, "mark", MARK.replace('"code": 1', f'"code": {number}'))
            use_plugin(daemon, "mark", colour=f"colour {number}")
            told = await trio.to_thread.run_sync(daemon.command, "plugins", "reload")
            assert "mark" in told.stdout
            with trio.fail_after(20):
                while load.acks < acks + 5:
                    await trio.sleep(0.01)
        load.stop.set()
    assert await load.compare() == {}
    assert not [line for line in daemon.lines if "connection lost" in line]
    key = daemon.key()
    event = play()
    await trio.to_thread.run_sync(daemon.publish, [event], key)
    found = (await trio.to_thread.run_sync(stored, daemon))[event["event_id"]]
    assert (found["properties"]["code"], found["properties"]["colour"]) == (5, "colour 5")


def test_points_are_stored_with_what_earned_them_and_once_however_often_it_comes(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(start=False)
    put_plugin(daemon, "points", "")
    shutil.copy(EXAMPLES / "points.py", daemon.directory / "plugins" / "points.py")
    use_plugin(daemon, "points")
    daemon.start()
    key = daemon.key()
    events = [play(score=number, max_score=100, passed=True) for number in (10, 50, 100)]
    assert outcomes(daemon.publish([*events, events[0]], key), events)[1:] == ["stored"] * 2
    assert daemon.publish(events, key)["duplicate"] == 3
    daemon.kill()
    daemon.start()
    assert daemon.publish(events, key)["duplicate"] == 3
    found = stored(daemon).values()
    points = [event for event in found if event["event_type"] == "org.points_awarded"]
    assert sorted(event["properties"]["points"] for event in points) == [1, 5, 10]
    assert {event["meta"]["derived_from"] for event in points} == {e["event_id"] for e in events}
    assert len(found) == 6


def test_a_shadow_tells_what_a_new_version_would_do_and_does_nothing(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon(start=False)
    put_plugin(daemon, "mark", MARK)
    use_plugin(daemon, "mark")
    daemon.start()
    key = daemon.key()
    new = tmp_path / "mark_new.py"
    new.write_text(
        put_plugin(daemon, "mark", MARK)
        .read_text()
        .replace("        return", '        if event.properties["word"]: return Drop("worded")\n        return')
    )  # fmt: skip
    events = [play(), play("short"), play()]

    async def main() -> str:
        said: list[str] = []

        def shadow() -> None:
            words = ("plugins", "shadow", "mark", "--file", str(new), "--seconds", "4", "--json")
            said.append(daemon.command(*words).stdout)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, shadow)
            while not said:
                await trio.to_thread.run_sync(daemon.publish, [play(), play("x"), play()], key)
                await trio.sleep(0.2)
        return said[0]

    report = json.loads(trio.run(main))
    assert report["events"] > 0
    assert report["dropped"] * 2 == report["same"]
    assert report["changed"] == report["failed"] == 0
    assert report["examples"][0]["then"] == "drop (worded)"
    assert report["microseconds_per_event"] > 0
    assert outcomes(daemon.publish(events, key), events) == ["stored"] * 3


def test_a_new_plugin_its_tests_and_an_operators_own_take_a_few_commands(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(start=False)
    put_plugin(daemon, "other", "")
    assert "plugins/brief.py" in daemon.command("plugins", "new", "brief").stdout
    assert daemon.command("plugins", "new", "brief", expect=64).stderr
    told = daemon.command("plugins", "test", "brief")
    assert "brief: keeps its contract" in told.stdout
    assert "2 passed" in told.stdout
    use_plugin(daemon, "brief", duration_ms_min=1000)
    tests = """
[[tests]]
name = "a short view is dropped"
send = { event_type = "game_stage_quit", properties = { game_id = "G-1", duration_ms = 5 } }
expect = { outcome = "dropped", reason = "too_short" }

[[tests]]
name = "a long one is marked"
send = { event_type = "game_stage_quit", properties = { game_id = "G-1", duration_ms = 5000 } }
expect = { outcome = "stored", "properties.brief" = true }
"""
    daemon.config.write_text(daemon.config.read_text() + tests)
    assert "2 of 2 hold" in daemon.command("test").stderr
    daemon.config.write_text(daemon.config.read_text().replace('"too_short"', '"long"'))
    failed = daemon.command("test", expect=1)
    assert "reason: expected 'long', got 'too_short'" in failed.stdout
    assert "not running" in daemon.command("plugins", "list").stdout
    broken = put_plugin(
        daemon,
        "odd",
        "class Odd(Processor):\n    name = 'odd'\n    async def process(self, event):\n        return event.properties['game_id']\n",
    )
    assert broken.exists()
    told = daemon.command("plugins", "test", "odd", expect=1)
    assert "odd: breaks the contract" in told.stdout


def test_without_a_daemon_its_commands_say_so(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(start=False)
    put_plugin(daemon, "mark", MARK)
    assert "is it running?" in daemon.command("plugins", "reload", expect=69).stderr
