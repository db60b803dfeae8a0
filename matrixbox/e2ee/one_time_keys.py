"""One-time keys are handed out once each, in the order of their upload; then the fallback key.

Matrix v1.19, Client-Server API, "One-time and fallback keys" ([C17.01], [C17.04], T123, T124).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import define, field

from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName, UserId
from matrixbox.core.json import Json, decode_stored
from matrixbox.errors import InvalidParam
from matrixbox.observe import log
from matrixbox.store import accounts, keys, names
from matrixbox.store.keys import OneTimeKey
from matrixbox.store.nids import DeviceNid
from matrixbox.store.transaction import Tx

MAX_UNCLAIMED = 200
"""Of one device and algorithm; further ones are not stored, and the counts show it."""
REMEMBERED = 300
"""Keys of one device that were handed out and are not taken again."""
BURST = 20
EVERY_S = 12.0
"""One-time keys of one device that another server gets: so many at once, then one each so often."""
FORGET_ABOVE = 10_000

Claims = Mapping[UserId, Mapping[str, str]]
"""For users and devices the algorithm of which a key is wanted."""


def add(tx: Tx, device: DeviceNid, new: Sequence[OneTimeKey]) -> None:
    """Store one-time keys.  Raises InvalidParam for one that differs from that of its name.

    A key that is there, or was handed out, is taken for a request whose answer was lost.
    """
    if not new:
        return
    known = keys.one_time_keys(tx, device)
    handed_out = keys.handed_out(tx, device)
    left = Counter(algorithm for algorithm, _ in known)
    fresh = []
    for key in new:
        present = known.get((key.algorithm, key.key_id))
        if present is not None and present != key.json:
            name = f"{key.algorithm}:{key.key_id}"
            raise InvalidParam(f"There is another one-time key {name} already.")
        if present is None and keys.digest(key) not in handed_out:
            left[key.algorithm] += 1
            if left[key.algorithm] <= MAX_UNCLAIMED:
                fresh.append(key)
    keys.add_one_time_keys(tx, device, fresh)
    if len(handed_out) > REMEMBERED:
        keys.forget_handed_out(tx, device, REMEMBERED)


def put_fallback(tx: Tx, device: DeviceNid, key: OneTimeKey) -> None:
    """Store a fallback key; one that is there already stays as used as it is."""
    present = keys.fallback_keys(tx, device).get(key.algorithm)
    if present is None or present[0] != key:
        keys.put_fallback_key(tx, device, key)


@define(eq=False)
class ClaimRates:
    """How fast other servers take one-time keys, so that none drains a device of them (T124)."""

    clock: Clock
    _levels: dict[tuple[ServerName, DeviceNid], tuple[float, float]] = field(factory=dict)

    def allows(self, origin: ServerName, device: DeviceNid) -> bool:
        """Whether a server may have one more key of a device; counts it if so."""
        now = self.clock.monotonic_s()
        level, then = self._levels.get((origin, device), (float(BURST), now))
        level = min(BURST, level + (now - then) / EVERY_S)
        if level < 1:
            self._levels[origin, device] = (level, now)
            return False
        if len(self._levels) >= FORGET_ABOVE:
            self._forget(now)
        self._levels[origin, device] = (level - 1, now)
        return True

    def _forget(self, now: float) -> None:
        """Forget who is as good as new."""
        full_after_s = BURST * EVERY_S
        self._levels = {
            key: (level, then)
            for key, (level, then) in self._levels.items()
            if now - then < full_after_s
        }


def claim(
    tx: Tx, wanted: Claims, origin: ServerName | None, rates: ClaimRates
) -> dict[str, dict[str, Json]]:
    """Hand out keys of devices of ours: to a user of ours, or to another server.

    Devices without keys, and users and devices that do not exist, are left out.
    """
    found: dict[str, dict[str, Json]] = {}
    for user_id, devices in wanted.items():
        user = names.user_nid(tx, user_id)
        if user is None:
            continue
        for device_id, algorithm in devices.items():
            device = accounts.device_nid(tx, user, device_id)
            key = device and _hand_out(tx, device, algorithm, origin, rates)
            if key:
                shown = {f"{key.algorithm}:{key.key_id}": decode_stored(key.json)}
                found.setdefault(user_id, {})[device_id] = shown
    return found


def _hand_out(
    tx: Tx, device: DeviceNid, algorithm: str, origin: ServerName | None, rates: ClaimRates
) -> OneTimeKey | None:
    if origin is None or rates.allows(origin, device):
        key = keys.take_one_time_key(tx, device, algorithm)
        if key is not None:
            return key
    else:
        log.warning("one-time keys claimed too fast", origin=origin, device=device)
    return keys.use_fallback_key(tx, device, algorithm)
