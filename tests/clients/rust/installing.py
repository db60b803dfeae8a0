"""A folder with the Rust SDK under Element X: six seconds, once; building it takes most of an hour.

    python tests/clients/rust/installing.py .peers/rust-sdk

The package carries a library for x86-64 and for 64-bit ARM; it is made of nothing but C calls, so
that one file serves every Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[2]
if __name__ == "__main__":  # as a program, before there is anything else
    sys.path.insert(0, str(TOP))

from tests.clients.rust.elf import use_older_functions  # noqa: E402

LOCK = HERE / "requirements.lock"
FOLDER = Path(os.environ.get("MATRIXBOX_RUST_SDK") or TOP / ".peers" / "rust-sdk")
LIBRARY = Path("matrix_sdk_python", "_generated", "libmatrix_sdk_ffi.so")
PLATFORMS = {"x86_64": "manylinux_2_38_x86_64", "aarch64": "manylinux_2_34_aarch64"}
WHEEL_PYTHON = "3.12"
MARK = "set-up-for"


class NotInstalled(RuntimeError):
    """The package cannot be had, or does not run here."""


def is_there(folder: Path) -> bool:
    """Whether the folder has what the lock names."""
    mark = folder / MARK
    return mark.exists() and mark.read_text() == wanted()


def wanted() -> str:
    """Names the state of the folder."""
    how = f"{platform.machine()} {platform.libc_ver()}"
    sources = [path.read_bytes() for path in (LOCK, HERE / "elf.py")]
    return hashlib.sha256(b"".join(sources) + how.encode()).hexdigest()


def install(folder: Path) -> None:
    """Make the folder unless it is there; raises NotInstalled."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_there(folder):
            return
        machine = platform.machine()
        if machine not in PLATFORMS or sys.platform != "linux":
            raise NotInstalled(f"there is none for {sys.platform} on {machine}")
        new = folder.with_name(f"{folder.name}.new")
        for old in (new, folder):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(old)
        _run(
            *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary", ":all:", "--python-version", WHEEL_PYTHON),
            *("--platform", PLATFORMS[machine], "--require-hashes", "--target", new, "-r", LOCK),
        )
        version = tuple(map(int, platform.libc_ver()[1].split(".")))
        if machine == "x86_64" and version < (2, 38):
            use_older_functions(new / LIBRARY)
        _run("-c", "import sys; sys.path.insert(0, sys.argv[1]); import matrix_sdk_python", new)
        (new / MARK).write_text(wanted())
        new.rename(folder)


def _run(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise NotInstalled(done.stdout.decode(errors="replace")[-2000:])


if __name__ == "__main__":
    try:
        install(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else FOLDER)
    except NotInstalled as trouble:
        sys.exit(str(trouble))
