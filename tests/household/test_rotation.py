"""A new signing key for the server, wherever the change is broken off ([B3.09], T051)."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from matrixbox import keyfile
from matrixbox.clock import SimulatedClock
from matrixbox.household import rotation
from matrixbox.keyfile import KeyFileError, make_key, next_key_file, open_key, read_key
from matrixbox.store import meta, server_keys
from matrixbox.store.database import Store
from matrixbox.store.runner import Runner


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "keys" / "signing.key"


@contextmanager
def a_store():
    store = Store.open(":memory:", runner=Runner.INLINE)
    try:
        yield store
    finally:
        store.close()


def known(store):
    return store.read(meta.get_text, "key_id")


async def remembered(store, key):
    await store.write(meta.put_text, "key_id", key.key_id)


async def test_b3_09_after_a_change_the_file_holds_the_new_key_and_the_old_one_is_kept(
    path, mock_clock
):
    old = make_key(path)
    clock = SimulatedClock()
    with a_store() as store:
        await remembered(store, old)
        new = await rotation.rotate(store, path, old, clock)
        assert new.key_id != old.key_id
        assert read_key(path).verify_key == new.verify_key
        assert known(store) == new.key_id
        assert not next_key_file(path).exists()
        [kept] = store.read(server_keys.old_keys)
        assert (kept.key_id, kept.public_key) == (old.key_id, old.verify_key)
        assert kept.expired_ms == clock.now_ms()
        assert open_key(path, [known(store)]).key_id == new.key_id


async def test_b3_09_every_old_key_is_kept_over_many_changes(path):
    key = make_key(path)
    with a_store() as store:
        await remembered(store, key)
        ids = [key.key_id]
        for _ in range(5):
            key = await rotation.rotate(store, path, key, SimulatedClock())
            ids.append(key.key_id)
        assert sorted(old.key_id for old in store.read(server_keys.old_keys)) == sorted(ids[:-1])
        assert len(set(ids)) == 6


async def test_t051_a_change_broken_off_before_the_database_knew_leaves_the_old_key(
    path, monkeypatch
):
    old = make_key(path)
    with a_store() as store:
        await remembered(store, old)

        def cut(*_):
            raise RuntimeError("power cut")

        monkeypatch.setattr(rotation, "_change", cut)
        with pytest.raises(RuntimeError):
            await rotation.rotate(store, path, old, SimulatedClock())
        assert next_key_file(path).exists()
        assert open_key(path, [known(store)]).key_id == old.key_id
        monkeypatch.undo()
        new = await rotation.rotate(store, path, old, SimulatedClock())
        assert open_key(path, [known(store)]).verify_key == new.verify_key
        assert not next_key_file(path).exists()


async def test_t051_a_change_broken_off_after_the_database_knew_is_finished_by_the_next_start(
    path, monkeypatch
):
    old = make_key(path)
    with a_store() as store:
        await remembered(store, old)

        def cut(_):
            raise RuntimeError("power cut")

        monkeypatch.setattr(rotation, "adopt_next_key", cut)
        with pytest.raises(RuntimeError):
            await rotation.rotate(store, path, old, SimulatedClock())
        assert read_key(path).key_id == old.key_id
        found = open_key(path, [known(store)])
        assert found.key_id == known(store) != old.key_id
        assert read_key(path).key_id == found.key_id
        assert not next_key_file(path).exists()


def test_t051_a_waiting_key_that_the_database_does_not_know_is_never_taken(path):
    make_key(path)
    keyfile.make_next_key(path, ())
    with pytest.raises(KeyFileError, match="belongs to ed25519:other"):
        open_key(path, ["ed25519:other"])
    path.unlink()
    with pytest.raises(KeyFileError, match="missing"):
        open_key(path, ["ed25519:other"])


def test_a_new_key_never_has_an_id_that_was_used(path, monkeypatch):
    make_key(path)
    made = iter(["one", "one", "two"])
    generate = keyfile.signing.generate

    def chosen(random_bytes):
        return keyfile.SigningKey(next(made), generate(random_bytes).seed)

    monkeypatch.setattr(keyfile.signing, "generate", chosen)
    assert keyfile.make_next_key(path, {"ed25519:one"}).key_id == "ed25519:two"
