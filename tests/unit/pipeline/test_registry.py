"""A plugin file is found, checked and told about; a broken one costs only who names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlc_broker.model.errors import ConfigError, UnknownProcessor, UnsafePlugin, WrongOrder
from mlc_broker.pipeline.plugin_files import find_types, load_file, plugin_files
from mlc_broker.pipeline.registry import Registry

HEAD = (
    "from msgspec import Struct\nfrom mlc_broker import EventType, Processor, Properties, Stage\n"
)
ONE = HEAD + "class One(Processor):\n    name = 'one'\n"
WITH_SETTINGS = (
    ONE
    + "    class Settings(Struct, frozen=True):\n        colour: str = 'red'\n        size: int = 1\n"
)
KEY = {"pseudonym_key": b"k" * 16}
CHAIN: list[dict[str, Any]] = [
    {"use": "canonicalize"}, {"use": "validate"}, {"use": "enrich"}, {"use": "protect", **KEY}
]  # fmt: skip


def steps(folder: Path, code: str, **table: Any) -> Any:
    (folder / "one.py").write_text(code)
    return Registry.find(folder).steps([*CHAIN, {"use": "one", **table}])


@pytest.mark.parametrize(
    ("code", "table", "words"),
    [
        (WITH_SETTINGS, {"color": "blue"}, 'no setting "color"; did you mean "colour"'),
        (WITH_SETTINGS, {"size": "big"}, "Expected `int`, got `str` - at `$.size`"),
        (ONE, {"size": 1}, "its settings are: none"),
        (ONE, {"seconds_max": 0}, "seconds_max"),
        (ONE, {"seconds_max": True}, "seconds_max"),
        (ONE, {"isolation": "jail"}, '"inline" or "process"'),
        (ONE, {"isolation": "process", "memory_bytes_max": 5}, "memory_bytes_max"),
        (ONE, {"on_failure": "hope"}, '"hold" or "skip"'),
        ("x = 1/0\n", {}, "one.py:1 does not load: ZeroDivisionError"),
        (HEAD + "def (", {}, "one.py:3 does not load: SyntaxError"),
        (ONE + "    stage = Stage.VALIDATE\n", {}, "stands behind protect"),
        (ONE.replace("'one'", "'One!'"), {}, "is a word of a-z"),
        (ONE + "    Settings = dict\n", {}, "is a msgspec.Struct"),
    ],
)
def test_what_is_wrong_with_a_plugin_or_its_table_is_named(
    tmp_path: Path, code: str, table: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as told:
        steps(tmp_path, code, **table)
    assert words in str(told.value)


def test_a_good_one_is_found_with_its_settings(tmp_path: Path) -> None:
    step = steps(tmp_path, WITH_SETTINGS, colour="blue", isolation="process")[-1]
    assert (step.use, step.on_failure, step.isolation) == ("one", "skip", "process")
    assert step.settings.colour == "blue"
    assert step.source == str(tmp_path / "one.py")


def test_built_ins_stay_in_the_daemon_and_protect_holds() -> None:
    registry = Registry.find(None)
    for more in ({"isolation": "process"}, {"on_failure": "skip"}):
        with pytest.raises(ConfigError):
            registry.steps([*CHAIN[:3], CHAIN[3] | more])
    with pytest.raises(WrongOrder, match="move it below"):
        registry.steps([*CHAIN[:2], CHAIN[3], CHAIN[2]])


def test_a_broken_file_that_nobody_names_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    assert steps(tmp_path, ONE)[-1].use == "one"
    assert len(Registry.find(tmp_path).broken) == 1
    with pytest.raises(UnknownProcessor, match=r"bad\.py:1 does not load"):
        Registry.find(tmp_path).steps([*CHAIN, {"use": "bad"}])


def test_two_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(ONE)
    with pytest.raises(ConfigError, match=r"one\.py and .*two\.py"):
        steps(tmp_path, ONE)


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(ONE)
    (tmp_path / "one.py").chmod(0o666)
    with pytest.raises(UnsafePlugin, match="chmod o-w"):
        Registry.find(tmp_path)


def test_tests_and_what_begins_with_an_underscore_are_no_plugins(tmp_path: Path) -> None:
    for name in ("test_one.py", "_own.py", "conftest.py", "one.py", "one.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in plugin_files(tmp_path)] == ["one.py"]


def test_a_file_is_read_anew_at_each_load_even_within_a_second(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    for number in range(3):
        file.write_text(f"number = {number}\n")
        assert load_file(file).number == number


def test_event_types_are_found_and_are_named_org(tmp_path: Path) -> None:
    declared = (
        "T = EventType(name='{}', category='user_interaction', group='g', title='t', "
        "properties=Properties)\n"
    )
    (tmp_path / "types.py").write_text(HEAD + declared.format("org.cheered"))
    assert [kind.name for kind in find_types(tmp_path)] == ["org.cheered"]
    (tmp_path / "types.py").write_text(HEAD + declared.format("cheered"))
    with pytest.raises(ConfigError, match=r"org\."):
        find_types(tmp_path)
