"""The unit is valid, hardened, and agrees with the daemon's exit statuses and files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mlc_broker.cli import common

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "mlc-broker.service"
EXPOSURE_TENTHS_MAX = 15

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
    )


@needs_systemd
def test_the_unit_is_valid(tmp_path: Path) -> None:
    # The binary is not installed here: any executable stands for it.
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"/opt/mlc-broker/bin/mlc-broker", "/bin/true", UNIT.read_text()))
    told = analyze("verify", "--man=no", str(unit))
    assert told.returncode == 0, told.stderr
    assert UNIT.name not in told.stderr


@needs_systemd
def test_the_unit_is_hardened() -> None:
    told = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}", str(UNIT))
    assert told.returncode == 0, told.stdout[-500:] + told.stderr


@needs_systemd
def test_a_laxer_unit_would_be_noticed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("CapabilityBoundingSet=\n", ""))
    told = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}", str(unit))
    assert told.returncode != 0


def test_systemd_does_not_start_again_what_a_person_must_mend() -> None:
    found = re.search(r"^RestartPreventExitStatus=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found
    assert {int(status) for status in found[1].split()} == {common.CONFIG, common.IN_USE}


def test_every_command_that_the_administrator_is_told_is_a_command() -> None:
    from mlc_broker.cli.main import COMMANDS

    text = (ROOT / "systemd" / "README.md").read_text()
    told = set(re.findall(r"(?:# mb|#? ?mlc-broker|`mb|`mlc-broker) ([a-z]+)", text)) - {"mlc"}
    assert {"init", "check", "backup", "purge", "erase"} <= told
    assert told <= COMMANDS.keys()
