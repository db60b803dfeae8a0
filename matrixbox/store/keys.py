"""Keys of devices and users: identity keys, one-time and fallback keys, cross-signing keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from attrs import frozen

from matrixbox.core.identifiers import DeviceId
from matrixbox.core.json import decode_stored
from matrixbox.store.caches import KeyCounts
from matrixbox.store.nids import DeviceNid, UserNid
from matrixbox.store.transaction import Tx


@frozen
class DeviceKeys:
    """The identity keys of a device."""

    device_id: DeviceId
    display_name: str | None
    json: bytes


@frozen
class OneTimeKey:
    """A key to be handed out once, or a fallback key."""

    algorithm: str
    key_id: str
    json: bytes


# --- identity keys


def device_keys(tx: Tx, device: DeviceNid) -> bytes | None:
    """The identity keys of a device."""
    row = tx.one("SELECT json FROM device_key WHERE device_nid = ?", device)
    return None if row is None else bytes(row[0])


def put_device_keys(tx: Tx, device: DeviceNid, json: bytes) -> None:
    """Store identity keys over those they replace."""
    tx.run(
        "INSERT INTO device_key (device_nid, json) VALUES (?, ?)"
        " ON CONFLICT (device_nid) DO UPDATE SET json = excluded.json",
        device,
        json,
    )


def keys_of_user(tx: Tx, user: UserNid) -> list[DeviceKeys]:
    """The identity keys of the devices of a user of ours, those without any left out."""
    rows = tx.run(
        "SELECT device_id, display_name, json FROM device JOIN device_key USING (device_nid)"
        " WHERE user_nid = ? ORDER BY device_nid",
        user,
    )
    return [DeviceKeys(DeviceId(row[0]), row[1], bytes(row[2])) for row in rows]


def keys_of_device(tx: Tx, user: UserNid, device_id: str) -> DeviceKeys | None:
    """The identity keys of one device of a user of ours."""
    row = tx.one(
        "SELECT device_id, display_name, json FROM device JOIN device_key USING (device_nid)"
        " WHERE user_nid = ? AND device_id = ?",
        user,
        device_id,
    )
    return None if row is None else DeviceKeys(DeviceId(row[0]), row[1], bytes(row[2]))


# --- one-time keys


def one_time_keys(tx: Tx, device: DeviceNid) -> dict[tuple[str, str], bytes]:
    """The one-time keys that a device has left, by algorithm and id."""
    rows = tx.run(
        "SELECT algorithm, key_id, json FROM one_time_key"
        " WHERE device_nid = ? AND json IS NOT NULL",
        device,
    )
    return {(row[0], row[1]): bytes(row[2]) for row in rows}


def handed_out(tx: Tx, device: DeviceNid) -> set[bytes]:
    """Digests of keys that a device does not have any more, of the newest ones at least."""
    rows = tx.run("SELECT digest FROM one_time_key WHERE device_nid = ? AND json IS NULL", device)
    return {bytes(row[0]) for row in rows}


def digest(key: OneTimeKey) -> bytes:
    """What is remembered of a key that was handed out."""
    text = b"%b:%b %b" % (key.algorithm.encode(), key.key_id.encode(), key.json)
    return hashlib.blake2b(text, digest_size=16).digest()


def add_one_time_keys(tx: Tx, device: DeviceNid, new: Iterable[OneTimeKey]) -> None:
    """Store keys to be handed out, in this order."""
    tx.many(
        "INSERT INTO one_time_key (device_nid, algorithm, key_id, json) VALUES (?, ?, ?, ?)",
        [(device, key.algorithm, key.key_id, key.json) for key in new],
    )
    tx.after_commit(tx.caches.key_counts.drop, device)


def take_one_time_key(tx: Tx, device: DeviceNid, algorithm: str) -> OneTimeKey | None:
    """Hand out the oldest key; nobody else will get it."""
    row = tx.one(
        "SELECT key_nid, key_id, json FROM one_time_key"
        " WHERE device_nid = ? AND algorithm = ? AND json IS NOT NULL"
        " ORDER BY key_nid LIMIT 1",
        device,
        algorithm,
    )
    if row is None:
        return None
    taken = OneTimeKey(algorithm, row[1], bytes(row[2]))
    tx.run(
        "UPDATE one_time_key SET json = NULL, digest = ? WHERE key_nid = ?", digest(taken), row[0]
    )
    tx.after_commit(tx.caches.key_counts.drop, device)
    return taken


def forget_handed_out(tx: Tx, device: DeviceNid, keep: int) -> None:
    """Forget which keys were handed out, but for the newest."""
    tx.run(
        "DELETE FROM one_time_key WHERE key_nid IN (SELECT key_nid FROM one_time_key"
        " WHERE device_nid = ? AND json IS NULL ORDER BY key_nid DESC LIMIT -1 OFFSET ?)",
        device,
        keep,
    )


def drop_one_time_keys(tx: Tx) -> None:
    """Drop all one-time keys of all devices, as after the restore of a backup: some of them may
    have been handed out since it was made.  Clients see the counts and upload new ones."""
    tx.run("DELETE FROM one_time_key")
    tx.after_commit(tx.caches.key_counts.clear)


# --- fallback keys


def fallback_keys(tx: Tx, device: DeviceNid) -> dict[str, tuple[OneTimeKey, bool]]:
    """A device's fallback keys by algorithm, each with whether it was used."""
    rows = tx.run(
        "SELECT algorithm, key_id, json, used FROM fallback_key WHERE device_nid = ?", device
    )
    return {row[0]: (OneTimeKey(row[0], row[1], bytes(row[2])), bool(row[3])) for row in rows}


