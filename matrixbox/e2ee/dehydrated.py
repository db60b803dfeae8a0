"""Dehydrated devices: they gather messages while nobody is signed in.

MSC3814.  A user has one at most.  Its messages stay until it is deleted: a client that fails half
way through can begin again.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from matrixbox.core.identifiers import DeviceId
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.e2ee import device_keys
from matrixbox.e2ee.device_keys import Upload
from matrixbox.errors import Forbidden, InvalidParam, NotFound, TooLarge
from matrixbox.store import accounts, dehydrated, keys, to_device
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx

MAX_DATA = 64 * 1024
BATCH = 100


@frozen
class NewDevice:
    """What a client leaves behind, checked already."""

    device_id: DeviceId
    display_name: str | None
    data: bytes
    keys: Upload


def data(value: Mapping[str, Json]) -> bytes:
    """The `device_data`, as stored; raises TooLarge."""
    json = encode(value)
    if len(json) > MAX_DATA:
        raise TooLarge(f"`device_data` has at most {MAX_DATA} bytes.")
    return json


def put(tx: Tx, who: Session, new: NewDevice) -> None:
    """Store a dehydrated device in the place of the one there was.

    Raises Forbidden for the name of another device, or of a cross-signing key.
    """
    present = dehydrated.get(tx, who.user)
    if present is not None:
        accounts.remove_device(tx, present.device)
    if accounts.device_nid(tx, who.user, new.device_id) is not None:
        raise Forbidden("There is a device of that name.")
    if keys.is_cross_signing_key(tx, who.user, new.device_id):
        raise Forbidden("A cross-signing key has that name.")
    device = accounts.put_device(tx, who.user, new.device_id, new.display_name)
    dehydrated.put(tx, who.user, device, new.data)
    device_keys.upload(tx, evolve(who, device=device, device_id=new.device_id), new.keys)
    tx.changed(users=(who.user,))


def get(tx: Tx, who: Session) -> dict[str, Json]:
    """The user's dehydrated device; raises NotFound."""
    found = dehydrated.get(tx, who.user)
    if found is None:
        raise NotFound("There is no dehydrated device.")
    return {"device_id": found.device_id, "device_data": decode_stored(found.json)}


def delete(tx: Tx, who: Session) -> DeviceId:
    """Remove it with its keys and messages; its name.  Raises NotFound."""
    found = dehydrated.get(tx, who.user)
    if found is None:
        raise NotFound("There is no dehydrated device.")
    accounts.remove_device(tx, found.device)
    tx.changed(users=(who.user,))
    return found.device_id


def messages(tx: Tx, who: Session, device_id: str, after: str | None) -> tuple[list[bytes], str]:
    """Messages for it from a place on, and the place after them.

    Raises NotFound, Forbidden for another device, InvalidParam.
    """
    found = dehydrated.get(tx, who.user)
    if found is None:
        raise NotFound("There is no dehydrated device.")
    if found.device_id != device_id:
        raise Forbidden("That is not the dehydrated device.")
    waiting = to_device.waiting(tx, found.device, _place(after), 2**62, BATCH)
    end = waiting[-1].pos if waiting else _place(after)
    return [message.json for message in waiting], f"d{end}"


def _place(token: str | None) -> int:
    if token is None or token == "":
        return 0
    number = token.removeprefix("d")
    if not (token.startswith("d") and number.isascii() and number.isdigit() and len(number) < 17):
        raise InvalidParam("That is not a token of this server.")
    return int(number)
