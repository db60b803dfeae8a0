"""The systemd unit: valid, hardened, and in step with the command line (threats T169, T170)."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from matrixbox.cli.parser import parser
from matrixbox.config import EXIT_CONFIG
from matrixbox.datafolder import EXIT_IN_USE
from matrixbox.keyfile import EXIT_KEY
from tests.reporting import did_not_run

UNIT = Path(__file__).resolve().parents[1] / "packaging" / "matrixbox.service"
MOST_EXPOSURE = 1.6


def settings() -> dict[str, list[str]]:
    """The unit's settings; a key may come more than once."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        did_not_run("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def exposure(unit: Path) -> float:
    done = analyze("security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.fixture
def installed(tmp_path) -> Path:
    """The unit as it would be with the program in its place."""
    program = tmp_path / "matrixbox"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "matrixbox.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/matrixbox", str(program)))
    return unit


def test_t169_the_unit_is_valid(installed):
    done = analyze("verify", "--man=no", installed)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_invalid_unit_would_be_noticed(installed):
    installed.write_text(installed.read_text() + "\n[Service]\nNonsense=yes\n")
    assert "Nonsense" in analyze("verify", "--man=no", installed).stderr


def test_t169_the_unit_s_exposure_is_as_low_as_measured():
    assert exposure(UNIT) <= MOST_EXPOSURE


@pytest.mark.parametrize("key", ["SystemCallFilter", "RestrictNamespaces", "CapabilityBoundingSet"])
def test_a_weaker_unit_would_be_noticed(tmp_path, key):
    weaker = tmp_path / "matrixbox.service"
    lines = UNIT.read_text().splitlines()
    weaker.write_text("\n".join(line for line in lines if not line.startswith(f"{key}=")))
    assert exposure(weaker) > MOST_EXPOSURE


def test_t170_the_unit_s_limits_are_those_of_the_threat_page():
    expected = {
        "Type": "notify",
        "WatchdogSec": "60",
        "Restart": "always",
        "TimeoutStopSec": "20",
        "KillMode": "mixed",
        "DynamicUser": "yes",
        "StateDirectory": "matrixbox",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
        "MemoryHigh": "384M",
        "MemoryMax": "512M",
        "MemorySwapMax": "0",
        "TasksMax": "64",
        "LimitNOFILE": "4096",
        "LimitCORE": "0",
        "MemoryDenyWriteExecute": "yes",
        "NoNewPrivileges": "yes",
        "AmbientCapabilities": "CAP_NET_BIND_SERVICE",
    }
    found = settings()
    assert {key: found.get(key, [""])[-1] for key in expected} == expected
    assert "time-sync.target" in found["After"][0]


def test_the_unit_s_command_is_one_that_the_program_knows():
    command = shlex.split(settings()["ExecStart"][0])
    assert command[0] == "/usr/bin/matrixbox"
    options = parser().parse_args(command[1:])
    assert str(options.config) == "%d/matrixbox.toml"
    assert settings()["LoadCredential"] == ["matrixbox.toml:/etc/matrixbox/matrixbox.toml"]


def test_what_a_person_must_mend_is_not_retried():
    (codes,) = settings()["RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} == {EXIT_IN_USE, EXIT_KEY, EXIT_CONFIG}