def put_fallback_key(tx: Tx, device: DeviceNid, key: OneTimeKey) -> None:
    """Store an unused fallback key over the one of its algorithm."""
    tx.run(
        "INSERT INTO fallback_key (device_nid, algorithm, key_id, used, json)"
        " VALUES (?, ?, ?, 0, ?) ON CONFLICT (device_nid, algorithm) DO UPDATE"
        " SET key_id = excluded.key_id, used = 0, json = excluded.json",
        device,
        key.algorithm,
        key.key_id,
        key.json,
    )
    tx.after_commit(tx.caches.key_counts.drop, device)


def use_fallback_key(tx: Tx, device: DeviceNid, algorithm: str) -> OneTimeKey | None:
    """Hand out the fallback key, which counts as used from now on."""
    row = tx.one(
        "SELECT key_id, json, used FROM fallback_key WHERE device_nid = ? AND algorithm = ?",
        device,
        algorithm,
    )
    if row is None:
        return None
    if not row[2]:
        tx.run(
            "UPDATE fallback_key SET used = 1 WHERE device_nid = ? AND algorithm = ?",
            device,
            algorithm,
        )
        tx.after_commit(tx.caches.key_counts.drop, device)
    return OneTimeKey(algorithm, row[0], bytes(row[1]))


def counts(tx: Tx, device: DeviceNid) -> KeyCounts:
    """How many one-time keys are left, and which fallback keys are unused."""
    found = tx.caches.key_counts.get(device)
    if found is None or tx.writable:
        left = tx.run(
            "SELECT algorithm, COUNT(*) FROM one_time_key"
            " WHERE device_nid = ? AND json IS NOT NULL GROUP BY algorithm",
            device,
        )
        unused = tx.run(
            "SELECT algorithm FROM fallback_key WHERE device_nid = ? AND used = 0", device
        )
        found = KeyCounts(dict(left), tuple(row[0] for row in unused))
        if not tx.writable:
            tx.caches.key_counts.put(device, found)
    return found


def remove_of_device(tx: Tx, device: DeviceNid) -> bool:
    """Remove all keys of a device; whether it had identity keys ([C17.15])."""
    remove_prekeys(tx, device)
    tx.run("DELETE FROM device_key WHERE device_nid = ?", device)
    return tx.rows_changed > 0


def remove_prekeys(tx: Tx, device: DeviceNid) -> None:
    """Remove the one-time and fallback keys of a device."""
    tx.run(
        "DELETE FROM one_time_key WHERE key_nid IN (SELECT key_nid FROM one_time_key"
        " WHERE device_nid = ? AND json IS NOT NULL UNION ALL SELECT key_nid FROM one_time_key"
        " WHERE device_nid = ? AND json IS NULL)",
        device,
        device,
    )
    tx.run("DELETE FROM fallback_key WHERE device_nid = ?", device)
    tx.after_commit(tx.caches.key_counts.drop, device)


# --- cross-signing


def cross_signing_keys(tx: Tx, user: UserNid) -> dict[str, bytes]:
    """The public cross-signing keys of a user, by their usage."""
    rows = tx.run("SELECT usage, json FROM cross_signing_key WHERE user_nid = ?", user)
    return {usage: bytes(json) for usage, json in rows}


def is_cross_signing_key(tx: Tx, user: UserNid, name: str) -> bool:
    """Whether a name is one of the user's cross-signing keys, so that no device may take it."""
    for json in cross_signing_keys(tx, user).values():
        value = decode_stored(json)
        assert isinstance(value, dict)
        if f"ed25519:{name}" in value["keys"]:
            return True
    return False


def put_cross_signing_key(tx: Tx, user: UserNid, usage: str, json: bytes) -> None:
    """Store a key over the one it replaces."""
    tx.run(
        "INSERT INTO cross_signing_key (user_nid, usage, json) VALUES (?, ?, ?)"
        " ON CONFLICT (user_nid, usage) DO UPDATE SET json = excluded.json",
        user,
        usage,
        json,
    )


def remove_cross_signing_key(tx: Tx, user: UserNid, usage: str) -> None:
    """Remove a key."""
    tx.run("DELETE FROM cross_signing_key WHERE user_nid = ? AND usage = ?", user, usage)


def put_user_signature(
    tx: Tx, signer: UserNid, target: UserNid, key_id: str, signer_key: str, signature: str
) -> None:
    """Store what only its maker gets to see: a signature on somebody's master key."""
    tx.run(
        "INSERT OR REPLACE INTO user_signature"
        " (signer, target, key_id, pos, signer_key, signature) VALUES (?, ?, ?, ?, ?, ?)",
        signer,
        target,
        key_id,
        tx.position(),
        signer_key,
        signature,
    )


def user_signature(tx: Tx, signer: UserNid, target: UserNid, key_id: str) -> tuple[str, str] | None:
    """The key and the signature that a user has put on somebody's master key."""
    row = tx.one(
        "SELECT signer_key, signature FROM user_signature"
        " WHERE signer = ? AND target = ? AND key_id = ?",
        signer,
        target,
        key_id,
    )
    return None if row is None else (row[0], row[1])


def signed_since(tx: Tx, signer: UserNid, after: int, until: int) -> Sequence[UserNid]:
    """Whose master keys a user has signed at positions in (after, until]."""
    rows = tx.run(
        "SELECT target FROM user_signature WHERE signer = ? AND pos > ? AND pos <= ?",
        signer,
        after,
        until,
    )
    return [UserNid(row[0]) for row in rows]


def forget_user(tx: Tx, user: UserNid) -> None:
    """Remove the cross-signing keys of a user, and what the user has signed."""
    tx.run("DELETE FROM cross_signing_key WHERE user_nid = ?", user)
    tx.run("DELETE FROM user_signature WHERE signer = ?", user)
