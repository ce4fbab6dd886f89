"""The command line: exit statuses, one line for an error, never a traceback."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import click
import pytest

from mlc_broker.cli import main as main_module
from mlc_broker.cli.common import explain
from mlc_broker.cli.main import COMMANDS, cli, run
from mlc_broker.model.errors import ConfigError, DirectoryInUse, ShardUnavailable

Capture = pytest.CaptureFixture[str]


def command(capsys: Capture, *words: str) -> tuple[int, str, str]:
    """Run a command in this process: its status, stdout, stderr."""
    status = run(words, {})
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.fixture
def place(tmp_path: Path, capsys: Capture) -> str:
    """A directory made by `init`; its config.toml."""
    assert command(capsys, "init", str(tmp_path / "broker"))[0] == 0
    return str(tmp_path / "broker" / "config.toml")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ConfigError("a:1: x\na:2: y"), 78, ["a:1: x", "a:2: y"]),
        (DirectoryInUse("data: in use by process 7"), 73, ["data: in use by process 7"]),
        (ShardUnavailable("disk is full", hint="make room"), 69, ["disk is full; make room"]),
        (OSError(errno.ENOSPC, "No space left", "f"), 69, ["f: No space left"]),
        (click.UsageError("no"), 64, ["no (`mlc-broker --help` tells more)"]),
        (click.exceptions.Exit(3), 3, []),
        (SystemExit(78), 78, []),
        (KeyboardInterrupt(), 130, ["stopped"]),
        (BrokenPipeError(), 0, []),
        (ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [ConfigError("z")])]), 78, ["z"]),
    ],
)
def test_an_error_has_its_exit_status_and_its_line(
    error: BaseException, status: int, words: list[str]
) -> None:
    assert explain(error) == (status, words)


def test_a_missing_extra_says_how_to_install_it() -> None:
    status, lines = explain(ModuleNotFoundError("No module", name="pyarrow.parquet"))
    assert (status, lines) == (
        69,
        ["this needs the package pyarrow.parquet: pip install 'mlc-broker[parquet]'"],
    )


def test_a_fault_of_ours_is_one_line_and_how_to_report_it(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def broken() -> None:
        assert "one" + click  # type: ignore[operator]

    monkeypatch.setattr(main_module.Commands, "get_command", lambda *_: broken)
    status, out, err = command(capsys, "serve")
    assert (status, out) == (70, "")
    assert err.count("\n") == 1
    assert err.startswith("mlc-broker: this is a fault of ours: TypeError: ")
    assert "Please report it" in err
    assert run(["serve"], {"MLC_DEBUG": "1"}) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["frobnicate"], ["check", "--cofnig", "x"], ["init"], ["keys"], ["token"], ["keys", "create"]],
)
def test_wrong_usage_is_64_and_one_line(capsys: Capture, words: list[str]) -> None:
    status, _, err = command(capsys, *words)
    assert status == 64
    assert "Traceback" not in err


def test_a_command_whose_file_does_not_exist_is_not_listed(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "someday", "mlc_broker.cli.someday_command:someday")
    assert "someday" not in cli.list_commands(click.Context(cli))
    assert command(capsys, "someday")[0] == 64


def test_the_version_is_told(capsys: Capture) -> None:
    status, out, _ = command(capsys, "--version")
    assert (status, out.startswith("mlc-broker, version ")) == (0, True)


def test_init_makes_a_directory_that_check_finds_good(capsys: Capture, place: str) -> None:
    for name in ("jwt.secret", "pseudonym.key"):
        assert stat.S_IMODE((Path(place).parent / name).stat().st_mode) == 0o600
    status, _, err = command(capsys, "check", "--config", place)
    assert status == 0, err
    assert "canonicalize → validate → enrich → protect → sample → route" in err


def test_init_keeps_what_is_there(capsys: Capture, place: str) -> None:
    folder = Path(place).parent
    Path(place).write_text("[events]\nmax_age_days = 7\n")
    secret = (folder / "jwt.secret").read_bytes()
    assert command(capsys, "init", str(folder))[0] == 0
    assert Path(place).read_text() == "[events]\nmax_age_days = 7\n"
    assert (folder / "jwt.secret").read_bytes() == secret


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[storage]\nslotz = 1\n", ':2: [storage] has no key "slotz"'),
        ("[[pipeline]]\nuse = 'protect'\n[[pipeline]]\nuse = 'scren'\n", '"scren"'),
        ("[http]\ntls_key = 'k'\ntls_certificate = 'c'\n", "there is no file"),
        ("[[sinks]]\nuse = 'webhook'\n", 'there is no sink "webhook"'),
    ],
)
def test_check_refuses_a_bad_file_with_78(
    capsys: Capture, place: str, text: str, words: str
) -> None:
    Path(place).write_text(text)
    status, _, err = command(capsys, "check", "--config", place)
    assert status == 78
    assert err.startswith(f"mlc-broker: {place}")
    assert words in err


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(
    capsys: Capture, place: str
) -> None:
    status, out, _ = command(
        capsys, "keys", "create", "--org", "org_1", "--name", "kiosk", "--config", place
    )
    key = out.strip()
    assert (status, key[:7]) == (0, "mlc_ik_")
    _, listed, _ = command(capsys, "keys", "list", "--config", place)
    assert "kiosk" in listed
    assert key.rpartition("_")[2] not in listed
    key_id = listed.split()[0]
    assert command(capsys, "keys", "revoke", key_id, "--config", place)[0] == 0
    assert "revoked" in command(capsys, "keys", "list", "--config", place)[1]


def test_an_anonymous_key_cannot_write_the_roster(capsys: Capture, place: str) -> None:
    words = ["keys", "create", "--org", "o", "--name", "n", "--anonymous", "--roster"]
    assert command(capsys, *words, "--config", place)[0] == 64
    words = ["keys", "create", "--org", "o", "--name", "n", "--category", "learning_progress"]
    assert command(capsys, *words, "--config", place)[0] == 64


def test_a_token_has_three_parts_and_a_limited_life(capsys: Capture, place: str) -> None:
    words = ["token", "--sub", "u", "--org", "o", "--role", "student", "--config", place]
    status, out, _ = command(capsys, *words)
    assert (status, out.count(".")) == (0, 2)
    assert command(capsys, *words, "--seconds", "99999999")[0] == 64


def test_the_doctor_finds_a_secret_that_others_can_read(capsys: Capture, place: str) -> None:
    secret = Path(place).parent / "jwt.secret"
    secret.chmod(0o644)
    status, out, err = command(capsys, "doctor", "--config", place)
    assert status in (0, 69), err
    assert f"chmod 600 {secret}" in out
    assert "SQLite" in out
