"""Devices of users of other servers, and what other servers learn of ours.

[B7.04] to [B7.07], [B13.04], [B13.05], [C17.02] to [C17.04], T125, T130.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from matrixbox.accounts import sessions
from matrixbox.core.identifiers import DeviceId, ServerName, UserId
from matrixbox.core.json import Json, decode_stored, encode_canonical
from matrixbox.e2ee import cross_signing, device_keys, device_lists, remote_lists
from matrixbox.e2ee.incoming import DeviceNews
from matrixbox.errors import RemoteUnreachable
from matrixbox.store import accounts, members, names, outbound
from matrixbox.store import device_lists as store
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import EventNid
from tests.e2ee.people import ALGORITHM, CrossSigning, Device, Object, Town, town

HOME, FAR = ServerName("home.test"), ServerName("far.test")


@define(eq=False)
class Wire:
    """What one server asks the other; it can be cut, and is slow when told so."""

    asked: Town | None = None
    is_cut: bool = False
    slow_s: float = 0
    calls: list[str] = field(factory=list)
    answers: dict[str, Any] = field(factory=dict)  # instead of the true ones

    async def _call(self, name: str) -> Town:
        self.calls.append(name)
        await trio.sleep(self.slow_s)
        if self.is_cut or self.asked is None:
            raise RemoteUnreachable(FAR, "cut")
        return self.asked

    async def user_devices(self, server: ServerName, user_id: UserId) -> Mapping[str, Json]:
        asked = await self._call("devices")
        if "devices" in self.answers:
            return self.answers["devices"]  # type: ignore[no-any-return]
        found = asked.house.store.read(device_keys.devices_for_peer, user_id)
        assert found is not None
        return over_the_wire(found)

    async def query_keys(
        self, server: ServerName, wanted: Mapping[UserId, Sequence[str]]
    ) -> Mapping[str, Json]:
        asked = await self._call("query")
        return over_the_wire(self.answers.get("query") or asked.keys.query_for_peer(wanted))

    async def claim_keys(
        self, server: ServerName, wanted: Mapping[UserId, Mapping[str, str]]
    ) -> Mapping[str, Json]:
        asked = await self._call("claim")
        claimed = await asked.keys.claim_for_peer(wanted, HOME)
        return over_the_wire(self.answers.get("claim") or claimed)


def over_the_wire(value: Any) -> Any:
    return decode_stored(encode_canonical(value))


@define(eq=False)
class Pair:
    """Two servers, of which the first follows the users of the second."""

    home: Town
    far: Town
    wire: Wire
    news: DeviceNews
    _taken: int = 0

    async def share(self, here: Device, there: Device) -> None:
        """Both are in a room, as each of the servers knows."""
        for one, own, other in ((self.home, here, there), (self.far, there, here)):
            room = await one.house.room(own.who, preset="public_chat")

            def put(tx: Any, room: Any = room, other: Device = other) -> None:
                user = names.add_user(tx, other.who.user_id)
                members.put(tx, room, user, Membership.JOIN, EventNid(0), tx.position())
                tx.changed(users=(user,), rooms=(room,))

            await one.house.store.write(put)

    async def part(self, there: Device) -> None:
        """The far user is in no room of ours any more; nobody tells the far server's users."""

        def leave(tx: Any) -> None:
            user = names.add_user(tx, there.who.user_id)
            for room, _, _ in members.all_of(tx, user):
                members.put(tx, room, user, Membership.LEAVE, EventNid(0), tx.position())

        await self.home.house.store.write(leave)

    async def outgoing(self) -> list[tuple[str, Json]]:
        """What the far server has to say since the last time."""
        write, read = self.far.house.store.write, self.far.house.store.read
        while read(store.next_notice) is not None:
            await write(device_lists.tell_some, FAR)

        def waiting(tx: Any) -> Any:
            server = names.server_nid(tx, HOME)
            return [] if server is None else outbound.edus(tx, server, self._taken, 10**6)

        found = read(waiting)
        if found:
            self._taken = found[-1].seq
        return [(edu.type, edu.decoded()) for edu in found]

    async def deliver(self, *edus: tuple[str, Json]) -> None:
        """Give EDUs to the first server."""
        await self.news.receive(FAR, edus)

    async def seen(self, viewer: Device, who: Device) -> Object:
        """A far user's devices and keys as a client of the first server gets them."""
        answer = await self.home.query(viewer, who.user_id)
        return {key: value.get(who.user_id) for key, value in answer.items() if key != "failures"}

    async def true(self, who: Device) -> Object:
        """The same as their own server shows it to others."""
        found = self.far.keys.query_for_peer({who.who.user_id: []})
        answer = over_the_wire({**found, "user_signing_keys": {}})
        return {key: value.get(who.user_id) for key, value in answer.items()}


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    wire = Wire()
    async with town(remote=wire) as home, town(server_name=FAR) as far:
        wire.asked = far
        news = DeviceNews(home.house.store, HOME, home.house.env.clock, home.lists)
        yield Pair(home, far, wire, news)


