"""Our own keys: what we tell others about them, and what our own signatures are checked with.

Matrix v1.19, Server-Server API, "Publishing Keys" ([B3.01], [B3.02], [B3.09]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import define, field

from matrixbox.clock import Clock
from matrixbox.core.identifiers import KeyId, ServerName
from matrixbox.core.json import Json
from matrixbox.core.signing import SigningKey, encode_base64, sign_json
from matrixbox.store.server_keys import Keys, OldKey, ServerKey

VALID_FOR_S = 24 * 3600
"""How long others may keep our answer before they ask again."""
REMADE_AFTER_MS = 3600 * 1000
_FOR_EVER_MS = 2**53 - 1


@define(eq=False)
class OwnKeys:
    """The key that signs now, and the public halves of those that signed before."""

    server_name: ServerName
    key: SigningKey
    old: Sequence[OldKey]
    clock: Clock
    _made_ms: int = 0
    _answer: Mapping[str, Json] | None = None
    _keys: Keys | None = field(default=None, repr=False)

    def answer(self) -> Mapping[str, Json]:
        """What `/_matrix/key/v2/server` says; valid for at least 23 hours more."""
        now = self.clock.now_ms()
        if self._answer is None or not 0 <= now - self._made_ms < REMADE_AFTER_MS:
            self._answer = sign_json(self._unsigned(now), self.server_name, self.key)
            self._made_ms = now
        return self._answer

    def _unsigned(self, now_ms: int) -> dict[str, Json]:
        return {
            "server_name": self.server_name,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key_base64}},
            "old_verify_keys": {
                old.key_id: {"key": encode_base64(old.public_key), "expired_ts": old.expired_ms}
                for old in self.old
            },
            "valid_until_ts": now_ms + VALID_FOR_S * 1000,
        }

    @property
    def keys(self) -> Keys:
        """Our keys as those of any server: our own events come back to us from others."""
        if self._keys is None:
            keys = {
                old.key_id: ServerKey(old.public_key, old.expired_ms, is_old=True)
                for old in self.old
            }
            now = ServerKey(self.key.verify_key, _FOR_EVER_MS, is_old=False)
            self._keys = MappingProxyType({**keys, KeyId(self.key.key_id): now})
        return self._keys
