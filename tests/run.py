"""Run the tests: set up what they need, run them, say what could not run.

    python3 tests/run.py                    everything
    python3 tests/run.py tests/core -k v12  what pytest selects, in one process

Needs Python 3.11 and pip's way to a package index, nothing else. It makes, next to the sources and
ignored by git: `.venv-test` (packages by hash from tests/requirements.lock), `.peers/synapse-venv`
(Synapse, which tests talk to), `.peers/rust-sdk` (what Element X is made of) and
tests/clients/js/node_modules. All are kept between runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
VENV = TOP / ".venv-test"
BIN = VENV / "bin"
LOCK = TOP / "tests" / "requirements.lock"
SYNAPSE = Path(os.environ.get("MATRIXBOX_SYNAPSE_VENV", TOP / ".peers" / "synapse-venv"))
JS = TOP / "tests" / "clients" / "js"
RUST = TOP / "tests" / "clients" / "rust"
RUST_SDK = Path(os.environ.get("MATRIXBOX_RUST_SDK", TOP / ".peers" / "rust-sdk"))
ALONE = ["tests/live", "tests/sim"]
IN_CI = bool(os.environ.get("CI"))


def main(arguments: list[str]) -> int:
    """Set up, run, report; returns pytest's exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever Python the machine has runs this
        print("The tests need Python 3.11 or newer.", file=sys.stderr)
        return 2
    started = time.monotonic()
    set_up_python()
    missing: list[str] = []
    if not arguments:
        for what, step in (
            ("Synapse as a peer", set_up_synapse),
            ("Node.js clients", set_up_js),
            ("the Rust SDK", set_up_rust),
        ):
            if trouble := step():
                missing.append(f"{what}: {trouble}")
    say(f"set up in {time.monotonic() - started:.0f} s")
    if missing and IN_CI:
        say("in continuous integration everything must be there:\n  " + "\n  ".join(missing))
        return 1
    code = run_tests(arguments)
    for line in missing:
        say(f"did not run: {line}")
    return code


def run_tests(arguments: list[str]) -> int:
    """Run pytest; returns its exit code, the first that tells of a failure."""
    pytest: list[str | Path] = [BIN / "python", "-m", "pytest"]
    if arguments:
        return run([*pytest, *arguments])
    # Most in two processes, which is what a small machine has. What looks at the clock while it
    # attacks a real server has the machine for itself, and so has what starts processes of its own.
    spread = ["-n", "2", "--dist", "loadfile"]
    together = run([*pytest, *spread, *(f"--ignore={folder}" for folder in ALONE)])
    alone = run([*pytest, *ALONE])
    return together or alone


def set_up_python() -> None:
    """The virtual environment with exactly the locked packages, and this project."""
    wanted = digest(LOCK, TOP / "pyproject.toml", text=sys.version)
    mark = VENV / "set-up-for"
    if mark.exists() and mark.read_text() == wanted:
        return
    say("making .venv-test (a minute or two, once)")
    require([sys.executable, "-m", "venv", "--clear", VENV])
    pip = [BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    require([*pip, "--require-hashes", "--only-binary", ":all:", "-r", LOCK])
    require([*pip, "--no-deps", "--no-build-isolation", "--editable", TOP])
    mark.write_text(wanted)


def set_up_synapse() -> str | None:
    """Synapse in an environment of its own; what went wrong, or None."""
    peer = TOP / "tests" / "peers" / "synapse_peer.py"
    if not peer.exists():
        return None
    code = run([BIN / "python", peer, "--install-only", "--install", "--venv", SYNAPSE])
    return f"its environment could not be made (exit code {code})" if code else None


def set_up_js() -> str | None:
    """The packages of the JavaScript clients, with the Node.js of .venv-test; as above."""
    lock = JS / "package-lock.json"
    if not lock.exists():
        return None
    mark = JS / "node_modules" / "set-up-for"
    wanted = digest(lock)
    if mark.exists() and mark.read_text() == wanted:
        return None
    say("installing the JavaScript clients")
    code = run([BIN / "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], folder=JS)
    if code:
        return f"npm ci ended with exit code {code}"
    mark.write_text(wanted)
    return None


def set_up_rust() -> str | None:
    """The Rust SDK as a prebuilt package; as above."""
    code = run([BIN / "python", RUST / "installing.py", RUST_SDK])
    return f"its package could not be installed (exit code {code})" if code else None


def digest(*files: Path, text: str = "") -> str:
    """Names a state of files, to notice a change."""
    found = hashlib.sha256(text.encode())
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()


def run(command: list[str | Path], folder: Path = TOP) -> int:
    """Run a program with the test environment's programs first on the path."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment["VIRTUAL_ENV"] = str(VENV)
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def require(command: list[str | Path]) -> None:
    """Run a program that has to succeed."""
    code = run(command)
    if code:
        say(f"failed with exit code {code}: {' '.join(map(str, command))}")
        raise SystemExit(code)


def say(text: str) -> None:
    """A line of this program's own, in order with what its children print."""
    print(f"tests/run.py: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