async def test_a_list_is_fetched_once_and_then_kept_up_to_date() -> None:
    """[B7.04], [B7.05]."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        await both.outgoing()
        for _ in range(2):
            assert await both.seen(ann, far) == await both.true(far)
        assert both.wire.calls == ["devices"]
        await ann.sync()
        await both.far.device(far, "TABLET")
        await far.cross_sign(CrossSigning(far.user_id))
        await both.deliver(*await both.outgoing())
        assert await ann.list_changes() == ([far.user_id], [])
        assert await both.seen(ann, far) == await both.true(far)
        assert both.wire.calls == ["devices"], "nothing had to be asked"


async def test_new_names_and_removed_devices_arrive() -> None:
    """[B7.04], [B7.06]."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        tablet = await both.far.device(far, "TABLET")
        await both.share(ann, far)
        await both.outgoing()
        await both.seen(ann, far)
        await both.far.house.store.write(accounts.rename_device, far.who.device, "Phone")
        await both.far.remove(tablet)
        await both.deliver(*await both.outgoing())
        seen = await both.seen(ann, far)
        assert seen == await both.true(far)
        assert list(seen["device_keys"]) == [far.who.device_id]
        assert both.wire.calls == ["devices"]


async def test_a_missed_update_leads_to_one_fetch_and_one_notice(
    autojump_clock: MockClock,
) -> None:
    """[B7.04], T125."""
    async with pair() as both, trio.open_nursery() as nursery:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        await both.outgoing()
        await both.seen(ann, far)
        nursery.start_soon(both.home.lists.run)
        await trio.sleep(1)
        await ann.sync()
        await both.far.device(far, "LOST")
        await both.outgoing()
        await both.far.device(far, "TABLET")
        await both.deliver(*await both.outgoing())
        await trio.sleep(1)
        assert both.wire.calls == ["devices", "devices"]
        assert await ann.list_changes() == ([far.user_id], [])
        assert await ann.list_changes() == ([], [])
        assert await both.seen(ann, far) == await both.true(far)
        assert both.wire.calls == ["devices", "devices"]
        nursery.cancel_scope.cancel()


async def test_a_list_that_cannot_be_fetched_is_tried_again_in_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    """T125: clients get what is known meanwhile, with the failure, and are told later."""
    async with pair() as both, trio.open_nursery() as nursery:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        await both.outgoing()
        await both.seen(ann, far)
        before = await both.true(far)
        await ann.sync()
        await both.far.device(far, "LOST")
        await both.outgoing()
        await both.far.device(far, "TABLET")
        nursery.start_soon(both.home.lists.run)
        both.wire.is_cut = True
        both.wire.calls.clear()
        await both.deliver(*await both.outgoing())
        await trio.sleep(3600)
        assert 4 <= len(both.wire.calls) <= 8
        answer = await both.home.query(ann, far.user_id)
        assert set(answer["failures"]) == {FAR}
        assert answer["device_keys"][far.user_id] == before["device_keys"]
        assert await ann.list_changes() == ([], [])
        both.wire.is_cut = False
        await trio.sleep(7300)
        assert await ann.list_changes() == ([far.user_id], [])
        assert await both.seen(ann, far) == await both.true(far)
        nursery.cancel_scope.cancel()


