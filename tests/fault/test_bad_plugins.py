"""Plugins of every bad kind, in the real daemon: it serves on, loses nothing, and says who it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, wait_until
from tests.plugin_house import outcomes, play, put_plugin, resident_bytes, stored, use_plugin

GOOD = """
class Bad(Processor):
    name = "bad"

    async def process(self, event):
        return event.but(properties=event.properties | {"version": "good"})
"""
DOES = """
class Bad(Processor):
    name = "bad"

    async def process(self, event):
        word = event.properties["word"]
        if word:
            return await self.misbehave(word, event)
        return event.but(properties=event.properties | {"seen": True})

    async def misbehave(self, word, event):
        match word:
            case "raise":
                raise ZeroDivisionError("on purpose")
            case "unreadable":
                class Odd(Exception):
                    def __str__(self):
                        raise RuntimeError("not even this")
                raise Odd
            case "exit":
                sys.exit(3)
            case "nonsense":
                return 42
            case "poison":
                return replace(event, properties_json=Raw(b"{half"))
            case "types":
                return replace(event, facts=None)
            case "rename":
                return event.but(event_id="evt_somebody_elses")
            case "loosen":
                return event.but(facts=replace(event.facts, role="system_admin"))
            case "wait":
                await trio.sleep_forever()
            case "swallow":
                while True:
                    try:
                        await trio.sleep(60)
                    except BaseException:
                        pass
            case "shield":
                with trio.CancelScope(shield=True):
                    await trio.sleep_forever()
            case "mutate":
                event.properties["word"] = "changed"
                try:
                    event.user_id = "usr_other"
                except AttributeError:
                    pass
                return event
            case "tasks":
                async def crash():
                    raise ValueError("a system task")
                trio.lowlevel.spawn_system_task(crash)
                return event
            case "nursery":
                async def crash():
                    raise ValueError("a child of nobody")
                nursery = trio.open_nursery()
                inner = await nursery.__aenter__()
                inner.start_soon(crash)
                return event
"""


def house(make: Callable[..., Daemon], code: str, **settings: Any) -> tuple[Daemon, str]:
    daemon = make(start=False)
    put_plugin(daemon, "bad", code)
    use_plugin(daemon, "bad", **settings)
    daemon.start()
    return daemon, daemon.key()


def rows(daemon: Daemon) -> dict[str, Any]:
    import json

    told = json.loads(daemon.command("plugins", "list", "--json").stdout)
    return {row["name"]: row for row in told["processors"]}


QUARANTINED = {
    "raise": "ZeroDivisionError: on purpose",
    "unreadable": "Odd",
    "exit": "would end the process",
    "nonsense": "answered int",
    "poison": "made what is no event",
    "types": "made what is no event",
    "rename": "changed event_id",
    "loosen": "changed facts",
    "wait": "no verdict within",
    "swallow": "swallowed its cancellation",
    "shield": "swallowed its cancellation",
    "nursery": "stack corrupted",
}
SPARED = [("mutate", ""), ("tasks", "")]


def test_what_a_plugin_does_to_one_event_costs_that_event_alone(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon, key = house(make_daemon, DOES, seconds_max=0.5)
    for word, detail in [*QUARANTINED.items(), *SPARED]:
        events = [play(), play(word), play()]
        ack = daemon.publish(events, key)
        expected = "quarantined" if detail else "stored"
        assert outcomes(ack, events) == ["stored", expected, "stored"], word
        told = {one["event_id"]: one.get("detail", "") for one in ack["receipts"]}
        assert detail in told.get(events[1]["event_id"], ""), word
        there = stored(daemon)
        for event in events[0], events[2]:
            assert there[event["event_id"]]["properties"]["seen"] is True, word
        if not detail:
            assert there[events[1]["event_id"]]["properties"]["word"] == word
            assert there[events[1]["event_id"]]["user_id"] == "usr_1"
    assert rows(daemon)["bad"]["failures"] == len(QUARANTINED)
    assert daemon.stop() == 0
    assert not [line for line in daemon.lines if "Traceback" in line]


def test_five_in_a_row_and_the_plugin_is_passed_by_and_named_until_it_is_well_again(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon, key = house(make_daemon, DOES)
    events = [play("raise") for _ in range(5)] + [play(), play("raise")]
    ack = daemon.publish(events, key)
    assert outcomes(ack, events) == ["quarantined"] * 5 + ["stored"] * 2
    row = rows(daemon)["bad"]
    assert (row["state"], row["skipped"]) == ("broken", 2)
    health = daemon.get("/healthz").json()
    assert health["status"] == "degraded"
    assert "bad is broken: ZeroDivisionError" in health["plugins"][0]
    assert daemon.get("/readyz").status == 200  # a plugin that is passed by stops nobody
    time.sleep(0.2)  # the backoff's first step
    again = [play()]
    assert outcomes(daemon.publish(again, key), again) == ["stored"]
    assert rows(daemon)["bad"]["state"] == "ready"
    assert daemon.get("/healthz").json()["status"] == "ok"
    assert stored(daemon)[again[0]["event_id"]]["properties"]["seen"] is True


def test_a_plugin_that_always_waits_is_broken_before_its_senders_give_up(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon, key = house(make_daemon, DOES, seconds_max=60)
    events = [play("wait") for _ in range(50)]
    began = time.monotonic()
    ack = daemon.publish(events, key)
    assert time.monotonic() - began < 10.0
    assert outcomes(ack, events) == ["quarantined"] * 5 + ["stored"] * 45
    assert "no verdict" in rows(daemon)["bad"]["detail"]


HANGS = """
class Bad(Processor):
    name = "bad"

    async def process(self, event):
        if event.properties["word"] == "loop":
            while True:
                pass
        if event.properties["word"] == "lock":
            re.match(r"(a+)+$", "a" * 64 + "!")
        return event
