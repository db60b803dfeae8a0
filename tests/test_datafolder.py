"""The data folder: made private, locked against a second server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from matrixbox.datafolder import DataFolder, FolderError, FolderInUse, is_in_use


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_missing_folder_is_made_private(tmp_path):
    with DataFolder.open(tmp_path / "a" / "b") as folder:
        assert mode(folder.path) == 0o700
        assert mode(folder.lock_file) == 0o600
        assert folder.database.parent == folder.path


def test_an_empty_folder_becomes_private(tmp_path):
    tmp_path.chmod(0o755)
    with DataFolder.open(tmp_path):
        assert mode(tmp_path) == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path, bits):
    (tmp_path / "something").touch()
    tmp_path.chmod(bits)
    with pytest.raises(FolderError, match=r"Others can write.*chmod 700") as caught:
        DataFolder.open(tmp_path)
    assert caught.value.exit_code == 77


def test_a_folder_that_others_can_read_is_left_as_it_is(tmp_path):
    (tmp_path / "something").touch()
    tmp_path.chmod(0o755)
    with DataFolder.open(tmp_path):
        assert mode(tmp_path) == 0o755


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(FolderError, match="belongs to another user"):
        DataFolder.open(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(FolderError, match="x is not a folder"):
        DataFolder.open(tmp_path / "x")
    with pytest.raises(FolderError, match="cannot be used: "):
        DataFolder.open(tmp_path / "x" / "y")


def test_t147_a_second_opener_is_refused_and_told_who_has_it(tmp_path):
    with DataFolder.open(tmp_path):
        assert is_in_use(tmp_path)
        with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}") as caught:
            DataFolder.open(tmp_path)
        assert caught.value.exit_code == 73
    assert not is_in_use(tmp_path)
    DataFolder.open(tmp_path).close()


def test_a_folder_never_used_is_not_in_use(tmp_path):
    assert not is_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys, pathlib
from matrixbox.datafolder import DataFolder
folder = DataFolder.open(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_t147_the_lock_of_a_killed_process_is_gone(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(FolderInUse, match=f"process {holder.pid}"):
            DataFolder.open(tmp_path)
        holder.kill()
    DataFolder.open(tmp_path).close()