async def test_a_list_is_not_trusted_over_a_time_without_a_shared_room() -> None:
    """[B7.06]: nobody told us of changes then."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        await both.outgoing()
        await both.seen(ann, far)
        await both.part(far)
        await both.far.device(far, "TABLET")
        await both.outgoing()
        await both.share(ann, far)
        assert await both.seen(ann, far) == await both.true(far)
        assert both.wire.calls == ["devices", "devices"]


async def test_keys_of_strangers_are_asked_for_and_not_kept() -> None:
    """[C17.03]: as before somebody is invited."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        for _ in range(2):
            assert await both.seen(ann, far) == await both.true(far)
        assert both.wire.calls == ["query", "query"]


async def test_many_users_of_one_server_are_asked_for_in_one_request(
    autojump_clock: MockClock,
) -> None:
    """[C17.03]: their lists are fetched afterwards."""
    async with pair() as both:
        ann = await both.home.user("ann")
        others = [await both.far.user(f"far{n}") for n in range(8)]
        for other in others:
            await both.share(ann, other)
        answer = await both.home.query(ann, *(other.user_id for other in others))
        assert both.wire.calls == ["query"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.home.lists.run)
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
        again = await both.home.query(ann, *(other.user_id for other in others))
        assert both.wire.calls == ["query"] + 8 * ["devices"]
        assert again == answer
        assert len(answer["device_keys"]) == 8


async def test_a_slow_server_is_a_failure_and_holds_nothing_up(autojump_clock: MockClock) -> None:
    """[C17.03], [C17.04]: within the time that the client gives."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await far.upload(far.prekeys(2))
        await ann.upload(ann.prekeys(2))
        both.wire.slow_s = 60
        begin = trio.current_time()
        answer = await both.home.query(ann, ann.user_id, far.user_id, timeout_s=3)
        assert trio.current_time() - begin < 4
        assert set(answer["device_keys"]) == {ann.user_id}
        assert set(answer["failures"]) == {FAR}
        wanted: Any = {
            ann.user_id: {ann.who.device_id: ALGORITHM},
            far.user_id: {far.who.device_id: ALGORITHM},
        }
        claimed: Any = await both.home.keys.claim(wanted, 3)
        assert set(claimed["one_time_keys"]) == {ann.user_id}
        assert set(claimed["failures"]) == {FAR}
        both.wire.slow_s = 0
        claimed = await both.home.keys.claim(wanted, 3)
        assert set(claimed["one_time_keys"]) == {ann.user_id, far.user_id}
        assert claimed["failures"] == {}


async def test_several_who_ask_at_once_cause_one_fetch(autojump_clock: MockClock) -> None:
    """T125."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        both.wire.slow_s = 1
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(both.seen, ann, far)
        assert both.wire.calls == ["devices"]


async def test_an_update_that_arrives_during_a_fetch_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    """T125: the answer may be older than the update."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        old = both.far.house.store.read(device_keys.devices_for_peer, far.who.user_id)
        both.wire.slow_s = 5
        both.wire.answers["devices"] = over_the_wire(old)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.seen, ann, far)
            await trio.sleep(1)
            await both.far.device(far, "TABLET")
            await both.deliver(*await both.outgoing())
        both.wire.answers.clear()
        assert await both.seen(ann, far) == await both.true(far)


# --- what is refused


def update(far: Device, **change: Any) -> tuple[str, Any]:
    """An update of a far user's device."""
    content = {
        "user_id": far.user_id,
        "device_id": far.who.device_id,
        "stream_id": 10**9,
        "prev_id": [],
        "keys": far.identity(),
    }
    return device_lists.DEVICE_LIST_UPDATE, {**content, **change}


