"""The keys of other servers, as far as they are known, and our own old ones.

Matrix v1.19, Server-Server API, "Retrieving server keys" ([B3]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import field, frozen

from matrixbox.core.identifiers import KeyId, ServerName
from matrixbox.store.transaction import Tx

MAX_SERVERS = 20_000
"""Of how many servers keys are kept; those that were fetched longest ago go first."""
_FORGOTTEN_AT_ONCE = 200


@frozen
class ServerKey:
    """One key: up to when it is valid, and whether it is an old one, which signs events only."""

    public_key: bytes = field(repr=bytes.hex)
    valid_until_ms: int
    is_old: bool


@frozen
class KeyAnswer:
    """What a server said about its keys, as it came, signed by itself."""

    fetched_ms: int
    valid_until_ms: int
    json: bytes = field(repr=False)


@frozen
class OldKey:
    """A key of our own that signs nothing any more."""

    key_id: KeyId
    public_key: bytes = field(repr=bytes.hex)
    expired_ms: int


Keys = Mapping[KeyId, ServerKey]


def keys_of(tx: Tx, server: ServerName) -> Keys:
    """The known keys of a server."""
    rows = tx.run(
        "SELECT key_id, public_key, valid_until_ms, is_old FROM server_key WHERE server = ?", server
    )
    return MappingProxyType(
        {KeyId(key_id): ServerKey(key, until, bool(old)) for key_id, key, until, old in rows}
    )


def answer_of(tx: Tx, server: ServerName) -> KeyAnswer | None:
    """The last answer of a server about its keys."""
    row = tx.one(
        "SELECT fetched_ms, valid_until_ms, json FROM server_key_answer WHERE server = ?", server
    )
    return None if row is None else KeyAnswer(*row)


def replace(tx: Tx, server: ServerName, keys: Keys, answer: KeyAnswer | None) -> None:
    """Store what is known of a server's keys from now on; the oldest of too many servers go."""
    tx.run("DELETE FROM server_key WHERE server = ?", server)
    tx.many(
        "INSERT INTO server_key (server, key_id, public_key, valid_until_ms, is_old)"
        " VALUES (?, ?, ?, ?, ?)",
        [
            (server, key_id, key.public_key, key.valid_until_ms, int(key.is_old))
            for key_id, key in keys.items()
        ],
    )
    if answer is not None:
        tx.run(
            "INSERT INTO server_key_answer (server, fetched_ms, valid_until_ms, json)"
            " VALUES (?, ?, ?, ?) ON CONFLICT (server) DO UPDATE SET"
            " fetched_ms = excluded.fetched_ms, valid_until_ms = excluded.valid_until_ms,"
            " json = excluded.json",
            server,
            answer.fetched_ms,
            answer.valid_until_ms,
            answer.json,
        )


def forget_oldest(tx: Tx, at_most: int = MAX_SERVERS) -> int:
    """Forget servers beyond `at_most`, not all at once; how many were forgotten."""
    row = tx.one("SELECT count(*) FROM server_key_answer")
    excess = 0 if row is None else int(row[0]) - at_most
    if excess <= 0:
        return 0
    rows = tx.run(
        "SELECT server FROM server_key_answer ORDER BY fetched_ms LIMIT ?",
        min(excess, _FORGOTTEN_AT_ONCE),
    )
    tx.many("DELETE FROM server_key WHERE server = ?", rows)
    tx.many("DELETE FROM server_key_answer WHERE server = ?", rows)
    return len(rows)


def old_keys(tx: Tx) -> Sequence[OldKey]:
    """Our own keys that are no longer used; published for ever [B3.09]."""
    rows = tx.run("SELECT key_id, public_key, expired_ms FROM old_key ORDER BY expired_ms, key_id")
    return [OldKey(*row) for row in rows]


def retire(tx: Tx, key: OldKey) -> None:
    """From now on one of our keys is an old one."""
    tx.run(
        "INSERT INTO old_key (key_id, public_key, expired_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (key_id) DO NOTHING",
        key.key_id,
        key.public_key,
        key.expired_ms,
    )
