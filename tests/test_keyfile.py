"""The signing key's file (threats T051)."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrixbox import keyfile
from matrixbox.keyfile import KeyFileError, make_key, open_key, read_key


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "keys" / "signing.key"


def test_t051_a_fresh_server_gets_a_private_key_that_it_finds_again(path):
    made = open_key(path, known_key_ids=())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["signing.key"]
    again = open_key(path, known_key_ids=[made.key_id])
    assert (again.key_id, again.verify_key) == (made.key_id, made.verify_key)


def test_two_servers_get_different_keys(tmp_path):
    one, other = make_key(tmp_path / "a" / "key"), make_key(tmp_path / "b" / "key")
    assert one.verify_key != other.verify_key
    assert one.key_id != other.key_id


def test_t051_a_missing_key_is_not_made_anew_when_the_database_knows_one(path):
    key = open_key(path, known_key_ids=())
    path.unlink()
    with pytest.raises(KeyFileError, match=rf"missing.*{key.key_id}.*backup"):
        open_key(path, known_key_ids=[key.key_id])
    assert not path.exists()


def test_t051_a_key_that_the_database_does_not_know_is_refused(path):
    key = make_key(path)
    with pytest.raises(KeyFileError, match=rf"holds {key.key_id}.*belongs to ed25519:other"):
        open_key(path, known_key_ids=["ed25519:other"])


def test_a_key_put_there_before_the_first_start_is_used(path):
    made = make_key(path)
    assert open_key(path, known_key_ids=()).key_id == made.key_id


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620])
def test_t051_a_key_that_others_can_read_is_refused(path, bits):
    make_key(path)
    path.chmod(bits)
    with pytest.raises(KeyFileError, match=r"chmod 600"):
        read_key(path)


@pytest.mark.parametrize("bits", [0o750, 0o701])
def test_t051_a_key_folder_that_others_can_enter_is_refused(path, bits):
    make_key(path)
    path.parent.chmod(bits)
    with pytest.raises(KeyFileError, match=r"chmod 700"):
        read_key(path)


def test_a_key_is_never_overwritten(path):
    made = make_key(path)
    with pytest.raises(KeyFileError, match="cannot be made: File exists"):
        make_key(path)
    assert read_key(path).verify_key == made.verify_key


def test_a_half_written_key_of_an_interrupted_start_is_no_hindrance(path):
    path.parent.mkdir(mode=0o700)
    path.with_name("signing.key.new").write_text("ed25519 a_")
    made = make_key(path)
    assert read_key(path).key_id == made.key_id


def test_links_and_folders_in_the_place_of_the_key_are_refused(path):
    real = make_key(path.with_name("real"))
    path.symlink_to(path.with_name("real"))
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_key(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(KeyFileError):
        read_key(path)
    assert real.key_id


@pytest.mark.parametrize(
    "content",
    [
        b"", b"ed25519 a_1", b"ed25519 a_1 hunter2 x", b"rsa a_1 " + b"A" * 43, b"\xff \xff \xff",
        b"ed25519 a_1 hunter2", b"ed25519 a:1 " + b"A" * 43, b"ed25519 a_1 " + b"A" * 42,
    ],
)  # fmt: skip
def test_t051_a_damaged_key_is_refused_without_showing_it(path, content):
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="damaged") as caught:
        read_key(path)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_t051_the_key_does_not_show_its_secret(path):
    key = make_key(path)
    secret = path.read_text().split()[2]
    assert secret not in repr(key)
    assert secret not in str(key)
    assert repr(key.seed) not in repr(key)


def test_the_file_is_what_other_servers_write(path):
    key = make_key(path)
    algorithm, version, seed = path.read_text().split()
    assert (algorithm, f"ed25519:{version}") == ("ed25519", key.key_id)
    assert len(seed) == 43


def test_a_failed_disk_leaves_no_key_behind(path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile.os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        make_key(path)
    assert not path.exists()
