"""Devices publish their keys; others ask for them.

Matrix v1.19, Client-Server API, "Key management API"; Server-Server API, "End-to-End Encryption"
([C17.01] to [C17.03], [C17.10], [B13.04], [B13.05], T122).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import define, field, frozen

from matrixbox.core.identifiers import UserId
from matrixbox.core.json import Json, decode_stored, encode_canonical
from matrixbox.e2ee import one_time_keys, shapes
from matrixbox.store import device_lists, keys, members, names
from matrixbox.store.caches import Session
from matrixbox.store.device_lists import RemoteDevice
from matrixbox.store.keys import DeviceKeys, OneTimeKey
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

Wanted = Mapping[UserId, Sequence[str]]
"""Users, each with the devices that are asked about; none named: all."""


@frozen
class Upload:
    """What a device publishes, checked already."""

    device_keys: Mapping[str, Json] | None
    one_time_keys: Sequence[OneTimeKey]
    fallback_keys: Sequence[OneTimeKey]


def upload(tx: Tx, who: Session, wanted: Upload) -> Mapping[str, int]:
    """Store keys of the requester's device; the one-time keys left, by algorithm.

    Raises InvalidParam for a one-time key that differs from the one of the same name.
    """
    if wanted.device_keys is not None:
        put_identity(tx, who, wanted.device_keys)
    one_time_keys.add(tx, who.device, wanted.one_time_keys)
    for key in wanted.fallback_keys:
        one_time_keys.put_fallback(tx, who.device, key)
    return keys.counts(tx, who.device).one_time


def put_identity(tx: Tx, who: Session, new: Mapping[str, Json]) -> None:
    """Store a device's identity keys; those who follow the user's devices learn of a change."""
    known = keys.device_keys(tx, who.device)
    if known is not None:
        old = decode_stored(known)
        assert isinstance(old, dict)
        if shapes.is_same_but_for_signatures(old, new):
            new = shapes.with_signatures(old, new)  # signatures by cross-signing keys stay
        elif old.get("keys") != new.get("keys"):
            keys.remove_prekeys(tx, who.device)  # they are of whatever was there before
    json = encode_canonical(new)
    if json != known:
        keys.put_device_keys(tx, who.device, json)
        device_lists.device_changed(tx, who.user, who.device_id)


# --- asking


@define
class Found:
    """Keys of users, as an answer shows them."""

    devices: dict[str, dict[str, Json]] = field(factory=dict)
    masters: dict[str, Json] = field(factory=dict)
    self_signing: dict[str, Json] = field(factory=dict)
    user_signing: dict[str, Json] = field(factory=dict)

    def answer(self) -> dict[str, Json]:
        """The members of an answer to `/keys/query` that hold keys."""
        return {
            "device_keys": self.devices,
            "master_keys": self.masters,
            "self_signing_keys": self.self_signing,
        }


def local(tx: Tx, wanted: Wanted, viewer: UserNid | None) -> Found:
    """Keys of users of ours, as ``viewer`` may see them; None: another server.

    Users that do not exist are left out.
    """
    found = Found()
    for user_id, device_ids in wanted.items():
        user = names.user_nid(tx, user_id)
        if user is None or not members.is_account(tx, user):
            continue
        chosen = _chosen(keys.keys_of_user(tx, user), device_ids)
        found.devices[user_id] = {key.device_id: shown(key) for key in chosen}
        _cross_signing(tx, found, user_id, user, viewer)
    return found


def known_remote(tx: Tx, wanted: Wanted, viewer: UserNid) -> Found:
    """Keys of users of other servers, as far as they are known here."""
    found = Found()
    for user_id, device_ids in wanted.items():
        user = names.user_nid(tx, user_id)
        if user is None or device_lists.remote_list(tx, user) is None:
            continue
        devices = _chosen(device_lists.remote_devices(tx, user), device_ids)
        found.devices[user_id] = {key.device_id: shown(key) for key in devices}
        _cross_signing(tx, found, user_id, user, viewer)
    return found


def _cross_signing(
    tx: Tx, found: Found, user_id: UserId, user: UserNid, viewer: UserNid | None
) -> None:
    stored = keys.cross_signing_keys(tx, user)
    if "master" in stored:
        found.masters[user_id] = master_for(tx, user, stored["master"], viewer)
    if "self_signing" in stored:
        found.self_signing[user_id] = decode_stored(stored["self_signing"])
    if "user_signing" in stored and user == viewer:
        found.user_signing[user_id] = decode_stored(stored["user_signing"])


def master_for(tx: Tx, user: UserNid, json: bytes, viewer: UserNid | None) -> Json:
    """A master key with the signature that the viewer has put on it ([C17.10])."""
    master = decode_stored(json)
    assert isinstance(master, dict)
    if viewer is None or viewer == user:
        return master
    made = keys.user_signature(tx, viewer, user, shapes.key_of(master))
    if made is None:
        return master
    signer_key, signature = made
    by: Json = {names.user_id(tx, viewer): {signer_key: signature}}
    return shapes.with_signatures(master, {"signatures": by})


def _chosen(
    found: Iterable[DeviceKeys | RemoteDevice], device_ids: Collection[str]
) -> list[DeviceKeys | RemoteDevice]:
    return [key for key in found if not device_ids or key.device_id in device_ids]


def shown(device: DeviceKeys | RemoteDevice) -> Json:
    """A device's keys with what people call it."""
    value = decode_stored(device.json)
    assert isinstance(value, dict)
    if device.display_name is not None:
        value["unsigned"] = {"device_display_name": device.display_name}
    return value


def devices_for_peer(tx: Tx, user_id: UserId) -> dict[str, Json] | None:
    """The answer to another server's question for all devices of a user of ours ([B13.04])."""
    user = names.user_nid(tx, user_id)
    if user is None or not members.is_account(tx, user):
        return None
    found: Found = local(tx, {user_id: ()}, None)
    devices: list[Json] = []
    for device in keys.keys_of_user(tx, user):
        entry: dict[str, Json] = {
            "device_id": device.device_id,
            "keys": decode_stored(device.json),
        }
        if device.display_name is not None:
            entry["device_display_name"] = device.display_name
        devices.append(entry)
    answer: dict[str, Json] = {
        "user_id": user_id,
        "stream_id": device_lists.stream_id(tx, user),
        "devices": devices,
    }
    if user_id in found.masters:
        answer["master_key"] = found.masters[user_id]
    if user_id in found.self_signing:
        answer["self_signing_key"] = found.self_signing[user_id]
    return answer
