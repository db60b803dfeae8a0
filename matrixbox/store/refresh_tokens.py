"""Refresh tokens, and access tokens that expire."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from matrixbox.store.nids import DeviceNid, UserNid
from matrixbox.store.transaction import Tx


class Use(IntEnum):
    """What has become of a refresh token."""

    UNUSED = 0  # neither it nor the access token that came with it was used
    CURRENT = 1  # one of them was
    RETIRED = 2  # a later pair was


@frozen
class RefreshToken:
    """A refresh token that is known."""

    device: DeviceNid
    user: UserNid
    state: Use


def add(tx: Tx, token_hash: bytes, device: DeviceNid, user: UserNid, made_ms: int) -> None:
    """Store a new one."""
    tx.run(
        "INSERT INTO refresh_token (token_hash, device_nid, user_nid, state, made_ms)"
        " VALUES (?, ?, ?, 0, ?)",
        token_hash,
        device,
        user,
        made_ms,
    )


def find(tx: Tx, token_hash: bytes) -> RefreshToken | None:
    """What is known of a token."""
    row = tx.one(
        "SELECT device_nid, user_nid, state FROM refresh_token WHERE token_hash = ?", token_hash
    )
    return None if row is None else RefreshToken(DeviceNid(row[0]), UserNid(row[1]), Use(row[2]))


def settle(tx: Tx, token_hash: bytes, device: DeviceNid, now_ms: int) -> None:
    """The pair of a token is the one in use now: every other one of the device is over."""
    tx.run(
        "UPDATE refresh_token SET state = CASE WHEN token_hash = ?1 THEN 1 ELSE 2 END"
        " WHERE device_nid = ?2 AND state != 2",
        token_hash,
        device,
    )
    _expire(tx, device, token_hash, now_ms)


def end(tx: Tx, device: DeviceNid, now_ms: int) -> None:
    """End a session: none of its tokens is good any more, and all are still known."""
    tx.run("UPDATE refresh_token SET state = 2 WHERE device_nid = ?", device)
    _expire(tx, device, b"", now_ms)


def _expire(tx: Tx, device: DeviceNid, but: bytes, now_ms: int) -> None:
    tx.run(
        "UPDATE access_token SET expires_ms = min(coalesce(expires_ms, ?1), ?1)"
        " WHERE device_nid = ?2 AND refresh IS NOT ?3",
        now_ms,
        device,
        but,
    )
    tx.after_commit(tx.caches.sessions.clear)


def prune(tx: Tx, device: DeviceNid, unused: int, expired_ms: int, retired_ms: int) -> None:
    """Forget what is long over, and of unused tokens all but the newest."""
    tx.run(
        "DELETE FROM refresh_token WHERE device_nid = ?1 AND state = 0 AND token_hash NOT IN"
        " (SELECT token_hash FROM refresh_token WHERE device_nid = ?1 AND state = 0"
        "  ORDER BY made_ms DESC LIMIT ?2)",
        device,
        unused,
    )
    tx.run(
        "DELETE FROM refresh_token WHERE device_nid = ? AND state = 2 AND made_ms < ?",
        device,
        retired_ms,
    )
    tx.run(
        "DELETE FROM access_token WHERE device_nid = ? AND (expires_ms < ?"
        " OR refresh IS NOT NULL AND refresh NOT IN (SELECT token_hash FROM refresh_token))",
        device,
        expired_ms,
    )
    tx.after_commit(tx.caches.sessions.clear)