async def test_updates_about_other_servers_users_and_strangers_are_dropped() -> None:
    """T125: nothing is fetched, nobody is told."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        stranger = await both.far.user("stranger")
        await both.share(ann, far)
        await both.seen(ann, far)
        await ann.sync()
        for edu in (
            update(stranger),
            update(far, user_id=ann.user_id),
            update(far, user_id="@x:other.test"),
            update(far, user_id="nobody"),
            update(far, user_id=5),
            update(far, stream_id="7"),
            update(far, stream_id=2**53),
            update(far, stream_id=-1),
            update(far, prev_id=7),
            update(far, device_id=""),
            update(far, device_id=7),
            (device_lists.DEVICE_LIST_UPDATE, []),
            (device_lists.SIGNING_KEY_UPDATE, {"user_id": stranger.user_id}),
            (device_lists.SIGNING_KEY_UPDATE, 5),
            ("m.unknown", {}),
        ):
            await both.deliver(edu)
        assert await ann.list_changes() == ([], [])
        assert both.home.house.store.read(store.stale_lists, 10) == []


async def test_keys_that_do_not_fit_their_user_lead_to_a_fetch() -> None:
    """T125: the list is looked at as a whole, and what is wrong with it left out."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        await both.seen(ann, far)
        stream = both.far.house.store.read(store.stream_id, far.who.user)
        keys = {**far.identity(), "user_id": ann.user_id}
        await both.deliver(update(far, prev_id=[stream], keys=keys))
        assert len(both.home.house.store.read(store.stale_lists, 10)) == 1
        assert await both.seen(ann, far) == await both.true(far)


async def test_a_change_that_was_missed_is_told_though_the_list_looks_the_same() -> None:
    """[B7.06], [C8.23]: its server says that there was one; who asked meanwhile may be misled."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        await both.seen(ann, far)
        await ann.sync()
        old: Any = both.far.house.store.read(device_keys.devices_for_peer, far.who.user_id)
        number = old["stream_id"]
        await both.deliver(update(far, prev_id=[number + 1], stream_id=number + 2))
        both.wire.answers["devices"] = {**old, "stream_id": number + 2}
        await both.seen(ann, far)
        assert await ann.list_changes() == ([far.user_id], [])
        await both.seen(ann, far)
        assert await ann.list_changes() == ([], [])


async def test_lists_that_are_too_long_or_malformed_are_refused() -> None:
    """T125."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        good: Any = both.far.house.store.read(device_keys.devices_for_peer, far.who.user_id)
        entry = good["devices"][0]
        for change in (
            {"devices": (remote_lists.MAX_DEVICES + 1) * [entry]},
            {"devices": {}},
            {"stream_id": "x"},
            {"stream_id": 2**60},
            {"user_id": ann.user_id},
        ):
            both.wire.answers["devices"] = {**good, **change}
            answer = await both.home.query(ann, far.user_id)
            assert set(answer["failures"]) == {FAR}
            assert answer["device_keys"] == {}
        wrong = {**entry["keys"], "device_id": "OTHER"}
        devices = [entry, {"device_id": "A"}, 5, {"device_id": "B", "keys": wrong}]
        both.wire.answers["devices"] = over_the_wire({**good, "devices": devices})
        answer = await both.home.query(ann, far.user_id)
        assert list(answer["device_keys"][far.user_id]) == [far.who.device_id]


