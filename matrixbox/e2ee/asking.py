"""Keys of anybody, asked for by our users: ours at once, others from their servers.

Matrix v1.19, Client-Server API, "Key management API" ([C17.03], [C17.04]).  Each server is asked on
its own and within the time the client gives; one that fails is named in `failures` and holds
nothing else up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import trio
from attrs import define, field

from matrixbox.core.identifiers import ServerName, UserId, server_of
from matrixbox.core.json import Json
from matrixbox.e2ee import device_keys, one_time_keys, remote_lists, shapes
from matrixbox.e2ee.device_keys import Found, Wanted
from matrixbox.e2ee.one_time_keys import ClaimRates, Claims
from matrixbox.e2ee.remote import KeysRemote
from matrixbox.e2ee.remote_lists import RemoteLists
from matrixbox.errors import MatrixError, RemoteError, RemoteTimeout
from matrixbox.store import device_lists, keys, names
from matrixbox.store.caches import Session
from matrixbox.store.database import Store
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

MAX_USERS = 250
"""In one query."""
MAX_CLAIMS = 250
"""Devices in one claim."""
MAX_WAIT_S = 10.0
SERVERS_AT_ONCE = 16
LISTS_AT_ONCE = 5
"""Lists that are fetched from one server while a client waits; of more users, their keys are asked
for in one request, and the lists fetched afterwards."""

V = TypeVar("V")


@define(eq=False)
class KeyService:
    """Answers questions for keys."""

    store: Store
    own: ServerName
    remote: KeysRemote
    lists: RemoteLists
    rates: ClaimRates
    _slots: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(SERVERS_AT_ONCE))

    async def query(self, who: Session, wanted: Wanted, timeout_s: float) -> dict[str, Json]:
        """The answer to `/keys/query`."""
        here, elsewhere = _split(wanted, self.own)
        found = self.store.read(device_keys.local, here, who.user)
        failures: dict[str, Json] = {}
        if elsewhere:
            asked = {server: self._missing(those) for server, those in elsewhere.items()}

            async def ask(server: ServerName) -> None:
                await self._ask(server, asked[server], found, who.user)

            to_ask = [server for server, missing in asked.items() if missing]
            failures = await self._each(to_ask, ask, timeout_s)
            for those in elsewhere.values():
                _merge(found, self.store.read(device_keys.known_remote, those, who.user))
        return {
            "failures": failures,
            "user_signing_keys": found.user_signing,
            **found.answer(),
        }

    def _missing(self, wanted: Wanted) -> Wanted:
        """Those users of whom nothing fresh is known here."""
        return {user: ids for user, ids in wanted.items() if not self.store.read(_is_fresh, user)}

    async def _ask(self, server: ServerName, wanted: Wanted, found: Found, viewer: UserNid) -> None:
        """Fetch what is missing of one server's users.  Raises RemoteError."""
        followed = self.store.read(remote_lists.sharing, list(wanted))
        if len(followed) > LISTS_AT_ONCE:
            await self.store.write(_want, followed)
            followed = []
        failed: list[RemoteError] = []

        async def fetch(user_id: UserId) -> None:
            try:
                await self.lists.fetch(user_id)
            except RemoteError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for user_id in followed:
                nursery.start_soon(fetch, user_id)
        rest = {user: ids for user, ids in wanted.items() if user not in followed}
        if rest:
            answer = await self.remote.query_keys(server, rest)
            _take_answer(found, rest, answer)
            self.store.read(_add_own_signatures, found, rest, viewer)
        if failed:
            raise failed[0]

    async def fetch(self, users: list[UserId], timeout_s: float = MAX_WAIT_S) -> None:
        """Have the keys of users of other servers here, as far as that can be done in time."""
        missing = [user for user in users if not self.store.read(_is_fresh, user)]
        servers = {user: server_of(user) for user in missing if server_of(user) != self.own}

        async def fetch(user: UserId) -> None:
            await self.lists.fetch(user)

        await self._each(list(servers), fetch, timeout_s)

    async def claim(self, wanted: Claims, timeout_s: float) -> dict[str, Json]:
        """The answer to `/keys/claim`."""
        here, elsewhere = _split(wanted, self.own)
        claimed: dict[str, dict[str, Json]] = {}
        if here:
            claimed = await self.store.write(one_time_keys.claim, here, None, self.rates)

        async def ask(server: ServerName) -> None:
            answer = await self.remote.claim_keys(server, elsewhere[server])
            claimed.update(_claimed(elsewhere[server], answer))

        failures = await self._each(list(elsewhere), ask, timeout_s)
        return {"one_time_keys": claimed, "failures": failures}

    async def claim_for_peer(self, wanted: Claims, origin: ServerName) -> dict[str, Json]:
        """The answer to another server's claim ([B13.05])."""
        here, _ = _split(wanted, self.own)
        claimed = await self.store.write(one_time_keys.claim, here, origin, self.rates)
        return {"one_time_keys": claimed}

    def query_for_peer(self, wanted: Wanted) -> dict[str, Json]:
        """The answer to another server's query ([B13.05])."""
        here, _ = _split(wanted, self.own)
        return self.store.read(device_keys.local, here, None).answer()

    async def _each(
        self, keys: list[V], ask: Callable[[V], Awaitable[None]], timeout_s: float
    ) -> dict[str, Json]:
        """Ask several at the same time; what failed, by server."""
        if not keys:
            return {}
        failures: dict[str, Json] = {}

        async def one(key: V) -> None:
            server = server_of(UserId(str(key))) if str(key).startswith("@") else str(key)
            try:
                with trio.move_on_after(timeout_s) as scope:
                    async with self._slots:
                        await ask(key)
                if scope.cancelled_caught:
                    raise RemoteTimeout(ServerName(server), "it did not answer in time")
            except RemoteError as error:
                failures[server] = {"errcode": "M_UNKNOWN", "error": str(error), "status": 503}

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(one, key)
        return failures


