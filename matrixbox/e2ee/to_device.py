"""Messages between devices: each reaches its device once, in the order of arrival.

Matrix v1.19, Client-Server API, "Send-to-Device messaging"; Server-Server API, "Send-to-device
messaging" ([C8.22], [C17.16], [B7.08], [B7.10], T127, T128, T130).

A message waits until a later `/sync` of its device proves that it has arrived.  One for another
server is an EDU that waits in its queue.  Both are written in one transaction with the client's
transaction identifier.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping

from matrixbox.core.identifiers import (
    InvalidIdentifier,
    ServerName,
    UserId,
    parse_server_name,
    parse_user_id,
    server_of,
)
from matrixbox.core.json import Json, JsonError, encode, encode_strict
from matrixbox.errors import BadJson, InvalidParam, TooLarge
from matrixbox.observe import log
from matrixbox.store import accounts, names, outbound, to_device
from matrixbox.store.accounts import AccountState
from matrixbox.store.caches import Session
from matrixbox.store.nids import DeviceNid, EventNid, UserNid
from matrixbox.store.transaction import Tx

MAX_CONTENT = 64 * 1024
MAX_WAITING = 5_000
MAX_FROM_ORIGIN = 500
MAX_BYTES_FROM_ORIGIN = 4 * 1024 * 1024
MAX_DEVICES = 5_000
"""Devices named in one request."""
MAX_EDU = 48 * 1024
"""Contents in one EDU, more only where a single one is larger (T130)."""
MAX_MESSAGE_ID = 32
KEPT_IDS_MS = 30 * 24 * 3600 * 1000
"""How long ids of received messages are remembered, to know them when they come again."""
EVERY_DEVICE = "*"

Messages = Mapping[str, Mapping[str, Mapping[str, Json]]]
"""Contents by user and device."""


def parse(messages: Mapping[str, Json]) -> Messages:
    """What a client wants to send; raises BadJson, InvalidParam, TooLarge."""
    found: dict[str, Mapping[str, Mapping[str, Json]]] = {}
    count = 0
    for user_id, devices in messages.items():
        try:
            parse_server_name(server_of(parse_user_id(user_id)))
        except InvalidIdentifier as error:
            raise InvalidParam("`messages` names no user.") from error
        if not isinstance(devices, Mapping):
            raise BadJson("`messages` holds objects by device.")
        contents: dict[str, Mapping[str, Json]] = {}
        for device_id, content in devices.items():
            contents[device_id] = _content(content)
        found[user_id] = contents
        count += len(contents)
    if count > MAX_DEVICES:
        raise InvalidParam(f"A request has messages for at most {MAX_DEVICES} devices.")
    return found


def _content(content: Json) -> Mapping[str, Json]:
    if not isinstance(content, Mapping):
        raise BadJson("The content of a message is an object.")
    if len(encode(content)) > MAX_CONTENT:
        raise TooLarge(f"The content of a message has at most {MAX_CONTENT} bytes.")
    return content


def send(
    tx: Tx, own: ServerName, who: Session, kind: str, messages: Messages, transaction: bytes
) -> None:
    """Send messages; a transaction that was seen before does nothing.

    Raises BadJson for what another server could not be sent.
    """
    if accounts.transaction(tx, who.device, transaction) is not None:
        return
    pos = tx.position()
    accounts.put_transaction(tx, who.device, transaction, EventNid(pos))
    elsewhere: dict[ServerName, list[tuple[str, str, Mapping[str, Json]]]] = defaultdict(list)
    for user_id, devices in messages.items():
        server = server_of(UserId(user_id))
        if server == own:
            _deliver(tx, who.user_id, kind, UserId(user_id), devices, pos, None)
        else:
            elsewhere[server] += [(user_id, name, content) for name, content in devices.items()]
    for server, those in elsewhere.items():
        for batch in _batches(those):
            content: dict[str, Json] = {
                "sender": who.user_id,
                "type": kind,
                "message_id": secrets.token_hex(MAX_MESSAGE_ID // 2),
                "messages": batch,
            }
            outbound.put_edu(tx, server, outbound.TO_DEVICE, content, who.user_id)


def _batches(
    messages: list[tuple[str, str, Mapping[str, Json]]],
) -> Iterator[dict[str, dict[str, Json]]]:
    """Messages by user and device, in pieces that fit into an EDU; raises BadJson."""
    batch: dict[str, dict[str, Json]] = {}
    size = 0
    for user_id, device_id, content in messages:
        try:
            length = len(encode_strict(content))
        except JsonError as error:
            raise BadJson(f"That content cannot be sent to another server: {error}.") from error
        if batch and size + length > MAX_EDU:
            yield batch
            batch, size = {}, 0
        batch.setdefault(user_id, {})[device_id] = content
        size += length
    if batch:
        yield batch


def _deliver(
    tx: Tx,
    sender: UserId,
    kind: str,
    user_id: UserId,
    messages: Mapping[str, Mapping[str, Json]],
    pos: int,
    origin: ServerName | None,
) -> bool:
    """Leave messages for devices of a user of ours; whether any was left.

    Users and devices that do not exist are passed over: their time may be over.
    """
    user = names.user_nid(tx, user_id)
    account = None if user is None else accounts.get(tx, user)
    if user is None or account is None or account.state is not AccountState.ACTIVE:
        return False
    delivered = False
    for device, content in _devices(tx, user, messages):
        json = encode({"type": kind, "sender": sender, "content": content})
        if _has_room(tx, device, origin, len(json)):
            to_device.put(tx, device, pos, origin, json)
            delivered = True
        else:
            log.warning("to-device message dropped", device=device, origin=origin)
    if delivered:
        tx.changed(inboxes=(user,))
    return delivered


def _devices(
    tx: Tx, user: UserNid, messages: Mapping[str, Mapping[str, Json]]
) -> list[tuple[DeviceNid, Mapping[str, Json]]]:
    """The devices that messages are for; one named beside `*` gets its own."""
    general = messages.get(EVERY_DEVICE)
    if general is not None:
        devices = accounts.devices(tx, user)
        return [(device.nid, messages.get(device.device_id, general)) for device in devices]
    found = ((accounts.device_nid(tx, user, name), content) for name, content in messages.items())
    return [(device, content) for device, content in found if device is not None]


def _has_room(tx: Tx, device: DeviceNid, origin: ServerName | None, size: int) -> bool:
    if to_device.count(tx, device) >= MAX_WAITING:
        return False
    if origin is None:
        return True
    count, total = to_device.count_of_origin(tx, device, origin)
    return count < MAX_FROM_ORIGIN and total + size <= MAX_BYTES_FROM_ORIGIN


def receive(tx: Tx, own: ServerName, origin: ServerName, edu: Json, now_ms: int) -> None:
    """Take an `m.direct_to_device` of another server ([B7.08]).

    What is malformed, not the origin's own, too large or received before is dropped.
    """
    found = _parse_edu(own, origin, edu)
    if found is None:
        return
    sender, kind, message_id, messages = found
    if not to_device.note_received(tx, origin, message_id, now_ms):
        return
    pos = tx.position()
    for user_id, devices in messages.items():
        _deliver(tx, sender, kind, UserId(user_id), devices, pos, origin)


def _parse_edu(
    own: ServerName, origin: ServerName, edu: Json
) -> tuple[UserId, str, str, Messages] | None:
    if not isinstance(edu, Mapping):
        return None
    sender, kind, message_id = edu.get("sender"), edu.get("type"), edu.get("message_id")
    messages = edu.get("messages")
    if not (isinstance(kind, str) and isinstance(message_id, str) and isinstance(sender, str)):
        return None
    if not isinstance(messages, Mapping) or not 0 < len(message_id) <= MAX_MESSAGE_ID:
        return None
    try:
        sender_id = parse_user_id(sender)
    except InvalidIdentifier:
        return None
    if server_of(sender_id) != origin:
        return None
    found: dict[str, dict[str, Mapping[str, Json]]] = {}
    for user_id, devices in messages.items():
        if not isinstance(devices, Mapping) or not user_id.endswith(f":{own}"):
            continue
        found[user_id] = {
            name: content
            for name, content in devices.items()
            if isinstance(content, Mapping) and len(encode(content)) <= MAX_CONTENT
        }
    return sender_id, kind, message_id, found