async def test_answers_bring_only_what_was_asked_for() -> None:
    """T125: another server does not speak for our users, nor for a third server's."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        mine = CrossSigning(ann.user_id)
        both.wire.answers["query"] = {
            "device_keys": {
                far.user_id: {"OTHER": far.identity(), far.who.device_id: far.identity()},
                ann.user_id: {"X": {}},
            },
            "master_keys": {ann.user_id: mine.public("master"), far.user_id: "x"},
        }
        answer = await both.home.query(ann, far.user_id)
        assert answer["device_keys"] == {far.user_id: {far.who.device_id: far.identity()}}
        assert answer["master_keys"] == {}
        both.wire.answers["claim"] = {
            "one_time_keys": {
                far.user_id: {
                    far.who.device_id: {"other:x": {}, f"{ALGORITHM}:y": {}, f"{ALGORITHM}:z": {}},
                    "OTHER": {f"{ALGORITHM}:y": {}},
                },
                ann.user_id: {"X": {f"{ALGORITHM}:y": {}}},
            }
        }
        claimed = await both.home.claim(far)
        assert claimed == {far.user_id: {far.who.device_id: {f"{ALGORITHM}:y": {}}}}


async def test_a_far_user_can_be_vouched_for() -> None:
    """[C17.09], [C17.10]: the signature stays with the one who made it."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        mine, theirs = CrossSigning(ann.user_id), CrossSigning(far.user_id)
        await ann.cross_sign(mine)
        await far.cross_sign(theirs)
        await both.share(ann, far)
        await both.home.keys.fetch([UserId(far.user_id)])
        vouched = mine.sign(theirs.public("master"), "user_signing")
        body: Any = {far.user_id: {theirs.master.verify_key_base64: vouched}}
        write = both.home.house.store.write
        assert await write(cross_signing.add_signatures, ann.who, body) == {}
        assert (await both.seen(ann, far))["master_keys"] == vouched
        cy = await both.home.user("cy")
        assert (await both.seen(cy, far))["master_keys"] == theirs.public("master")


# --- ours, told to others


async def test_a_join_announces_devices_to_the_servers_in_the_room() -> None:
    """[B7.06]: the update follows on nothing, so the list is asked for."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.outgoing()
        await both.share(ann, far)
        await both.seen(ann, far)
        ((kind, content),) = await both.outgoing()
        assert kind == device_lists.DEVICE_LIST_UPDATE
        assert isinstance(content, dict)
        assert content["prev_id"] == []
        assert content["device_id"] == far.who.device_id
        await both.deliver((kind, content))
        assert both.home.house.store.read(store.stale_lists, 10) == [], "it is known already"


async def test_who_has_no_keys_is_announced_too() -> None:
    """[B7.06]: by a device of which there is no more to tell."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far", uploaded=False)
        await both.outgoing()
        await both.share(ann, far)
        ((kind, content),) = await both.outgoing()
        assert kind == device_lists.DEVICE_LIST_UPDATE
        expected = {"user_id": far.user_id, "device_id": far.who.device_id, "prev_id": []}
        assert content == {**expected, "stream_id": 0}
        await ann.sync()
        await both.deliver((kind, content))
        assert await ann.list_changes() == ([], []), "nobody asked, and there are no keys"
        rename = sessions.rename_device
        await both.far.house.store.write(rename, far.who.user, far.who.device_id, "Phone")
        ((_, content),) = await both.outgoing()
        assert content["device_display_name"] == "Phone"
        assert set(content) == {*expected, "stream_id", "device_display_name"}
        await far.upload()
        for edu in await both.outgoing():
            await both.deliver(edu)
        assert far.who.device_id in (await both.seen(ann, far))["device_keys"]


async def test_only_public_keys_of_cross_signing_are_told() -> None:
    """[B7.07]: never the user-signing key."""
    async with pair() as both:
        ann, far = await both.home.user("ann"), await both.far.user("far")
        await both.share(ann, far)
        await both.outgoing()
        theirs = CrossSigning(far.user_id)
        await far.cross_sign(theirs)
        assert await both.outgoing() == [
            (
                device_lists.SIGNING_KEY_UPDATE,
                {
                    "user_id": far.user_id,
                    "master_key": theirs.public("master"),
                    "self_signing_key": theirs.public("self_signing"),
                },
            )
        ]


