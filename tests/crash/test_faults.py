"""T144, T145, T146: full disks, failing disks, flipped bits; each command in its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("command", "size"),
    [
        ("ioerrors", "40"),  # every operation inline, and 40 of them with threads
        ("diskfull", "40"),
        ("bitflips", "1"),
    ],
)
def test_the_store_withstands(command: str, size: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"tests.crash.{command}", size],
        cwd=TOP,
        check=False,
        capture_output=True,
        text=True,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert result.stdout.endswith("proved\n")
