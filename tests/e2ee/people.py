"""Devices that can sign, and the household they are in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from matrixbox.accounts import sessions
from matrixbox.core.filters import parse_filter
from matrixbox.core.identifiers import DeviceId
from matrixbox.core.json import encode_canonical
from matrixbox.core.signing import SigningKey, encode_base64, generate, signed_bytes
from matrixbox.e2ee import cross_signing, device_keys, shapes, to_device
from matrixbox.e2ee.asking import KeyService
from matrixbox.e2ee.device_keys import Upload
from matrixbox.e2ee.one_time_keys import ClaimRates
from matrixbox.e2ee.remote import KeysRemote, NoRemote
from matrixbox.e2ee.remote_lists import RemoteLists
from matrixbox.rooms.tokens import SyncToken
from matrixbox.store import accounts
from matrixbox.store.caches import Session
from matrixbox.sync.building import SyncRequest
from matrixbox.sync.v3 import SyncService
from tests.rooms.house import House, household
from tests.sync.client import waiting

Object = dict[str, Any]
ALGORITHM = "signed_curve25519"
FILTER = parse_filter({})
_counter = iter(range(10**9))


def new_key(seed: str | None = None) -> SigningKey:
    """A key of which nobody else has the seed."""
    number = f"{next(_counter)}-{seed}"
    return generate(lambda size: (number.encode() * size)[:size].ljust(size, b"."))


def signed(value: Object, user_id: str, key_id: str, key: SigningKey) -> Object:
    """An object with a further signature."""
    signature = encode_base64(key.sign(signed_bytes(value)))
    by_user = {**value.get("signatures", {}).get(user_id, {}), key_id: signature}
    return {**value, "signatures": {**value.get("signatures", {}), user_id: by_user}}


@define(eq=False)
class CrossSigning:
    """A user's three keys."""

    user_id: str
    master: SigningKey = field(factory=new_key)
    self_signing: SigningKey = field(factory=new_key)
    user_signing: SigningKey = field(factory=new_key)

    def public(self, usage: str) -> Object:
        """A public key, signed by the master key where it is not that."""
        key: SigningKey = getattr(self, usage)
        name = key.verify_key_base64
        value = {"user_id": self.user_id, "usage": [usage], "keys": {f"ed25519:{name}": name}}
        return value if usage == "master" else self.sign(value, "master")

    def sign(self, value: Object, usage: str) -> Object:
        """An object signed with one of the keys."""
        key: SigningKey = getattr(self, usage)
        return signed(value, self.user_id, f"ed25519:{key.verify_key_base64}", key)

    def upload(self) -> Object:
        """The body for all three."""
        usages = ("master", "self_signing", "user_signing")
        return {f"{usage}_key": self.public(usage) for usage in usages}