async def test_a_change_reaches_every_server_over_several_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T130: however many share a room; a restart goes on where it was."""
    monkeypatch.setattr(device_lists, "BATCH", 4)  # our own server is looked at too
    async with town() as home:
        ann = await home.user("ann", uploaded=False)
        room = await home.house.room(ann.who, preset="public_chat")
        await home.house.store.write(device_lists.tell_some, HOME)  # there is nobody else yet
        servers = [ServerName(f"s{n}.test") for n in range(8)]

        def fill(tx: Any) -> None:
            for server in servers:
                user = names.add_user(tx, UserId(f"@x:{server}"))
                members.put(tx, room, user, Membership.JOIN, EventNid(0), tx.position())

        await home.house.store.write(fill)
        await ann.upload()
        turns = 0
        while home.house.store.read(store.next_notice) is not None:
            await home.house.store.write(device_lists.tell_some, HOME)
            turns += 1
        assert turns == 3

        def told(tx: Any) -> dict[str, int]:
            found = {server: names.server_nid(tx, server) for server in servers}
            return {
                name: 0 if number is None else len(outbound.edus(tx, number, 0, 100))
                for name, number in found.items()
            }

        assert home.house.store.read(told) == dict.fromkeys(servers, 1)


@pytest.mark.parametrize("seed", range(12))
async def test_lists_converge_whatever_happens_to_updates(
    seed: int, autojump_clock: MockClock
) -> None:
    """T125: lost, reordered, repeated and hostile updates, and a wire that is cut at times."""
    rng = random.Random(seed)
    async with pair() as both, trio.open_nursery() as nursery:
        ann = await both.home.user("ann")
        people = [await both.far.user(name) for name in ("far", "near")]
        for person in people:
            await both.share(ann, person)
        nursery.start_soon(both.home.lists.run)
        kept: list[tuple[str, Json]] = []
        devices: list[Device] = []
        for step in range(40):
            person = rng.choice(people)
            match rng.choice(["device", "device", "remove", "rename", "cross", "sign", "ask"]):
                case "device":
                    devices.append(await both.far.device(person, f"D{step}"))
                case "remove" if devices:
                    await both.far.remove(devices.pop(rng.randrange(len(devices))))
                case "rename":
                    name = f"name {step}"
                    write = both.far.house.store.write
                    await write(accounts.rename_device, person.who.device, name)
                case "cross":
                    await person.cross_sign(CrossSigning(person.user_id), consented=True)
                case "ask":
                    await both.home.query(ann, person.user_id)
            kept += await both.outgoing()
            if rng.random() < 0.2:
                hostile = update(
                    person, stream_id=rng.randrange(10**6), prev_id=[rng.randrange(99)]
                )
                kept.append(hostile)
            if rng.random() < 0.3:
                rng.shuffle(kept)
            while kept and rng.random() < 0.7:
                edu = kept.pop(0)
                kind = edu[0]
                # A lost signing key update is made good by nothing: senders keep them.
                if rng.random() < 0.25 and kind == device_lists.DEVICE_LIST_UPDATE:
                    continue
                await both.deliver(edu, *([edu] if rng.random() < 0.2 else []))
            both.wire.is_cut = rng.random() < 0.3
            await trio.sleep(rng.choice([0, 1, 100]))
        both.wire.is_cut = False
        await both.deliver(*kept)
        for person in people:
            # What comes after the last loss shows that something is missing.
            await both.far.device(person, "LAST")
        await both.deliver(*await both.outgoing())
        for _ in range(24):
            await trio.sleep(4_000)
        for person in people:
            assert await both.seen(ann, person) == await both.true(person), seed
        assert json.dumps(both.wire.calls).count("devices") < 200
        nursery.cancel_scope.cancel()


def test_device_ids_of_peers_are_bounded() -> None:
    """T125."""
    long = DeviceId("x" * (remote_lists.MAX_DEVICE_ID + 1))
    answer: Any = {"stream_id": 1, "devices": [{"device_id": long, "keys": {}}]}
    assert remote_lists.parse_list(FAR, UserId("@far:far.test"), answer).devices == ()
