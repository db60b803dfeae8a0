"""A device's keys for tests over the wire, made and signed here."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from matrixbox.core.signing import SigningKey
from tests.e2ee.people import ALGORITHM, new_key, signed


@define(eq=False)
class Keys:
    """The keys of one device."""

    user_id: str
    device_id: str
    key: SigningKey = field(factory=new_key)
    _count: int = 0

    def sign(self, value: Any) -> Any:
        """Something signed by the device."""
        return signed(value, self.user_id, f"ed25519:{self.device_id}", self.key)

    def identity(self) -> Any:
        """The device's own keys."""
        public = self.key.verify_key_base64
        return self.sign(
            {
                "user_id": self.user_id,
                "device_id": self.device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {
                    f"ed25519:{self.device_id}": public,
                    f"curve25519:{self.device_id}": public,
                },
            }
        )

    def prekeys(self, count: int) -> Any:
        """Keys to be handed out."""
        first, self._count = self._count, self._count + count
        return {
            f"{ALGORITHM}:K{number:05}": self.sign({"key": new_key().verify_key_base64})
            for number in range(first, self._count)
        }