@define(eq=False)
class Device:
    """A signed-in device with keys of its own."""

    house: House
    who: Session
    key: SigningKey = field(factory=new_key)
    since: str | None = None
    _prekeys: int = 0

    @property
    def user_id(self) -> str:
        """Whose it is."""
        return self.who.user_id

    @property
    def key_id(self) -> str:
        """The name of its key."""
        return f"ed25519:{self.who.device_id}"

    def identity(self) -> Object:
        """Its identity keys."""
        value = {
            "user_id": self.user_id,
            "device_id": self.who.device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                self.key_id: self.key.verify_key_base64,
                f"curve25519:{self.who.device_id}": self.key.verify_key_base64,
            },
        }
        return self.sign(value)

    def sign(self, value: Object) -> Object:
        """An object signed by the device."""
        return signed(value, self.user_id, self.key_id, self.key)

    def prekeys(self, count: int, **more: Any) -> Object:
        """New one-time keys."""
        found = {}
        for _ in range(count):
            self._prekeys += 1
            value = {"key": new_key().verify_key_base64, **more}
            found[f"{ALGORITHM}:K{self._prekeys:05}"] = self.sign(value)
        return found

    async def upload(
        self,
        one_time: Object | None = None,
        fallback: Object | None = None,
        *,
        identity: bool = True,
    ) -> Any:
        """Publish keys; the counts."""
        value = self.identity() if identity else None
        checked = None
        if value is not None:
            checked = shapes.device_keys(value, self.who.user_id, self.who.device_id)
        wanted = Upload(
            checked,
            shapes.prekeys(one_time or {}, "one_time_keys"),
            shapes.prekeys(fallback or {}, "fallback_keys"),
        )
        return await self.house.store.write(device_keys.upload, self.who, wanted)

    async def cross_sign(self, keys: CrossSigning, *, consented: bool = False) -> None:
        """Publish cross-signing keys."""
        new = cross_signing.parse(keys.upload(), self.who.user_id)
        await self.house.store.write(cross_signing.upload, self.who, new, consented)

    async def send(self, kind: str, messages: Object, txn: str | None = None) -> None:
        """Send to-device messages."""
        key = f"to device {txn or next(_counter)}".encode()
        own = self.house.env.server_name
        parsed = to_device.parse(messages)
        await self.house.store.write(to_device.send, own, self.who, kind, parsed, key)

    async def sync(self, since: str | None = "", timeout_s: float = 0) -> Object:
        """One call of /sync; it goes on from the last one unless told otherwise."""
        begin = self.since if since == "" else since
        token = None if begin is None else SyncToken.parse(begin)
        request = SyncRequest(self.who, token, FILTER, timeout_s)
        service = SyncService(self.house.store, self.house.env)
        answer: Object = json.loads(await service.sync(request, waiting))
        self.since = answer["next_batch"]
        return answer

    async def messages(self) -> list[Any]:
        """The contents of the to-device messages that the next sync brings."""
        answer = await self.sync()
        return [event["content"] for event in answer.get("to_device", {}).get("events", [])]

    async def list_changes(self) -> tuple[list[str], list[str]]:
        """Whose devices changed, and whose are not needed any more, by the next sync."""
        found = (await self.sync()).get("device_lists", {"changed": [], "left": []})
        return sorted(found["changed"]), sorted(found["left"])


@define(eq=False)
class Town:
    """A household and what it asks other servers."""

    house: House
    remote: KeysRemote
    lists: RemoteLists
    keys: KeyService

    async def user(self, name: str, *, uploaded: bool = True) -> Device:
        """A new user with a device; its keys are published."""
        device = Device(self.house, await self.house.user(name))
        if uploaded:
            await device.upload()
        return device

    async def device(self, of: Device, name: str, *, uploaded: bool = True) -> Device:
        """One more device of a user."""

        def make(tx: Any) -> Session:
            account = accounts.get(tx, of.who.user)
            assert account is not None
            opened = sessions.open_session(tx, account, DeviceId(name), None)
            return sessions.authenticate(tx, opened.access_token)

        device = Device(self.house, await self.house.store.write(make))
        if uploaded:
            await device.upload()
        return device

    async def remove(self, device: Device) -> None:
        """Remove a device."""
        await self.house.store.write(
            sessions.remove_devices, device.who.user, [device.who.device_id]
        )

    async def query(self, who: Device, *users: str, timeout_s: float = 10) -> Object:
        """Ask for all keys of users."""
        wanted = {user: [] for user in users}
        answer = await self.keys.query(who.who, wanted, timeout_s)  # type: ignore[arg-type]
        found: Object = json.loads(encode_canonical(answer))
        return found

    async def claim(self, *devices: Device) -> Object:
        """Claim a key of each device."""
        wanted: Object = {}
        for device in devices:
            wanted.setdefault(device.user_id, {})[device.who.device_id] = ALGORITHM
        answer: Object = await self.keys.claim(wanted, 10)  # type: ignore[arg-type]
        found: Object = answer["one_time_keys"]
        return found

    async def claim_one(self, device: Device) -> str | None:
        """The name of the key that a claim gives; None: none is left."""
        found = (await self.claim(device)).get(device.user_id, {}).get(device.who.device_id)
        return None if found is None else str(next(iter(found)))


@asynccontextmanager
async def town(
    path: Path | None = None, remote: KeysRemote | None = None, **env: Any
) -> AsyncIterator[Town]:
    """A household for one test."""
    async with household(path, **env) as house:
        asked = remote or NoRemote()
        store, clock = house.store, house.env.clock
        lists = RemoteLists(store, asked, clock)
        service = KeyService(store, house.env.server_name, asked, lists, ClaimRates(clock))
        yield Town(house, asked, lists, service)


def as_device(device: Device, device_id: str) -> Session:
    """The session of a device under another name."""
    return evolve(device.who, device_id=DeviceId(device_id))
