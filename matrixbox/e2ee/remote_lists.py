"""The devices of users of other servers, kept up to date by their servers' updates.

Matrix v1.19, Server-Server API, "Device Management", "End-to-End Encryption" ([B7.04] to [B7.07],
T125).

A list is fetched when somebody asks for it.  From then on the other server tells of each change,
with the number of the change before it; when that is not the one known here, something was missed,
and the list is fetched anew: one request for a user at a time, a few at once, with growing pauses
after failures.  Our users learn of a change when it is here to be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio
from attrs import define, field, frozen

from matrixbox.clock import Clock
from matrixbox.core.identifiers import (
    DeviceId,
    InvalidIdentifier,
    ServerName,
    UserId,
    is_compliant_user_id,
    parse_user_id,
    server_of,
)
from matrixbox.core.json import Json, encode_canonical
from matrixbox.e2ee import shapes
from matrixbox.e2ee.remote import KeysRemote
from matrixbox.errors import MatrixError, RemoteError, RemoteInvalid
from matrixbox.observe import log
from matrixbox.rooms.servers import may_have_joined
from matrixbox.store import device_lists, joins, keys, names
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.device_lists import RemoteDevice
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

MAX_DEVICES = 1_000
"""Of one user; a list with more is refused."""
MAX_DEVICE_ID = 255
MAX_DISPLAY_NAME = 255
MAX_STREAM_ID = 2**53 - 1
AT_ONCE = 4
FIRST_RETRY_MS = 60_000
LAST_RETRY_MS = 24 * 3600 * 1000
LOOK_AGAIN_S = 1.0
"""While lists are being fetched."""
USAGES = ("master", "self_signing")


@frozen
class DeviceList:
    """A user's devices and cross-signing keys, as the user's server tells them."""

    stream_id: int
    devices: tuple[RemoteDevice, ...]
    signing_keys: Mapping[str, bytes]  # by usage


def parse_list(server: ServerName, user_id: UserId, answer: Mapping[str, Json]) -> DeviceList:
    """Read an answer; devices that cannot be used are left out.  Raises RemoteInvalid."""
    stream, devices = answer.get("stream_id"), answer.get("devices")
    if answer.get("user_id", user_id) != user_id or not isinstance(devices, list):
        raise RemoteInvalid(server, "that is no list of the user's devices")
    if type(stream) is not int or not 0 <= stream <= MAX_STREAM_ID:
        raise RemoteInvalid(server, "the list of devices has no usable stream_id")
    if len(devices) > MAX_DEVICES:
        raise RemoteInvalid(server, f"the list has more than {MAX_DEVICES} devices")
    found: dict[str, RemoteDevice] = {}
    for entry in devices:
        device = _device(user_id, entry) if isinstance(entry, Mapping) else None
        if device is not None:
            found[device.device_id] = device
    signing = {usage: _signing_key(user_id, usage, answer) for usage in USAGES}
    return DeviceList(
        stream,
        tuple(found[name] for name in sorted(found)),
        {usage: json for usage, json in signing.items() if json is not None},
    )


def _device(user_id: UserId, entry: Mapping[str, Json]) -> RemoteDevice | None:
    """A device with keys, of a list or an update."""
    device_id, value = entry.get("device_id"), entry.get("keys")
    if not isinstance(device_id, str) or not 0 < len(device_id) <= MAX_DEVICE_ID:
        return None
    try:
        checked = shapes.device_keys_of_peer(value, user_id, device_id)
    except MatrixError:
        return None  # [G.03] and T125: what is no key is not shown to clients
    name = entry.get("device_display_name")
    shown = name[:MAX_DISPLAY_NAME] if isinstance(name, str) else None
    return RemoteDevice(DeviceId(device_id), shown, encode_canonical(checked))


def _signing_key(user_id: UserId, usage: str, answer: Mapping[str, Json]) -> bytes | None:
    value = answer.get(f"{usage}_key")
    try:
        return encode_canonical(shapes.cross_signing_key(value, user_id, usage))
    except MatrixError:
        return None


# --- transactions


def store_list(tx: Tx, user_id: UserId, found: DeviceList) -> None:
    """Store a list that was fetched; those who know an older one learn of it.

    They do also if it is the same, where its server has told of a change that was missed.
    """
    user = names.add_user(tx, user_id)
    known = device_lists.has_list(tx, user)
    before = device_lists.remote_list(tx, user)
    was_stale = before is not None and before.stale and before.stream_id != found.stream_id
    signing = keys.cross_signing_keys(tx, user)
    same = tuple(device_lists.remote_devices(tx, user)) == found.devices and all(
        signing.get(usage) == found.signing_keys.get(usage) for usage in USAGES
    )
    device_lists.put_remote_list(tx, user, found.stream_id, list(found.devices))
    _put_signing_keys(tx, user, found.signing_keys)
    if known and (was_stale or not same):
        device_lists.changed(tx, user)


def _put_signing_keys(tx: Tx, user: UserNid, found: Mapping[str, bytes]) -> None:
    for usage in USAGES:
        if usage in found:
            keys.put_cross_signing_key(tx, user, usage, found[usage])
        else:
            keys.remove_cross_signing_key(tx, user, usage)


def _put_off(tx: Tx, user_id: UserId, now_ms: int) -> None:
    user = names.user_nid(tx, user_id)
    if user is not None:
        tries = device_lists.tries(tx, user) + 1
        wait_ms = min(FIRST_RETRY_MS << min(tries - 1, 20), LAST_RETRY_MS)
        device_lists.put_off(tx, user, tries, now_ms + wait_ms)


def receive_update(tx: Tx, origin: ServerName, edu: Json) -> tuple[UserId, int] | None:
    """Take an `m.device_list_update`; whose it was and its number, None for what is dropped.

    Taken are those about the origin's own users who are in a room with one of us (T125).
    """
    found = _sharing_user(tx, origin, edu)
    if found is None:
        return None
    assert isinstance(edu, Mapping)
    user, user_id, is_partial = found
    stream, prev, device_id = edu.get("stream_id"), edu.get("prev_id", []), edu.get("device_id")
    if type(stream) is not int or not 0 <= stream <= MAX_STREAM_ID or not isinstance(prev, list):
        return None
    if not isinstance(device_id, str) or not 0 < len(device_id) <= MAX_DEVICE_ID:
        return None
    known = device_lists.remote_list(tx, user)
    if known is None:
        # Nobody has asked yet: who does will get all of it.  Who joined a room, and is new to us,
        # is shown as such already, and a device without keys adds nothing to that.
        if device_lists.has_list(tx, user) or "keys" in edu or is_partial:
            device_lists.changed(tx, user)
    elif known.stale:
        device_lists.retry_now(tx, user)
    elif stream == known.stream_id:
        return None  # it came before
    elif known.stream_id not in prev or not _apply(tx, user, user_id, device_id, edu):
        device_lists.mark_stale(tx, user)
    else:
        device_lists.set_remote_stream_id(tx, user, stream)
        device_lists.changed(tx, user)
    return user_id, stream


def _apply(tx: Tx, user: UserNid, user_id: UserId, device_id: str, edu: Mapping[str, Json]) -> bool:
    """Bring one device up to date; False: the whole list has to be looked at."""
    if edu.get("deleted") is True or "keys" not in edu:
        device_lists.remove_remote_device(tx, user, device_id)
        return True
    device = _device(user_id, edu)
    if device is None or device_lists.remote_device_count(tx, user) >= MAX_DEVICES:
        return False
    device_lists.put_remote_device(tx, user, device)
    return True


def receive_signing_keys(tx: Tx, origin: ServerName, edu: Json) -> None:
    """Take an `m.signing_key_update` ([B7.07])."""
    found = _sharing_user(tx, origin, edu)
    if found is None:
        return
    assert isinstance(edu, Mapping)
    user, user_id, _ = found
    known = device_lists.remote_list(tx, user)
    if known is not None and not known.stale:
        stored = keys.cross_signing_keys(tx, user)
        new = {usage: _signing_key(user_id, usage, edu) for usage in USAGES}
        changes = {
            usage: json
            for usage, json in new.items()
            if json is not None and json != stored.get(usage)
        }
        if not changes:
            return
        for usage, json in changes.items():
            keys.put_cross_signing_key(tx, user, usage, json)
    device_lists.changed(tx, user)


def _sharing_user(tx: Tx, origin: ServerName, edu: Json) -> tuple[UserNid, UserId, bool] | None:
    """The user an EDU is about, if it is the origin's to tell of and ours to know.

    The last entry: whether we only suppose so, for want of all members of a room ([B8.05]).
    """
    named = edu.get("user_id") if isinstance(edu, Mapping) else None
    if not isinstance(named, str):
        return None
    try:
        user_id = parse_user_id(named)
    except InvalidIdentifier:
        return None
    if server_of(user_id) != origin or not is_compliant_user_id(user_id):
        return None
    user = names.user_nid(tx, user_id)
    if user is not None and device_lists.shares_with_us(tx, user):
        return user, user_id, False
    rooms = joins.partial_rooms(tx)
    if not any(may_have_joined(tx, flag.room, user_id) for flag in rooms):
        return None
    return names.add_user(tx, user_id), user_id, True


# --- fetching


@define(eq=False)
class RemoteLists:
    """Fetches lists: at once for who asks, and in the background when something was missed."""

    store: Store
    remote: KeysRemote
    clock: Clock
    _under_way: dict[UserId, trio.Event] = field(factory=dict)
    _heard: dict[UserId, int] = field(factory=dict)  # while a list is fetched
    _failed: dict[UserId, RemoteError] = field(factory=dict)

    def heard(self, user_id: UserId, stream_id: int) -> None:
        """An update of that number was taken; what is being fetched now may be older."""
        if user_id in self._under_way:
            self._heard[user_id] = max(stream_id, self._heard.get(user_id, 0))

    async def fetch(self, user_id: UserId) -> None:
        """Fetch a user's list and store it; only once for all who ask.  Raises RemoteError."""
        waiting = self._under_way.get(user_id)
        if waiting is not None:
            await waiting.wait()
            if user_id in self._failed:
                raise self._failed[user_id]
            return
        done = self._under_way[user_id] = trio.Event()
        self._failed.pop(user_id, None)
        try:
            await self._fetch(user_id)
        except RemoteError as error:
            self._failed[user_id] = error
            raise
        finally:
            del self._under_way[user_id]
            self._heard.pop(user_id, None)
            done.set()
            if len(self._failed) > MAX_DEVICES:
                self._failed.clear()

    async def _fetch(self, user_id: UserId) -> None:
        server = server_of(user_id)
        answer = await self.remote.user_devices(server, user_id)
        found = parse_list(server, user_id, answer)
        await self.store.write(store_list, user_id, found)
        if self._heard.get(user_id, 0) > found.stream_id:
            await self.store.write(_still_stale, user_id)

    async def run(self) -> None:
        """Fetch what has become stale, a few lists at once."""
        doorbell = self.store.doorbell
        async with trio.open_nursery() as nursery:
            while True:
                position = StreamPos(doorbell.position)
                now_ms = self.clock.now_ms()
                wait_s = LAST_RETRY_MS / 1000
                for user_id, known in self.store.read(device_lists.stale_lists, 2 * AT_ONCE):
                    if known.retry_ms > now_ms:
                        wait_s = min(wait_s, (known.retry_ms - now_ms) / 1000)
                        continue
                    wait_s = min(wait_s, LOOK_AGAIN_S)
                    if user_id not in self._under_way and len(self._under_way) < AT_ONCE:
                        nursery.start_soon(self._refresh, user_id, name=f"devices of {user_id}")
                        await trio.lowlevel.checkpoint()
                with trio.move_on_after(wait_s):
                    await doorbell.beyond(position, device_lists.STALE)

    async def _refresh(self, user_id: UserId) -> None:
        if not self.store.read(_is_wanted, user_id):
            await self.store.write(_forget, user_id)
            return
        try:
            await self.fetch(user_id)
        except RemoteError as error:
            log.info("device list not fetched", user_id=user_id, reason=str(error))
            await self.store.write(_put_off, user_id, self.clock.now_ms())


def _is_wanted(tx: Tx, user_id: UserId) -> bool:
    user = names.user_nid(tx, user_id)
    return user is not None and device_lists.shares_with_us(tx, user)


def _forget(tx: Tx, user_id: UserId) -> None:
    device_lists.drop_remote_list(tx, names.add_user(tx, user_id))


def _still_stale(tx: Tx, user_id: UserId) -> None:
    device_lists.mark_stale(tx, names.add_user(tx, user_id))


def sharing(tx: Tx, users: Sequence[UserId]) -> list[UserId]:
    """Those of some users of other servers who are in a room with one of us."""
    return [user_id for user_id in users if _is_wanted(tx, user_id)]
