"""A test that cannot run is told, with its reason, and fails where it must run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
SUITE = """
from tests.reporting import did_not_run

def test_one():
    did_not_run("no network here")

def test_two():
    did_not_run("no Node.js", required_in_ci=True)

def test_three():
    pass
"""


def run(folder: Path, *, in_ci: bool) -> str:
    """The output of a small suite, run with this project's plugin as a process of its own."""
    (folder / "test_suite.py").write_text(SUITE)
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    environment |= {"PYTHONPATH": str(TOP), **({"CI": "true"} if in_ci else {})}
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", folder, "-c", os.devnull, folder],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_what_did_not_run_is_listed_with_its_reason(tmp_path):
    output = run(tmp_path, in_ci=False)
    assert "did not run: no network here (1 test)" in output
    assert "did not run: no Node.js (1 test)" in output
    assert "1 passed, 2 skipped" in output


def test_what_must_run_in_continuous_integration_fails_there(tmp_path):
    output = run(tmp_path, in_ci=True)
    assert "must run in continuous integration, but: no Node.js" in output
    assert "1 failed, 1 passed, 1 skipped" in output
