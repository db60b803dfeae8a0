"""E-mail addresses of accounts, and the sessions in which their owners prove that they are so."""

from __future__ import annotations

from enum import IntEnum

from attrs import astuple, frozen

from matrixbox.store import pushers
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

EMAIL = "email"


class Purpose(IntEnum):
    """What an address is validated for: a session is good for this alone."""

    REGISTER = 1
    ADD = 2
    PASSWORD = 3


@frozen
class Address:
    """An address of an account."""

    medium: str
    address: str
    validated_ms: int
    added_ms: int


@frozen
class Validation:
    """A session in which somebody proves that an address is theirs."""

    sid: str
    purpose: Purpose
    address: str
    secret_hash: bytes
    send_attempt: int
    token_hash: bytes | None
    next_link: str | None
    until_ms: int
    validated_ms: int | None


def of_user(tx: Tx, user: UserNid) -> list[Address]:
    """The addresses of an account, oldest first."""
    rows = tx.run(
        "SELECT medium, address, validated_ms, added_ms FROM threepid WHERE user_nid = ?"
        " ORDER BY added_ms, address",
        user,
    )
    return [Address(*row) for row in rows]


def owner(tx: Tx, address: str) -> UserNid | None:
    """Whose an e-mail address is."""
    row = tx.one("SELECT user_nid FROM threepid WHERE medium = ? AND address = ?", EMAIL, address)
    return None if row is None else UserNid(row[0])


def localpart_of_owner(tx: Tx, address: str) -> str | None:
    """The same by the name of the account."""
    row = tx.one(
        "SELECT localpart FROM threepid JOIN account USING (user_nid)"
        " WHERE medium = ? AND address = ?",
        EMAIL,
        address,
    )
    return None if row is None else str(row[0])


def add(tx: Tx, user: UserNid, address: str, validated_ms: int, now_ms: int) -> None:
    """Give an e-mail address to an account; it must be nobody else's."""
    tx.run(
        "INSERT INTO threepid (medium, address, user_nid, validated_ms, added_ms)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET validated_ms = excluded.validated_ms",
        EMAIL,
        address,
        user,
        validated_ms,
        now_ms,
    )


def remove(tx: Tx, user: UserNid, medium: str, address: str) -> None:
    """Take an address from an account, if it is its."""
    tx.run(
        "DELETE FROM threepid WHERE medium = ? AND address = ? AND user_nid = ?",
        medium,
        address,
        user,
    )
    if medium == EMAIL:
        pushers.remove_of(tx, user, pushers.MAIL_APP, address)


def forget_user(tx: Tx, user: UserNid) -> None:
    """Take all addresses from an account."""
    tx.run("DELETE FROM threepid WHERE user_nid = ?", user)


# --- sessions of validation


def session(tx: Tx, sid: str) -> Validation | None:
    """A session by its id."""
    row = tx.one(
        "SELECT sid, purpose, address, secret_hash, send_attempt, token_hash, next_link, until_ms,"
        " validated_ms FROM validation WHERE sid = ?",
        sid,
    )
    return None if row is None else _validation(row)


def find_session(tx: Tx, purpose: Purpose, address: str, secret_hash: bytes) -> Validation | None:
    """A session by what it is about."""
    row = tx.one(
        "SELECT sid, purpose, address, secret_hash, send_attempt, token_hash, next_link, until_ms,"
        " validated_ms FROM validation WHERE purpose = ? AND address = ? AND secret_hash = ?",
        int(purpose),
        address,
        secret_hash,
    )
    return None if row is None else _validation(row)


def _validation(row: tuple[object, ...]) -> Validation:
    sid, purpose, address, secret_hash, send_attempt, token_hash, *rest = row
    return Validation(
        sid,  # type: ignore[arg-type]
        Purpose(purpose),  # type: ignore[arg-type]
        address,  # type: ignore[arg-type]
        bytes(secret_hash),  # type: ignore[call-overload]
        send_attempt,  # type: ignore[arg-type]
        None if token_hash is None else bytes(token_hash),  # type: ignore[call-overload]
        *rest,  # type: ignore[arg-type]
    )


def put_session(tx: Tx, new: Validation) -> None:
    """Store a session, or what has changed of it."""
    tx.run(
        "INSERT OR REPLACE INTO validation (sid, purpose, address, secret_hash, send_attempt,"
        " token_hash, next_link, until_ms, validated_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *astuple(new),
    )


def end_session(tx: Tx, sid: str) -> None:
    """Forget a session."""
    tx.run("DELETE FROM validation WHERE sid = ?", sid)


def end_expired(tx: Tx, now_ms: int) -> int:
    """Forget sessions that are over; how many are left."""
    tx.run("DELETE FROM validation WHERE until_ms <= ?", now_ms)
    row = tx.one("SELECT COUNT(*) FROM validation")
    assert row is not None
    return int(row[0])