"""


def publish_into_the_void(daemon: Daemon, word: str, key: str) -> None:
    with pytest.raises((ConnectionError, OSError, Exception)):
        daemon.publish([play(word)], key)
    assert daemon.process is not None
    daemon.process.wait(30)
    daemon._tidy()


def test_a_plugin_that_never_lets_go_ends_the_process_and_starts_disabled_the_second_time(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon, key = house(make_daemon, HANGS, seconds_max=0.5)
    kept = [play()]
    assert outcomes(daemon.publish(kept, key), kept) == ["stored"]
    for time_number in (1, 2):
        publish_into_the_void(daemon, "loop", key)
        assert daemon.process is not None
        assert daemon.process.returncode == 70
        wait_until(lambda: any("in process" in line for line in daemon.lines))
        said = "".join(daemon.lines)
        assert "plugin hangs: bad did not let go" in said
        assert str(daemon.directory / "plugins" / "bad.py") in said
        daemon.start()
        state = rows(daemon)["bad"]["state"]
        assert state == ("ready" if time_number == 1 else "disabled")
    health = daemon.get("/healthz").json()
    assert "bad is disabled: it hung the daemon 2 times" in health["plugins"][0]
    loop = [play("loop")]
    assert outcomes(daemon.publish(loop, key), loop) == ["stored"]  # passed by
    assert kept[0]["event_id"] in stored(daemon)
    daemon.command("plugins", "enable", "bad")
    assert rows(daemon)["bad"]["state"] == "ready"
    assert daemon.stop() == 0
    assert not (daemon.directory / "data" / "plugins-running").exists()


@pytest.mark.long
def test_a_plugin_that_holds_the_interpreters_lock_ends_the_process_too(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon, key = house(make_daemon, HANGS, seconds_max=0.5)
    publish_into_the_void(daemon, "lock", key)
    assert daemon.process is not None
    assert daemon.process.returncode == 1
    daemon.start()
    hung = (daemon.directory / "data" / "plugins-hung.json").read_text()
    assert "held the interpreter's lock" in hung
    assert outcomes(daemon.publish([event := play()], key), [event]) == ["stored"]


LEAKS = """
class Bad(Processor):
    name = "bad"

    async def process(self, event):
        word = event.properties["word"]
        if word == "leak":
            bytearray(1024**3)
        if word == "loop":
            while True:
                pass
        if word == "die":
            os._exit(9)
        if word == "secrets":
            return Reject("env", " ".join(sorted(os.environ)))
        return event.but(properties=event.properties | {"pid": os.getpid()})
