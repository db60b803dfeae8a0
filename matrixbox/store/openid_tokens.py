"""Tokens that prove to services who a user is."""

from __future__ import annotations

from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx


def add(tx: Tx, token_hash: bytes, user: UserNid, expires_ms: int) -> None:
    """Store a token, by its hash."""
    tx.run(
        "INSERT INTO openid_token (token_hash, user_nid, expires_ms) VALUES (?, ?, ?)",
        token_hash,
        user,
        expires_ms,
    )


def prune(tx: Tx, user: UserNid, now_ms: int, kept: int) -> None:
    """Forget what has expired, and of a user's tokens all but the last ones."""
    tx.run("DELETE FROM openid_token WHERE expires_ms <= ?", now_ms)
    tx.run(
        "DELETE FROM openid_token WHERE user_nid = ? AND token_hash NOT IN (SELECT token_hash"
        " FROM openid_token WHERE user_nid = ? ORDER BY expires_ms DESC LIMIT ?)",
        user,
        user,
        kept,
    )


def user(tx: Tx, token_hash: bytes, now_ms: int) -> UserNid | None:
    """The user of a token that is still good."""
    row = tx.one(
        "SELECT user_nid FROM openid_token WHERE token_hash = ? AND expires_ms > ?",
        token_hash,
        now_ms,
    )
    return None if row is None else UserNid(row[0])
