"""A new signing key for the server; the old one's public half stays published for ever.

Matrix v1.19, Server-Server API, "Publishing Keys" ([B3.02], [B3.09], T051).  The order makes it
safe to be broken off anywhere: the new key is on the disk before the database knows of it, and the
database knows of it before the file is replaced; a start finishes what is left.
"""

from __future__ import annotations

from pathlib import Path

from matrixbox.clock import Clock
from matrixbox.core.identifiers import KeyId
from matrixbox.core.signing import SigningKey
from matrixbox.keyfile import adopt_next_key, make_next_key
from matrixbox.store import meta, server_keys
from matrixbox.store.database import Store
from matrixbox.store.server_keys import OldKey
from matrixbox.store.transaction import Tx


async def rotate(store: Store, path: Path, key: SigningKey, clock: Clock) -> SigningKey:
    """Replace the key in the file at `path`, which is `key`; the new one.  Raises KeyFileError."""
    taken = {key.key_id, *(old.key_id for old in store.read(server_keys.old_keys))}
    new = make_next_key(path, taken)
    old = OldKey(key.key_id, key.verify_key, clock.now_ms())
    await store.write(_change, old, new.key_id)
    adopt_next_key(path)
    return new


def _change(tx: Tx, old: OldKey, new: KeyId) -> None:
    server_keys.retire(tx, old)
    meta.put_text(tx, "key_id", new)