"""


def test_a_plugin_in_a_process_of_its_own_is_killed_and_the_daemon_is_none_the_bigger(
    make_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLC_SECRET_OF_OURS", "do not tell")
    daemon, key = house(make_daemon, LEAKS, isolation="process", seconds_max=2.0)
    first = [play()]
    daemon.publish(first, key)
    before = resident_bytes(daemon.pid)
    events = [play(), play("leak"), play(), play("loop"), play(), play("die"), play("secrets")]
    ack = daemon.publish(events, key)
    told = {one["event_id"]: one.get("detail", "") for one in ack["receipts"]}
    assert outcomes(ack, events) == [
        "stored", "quarantined", "stored", "quarantined", "stored", "quarantined", "rejected",
    ]  # fmt: skip
    assert "out of memory" in told[events[1]["event_id"]]
    assert "no verdict within" in told[events[3]["event_id"]]
    assert "status 9" in told[events[5]["event_id"]]
    assert "MLC_SECRET_OF_OURS" not in told[events[6]["event_id"]]
    assert resident_bytes(daemon.pid) - before < 20 * 1024**2
    pids = {event["properties"].get("pid") for event in stored(daemon).values()}
    assert daemon.pid not in pids
    assert daemon.stop() == 0
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("code", "settings", "words"),
    [
        ("import no_such_module\n" + GOOD, {}, "bad.py:7 does not load: ModuleNotFoundError"),
        ("def half(:\n", {}, "bad.py:7 does not load: SyntaxError"),
        ("sys.exit(0)\n", {}, "does not load: SystemExit"),
        (GOOD, {"no_such_key": 1}, 'has no setting "no_such_key"'),
        (GOOD.replace("Processor)", "Processor, metaclass=type)").replace('"bad"', '"Bad!"'), {}, "is a word of a-z"),
        (GOOD, {"on_failure": "explode"}, "on_failure"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_loaded_stops_the_start_with_one_line_that_names_it(
    make_daemon: Callable[..., Daemon], code: str, settings: dict[str, Any], words: str
) -> None:
    daemon = make_daemon(start=False)
    put_plugin(daemon, "bad", code)
    use_plugin(daemon, "bad", **settings)
    told = daemon.command("serve", expect=78)
    assert words in told.stderr
    assert "Traceback" not in told.stderr
    assert daemon.command("check", expect=78).stderr


def test_a_broken_plugin_that_nobody_uses_stops_nobody(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(start=False)
    put_plugin(daemon, "bad", "import no_such_module\n")
    daemon.start()
    assert "does not load" in daemon.command("plugins", "list").stdout


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda d: put_plugin(d, "bad", "import no_such_module\n"), "does not load"),
        (lambda d: use_plugin(d, "bad", no_such_key=1), "no_such_key"),
        (lambda d: put_plugin(d, "bad", GOOD + "    async def open(self): 1/0\n"), "does not open"),
        (lambda d: d.config.write_text("[half"), "this is not TOML"),
    ],
)
def test_what_is_broken_at_a_reload_is_told_and_the_old_stays_in_force(
    make_daemon: Callable[..., Daemon], break_it: Callable[[Daemon], Any], words: str
) -> None:
    daemon, key = house(make_daemon, GOOD)
    config = daemon.config.read_text()
    break_it(daemon)
    broken = daemon.config.read_text()
    daemon.config.write_text(config)
    if broken == config:
        told = daemon.command("plugins", "reload", expect=None)
        assert told.returncode != 0
        assert words in told.stderr
    else:  # the command itself could not read it: the signal can
        daemon.config.write_text(broken)
        os.kill(daemon.pid, 1)
        wait_until(lambda: any(words in line for line in daemon.lines))
        daemon.config.write_text(config)
    event = play()
    daemon.publish([event], key)
    assert stored(daemon)[event["event_id"]]["properties"]["version"] == "good"
