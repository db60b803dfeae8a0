"""Who this server has been: its name, and the keys it has signed with (threats T051)."""

from __future__ import annotations

from matrixbox.core.identifiers import KeyId, ServerName
from matrixbox.store.transaction import Tx

_KEY_PREFIX = "signing_key "


def server_name(tx: Tx) -> ServerName | None:
    """The name that the database was first used with; None for a new one."""
    row = tx.one("SELECT value FROM meta WHERE key = 'server_name'")
    return None if row is None else ServerName(row[0])


def signing_keys(tx: Tx) -> dict[KeyId, str]:
    """The keys that this server has signed with: public key in unpadded base64 by key id."""
    rows = tx.run(
        "SELECT key, value FROM meta WHERE key GLOB ? ORDER BY key", _KEY_PREFIX + "ed25519:*"
    )
    return {KeyId(key.removeprefix(_KEY_PREFIX)): value for key, value in rows}


def remember(tx: Tx, name: ServerName, key_id: KeyId, verify_key: str) -> None:
    """Note the name and key of this run; what is known already stays as it is."""
    tx.run("INSERT INTO meta (key, value) VALUES ('server_name', ?) ON CONFLICT DO NOTHING", name)
    tx.run(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
        _KEY_PREFIX + key_id,
        verify_key,
    )