def _split(
    wanted: Mapping[UserId, V], own: ServerName
) -> tuple[dict[UserId, V], dict[ServerName, dict[UserId, V]]]:
    """What concerns users of ours, and what those of others, by server."""
    here: dict[UserId, V] = {}
    elsewhere: dict[ServerName, dict[UserId, V]] = defaultdict(dict)
    for user_id, value in wanted.items():
        server = server_of(user_id)
        if server == own:
            here[user_id] = value
        else:
            elsewhere[server][user_id] = value
    return here, elsewhere


def _is_fresh(tx: Tx, user_id: UserId) -> bool:
    user = names.user_nid(tx, user_id)
    known = None if user is None else device_lists.remote_list(tx, user)
    return known is not None and not known.stale


def _want(tx: Tx, users: list[UserId]) -> None:
    device_lists.want_lists(tx, [names.add_user(tx, user_id) for user_id in users])


def _merge(found: Found, more: Found) -> None:
    """Add what is known here, unless the user's server has just told."""
    for target, source in (
        (found.masters, more.masters),
        (found.self_signing, more.self_signing),
    ):
        for user_id, key in source.items():
            if user_id not in found.devices:
                target[user_id] = key
    for user_id, devices in more.devices.items():
        found.devices.setdefault(user_id, devices)


def _take_answer(found: Found, wanted: Wanted, answer: Mapping[str, Json]) -> None:
    """Take from another server's answer what was asked for and can be used."""
    devices = _object(answer.get("device_keys"))
    for user_id, device_ids in wanted.items():
        checked: dict[str, Json] = {}
        for device_id, value in _object(devices.get(user_id)).items():
            if not device_ids or device_id in device_ids:
                shown = _device(user_id, device_id, value)
                if shown is not None:
                    checked[device_id] = shown
        if user_id in devices:
            found.devices[user_id] = checked
        for target, member, usage in (
            (found.masters, "master_keys", "master"),
            (found.self_signing, "self_signing_keys", "self_signing"),
        ):
            value = _object(answer.get(member)).get(user_id)
            try:
                target[user_id] = shapes.cross_signing_key(value, user_id, usage)
            except MatrixError:
                continue  # none, or none that can be used


def _device(user_id: UserId, device_id: str, value: Json) -> Json | None:
    try:
        shown = shapes.device_keys_of_peer(value, user_id, device_id)
    except MatrixError:
        return None
    unsigned = _object(_object(value).get("unsigned"))
    name = unsigned.get("device_display_name")
    if isinstance(name, str):
        shown["unsigned"] = {"device_display_name": name[: remote_lists.MAX_DISPLAY_NAME]}
    return shown


def _add_own_signatures(tx: Tx, found: Found, wanted: Wanted, viewer: UserNid) -> None:
    """Show the viewer's own signatures on master keys that came from elsewhere."""
    for user_id in wanted:
        master = found.masters.get(user_id)
        user = names.user_nid(tx, user_id)
        if user is not None and isinstance(master, Mapping):
            made = keys.user_signature(tx, viewer, user, shapes.key_of(master))
            if made is not None:
                signer_key, signature = made
                by: Json = {names.user_id(tx, viewer): {signer_key: signature}}
                more = {"signatures": by}
                found.masters[user_id] = shapes.with_signatures(master, more)


def _claimed(wanted: Claims, answer: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
    """Take from another server's answer what was claimed, a key for each device."""
    users = _object(answer.get("one_time_keys"))
    found: dict[str, dict[str, Json]] = {}
    for user_id, devices in wanted.items():
        given = _object(users.get(user_id))
        for device_id, algorithm in devices.items():
            for name, key in _object(given.get(device_id)).items():
                if name.startswith(f"{algorithm}:") and isinstance(key, str | Mapping):
                    found.setdefault(user_id, {})[device_id] = {name: key}
                    break
    return found


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
