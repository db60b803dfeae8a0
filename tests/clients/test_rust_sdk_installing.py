"""The prebuilt library of the Rust SDK is made to ask for what the C library here has."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
from pathlib import Path

from tests.clients.rust.elf import use_older_functions
from tests.clients.rust.installing import FOLDER, LIBRARY, LOCK, PLATFORMS, is_there
from tests.reporting import did_not_run


def test_there_is_a_package_for_each_processor_by_hash():
    text = LOCK.read_text()
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) == len(PLATFORMS)


def test_a_library_that_asks_for_nothing_new_stays_as_it_is(tmp_path: Path):
    compiler = shutil.which("cc")
    if compiler is None:
        did_not_run("no C compiler")
    library = tmp_path / "old.so"
    source = tmp_path / "old.c"
    source.write_text("int one(void) { return 1; }")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    before = library.read_bytes()
    assert use_older_functions(library) == []
    assert library.read_bytes() == before


def test_the_installed_library_asks_for_nothing_newer(tmp_path: Path):
    if not is_there(FOLDER):
        did_not_run("the Rust SDK is not installed (tests/run.py does it)", required_in_ci=True)
    here = tuple(map(int, platform.libc_ver()[1].split(".")))
    copy = tmp_path / "copy.so"
    shutil.copyfile(FOLDER / LIBRARY, copy)
    if here < (2, 38):
        assert use_older_functions(copy) == []  # it has been done
    ctypes.CDLL(str(copy))
