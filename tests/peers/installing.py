"""A virtual environment with Synapse in it."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SYNAPSE_REQUIREMENT = "matrix-synapse>=1.163,<1.164"
"""What ``ensure_venv`` installs when the caller names no other requirement."""


class PeerError(RuntimeError):
    """Synapse could not be installed, started, used or stopped."""


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes (parallel test workers) out until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure_venv(
    venv: Path | str,
    *,
    requirement: str = SYNAPSE_REQUIREMENT,
    python: str = sys.executable,
    timeout: float = 600.0,
) -> Path:
    """Make the virtual environment if it has no Synapse; return its Python.

    ``timeout`` is in seconds and covers the pip run.  An existing environment
    with Synapse in it is used as it is.
    """
    folder = Path(venv)
    interpreter = folder / "bin" / "python"
    with _lock(folder.with_name(f"{folder.name}.lock")):
        if has_synapse(folder):
            return interpreter
        subprocess.run([python, "-m", "venv", str(folder)], check=True, timeout=timeout)
        done = subprocess.run(
            [str(interpreter), "-m", "pip", "install", "--quiet", requirement],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0 or not has_synapse(folder):
            raise PeerError(f"pip could not install {requirement}:\n{done.stdout[-2000:]}")
    return interpreter


def has_synapse(venv: Path) -> bool:
    return any(venv.glob("lib/python*/site-packages/synapse/app/homeserver.py"))
