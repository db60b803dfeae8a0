"""Which servers are in which rooms follows the memberships, whoever writes these."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from matrixbox.core.identifiers import RoomId, UserId, server_of
from matrixbox.store import members, names, outbound, rooms, servers
from matrixbox.store.memberships import Membership
from tests.rooms.house import household

NAMES = [f"@u{number}:s{number % 7}.test" for number in range(20)]


def counted(tx, room):
    """The servers of a room, counted by hand."""
    rows = tx.run(
        "SELECT user_id FROM member JOIN user USING (user_nid)"
        " WHERE room_nid = ? AND membership = 1",
        room,
    )
    return Counter(server_of(UserId(row[0])) for row in rows)


@pytest.mark.parametrize("seed", range(5))
async def test_servers_follow_random_memberships(seed):
    """[B13.12], T037: after every change the same as counting all members; rollbacks too."""
    rng = random.Random(seed)
    async with household() as house:

        def make(tx):
            return [rooms.add(tx, RoomId(f"!{n}:s0.test"), "11") for n in range(2)]

        made = await house.store.write(make)

        def change(tx, fails):
            for _ in range(rng.randint(1, 4)):
                room, user = rng.choice(made), names.add_user(tx, UserId(rng.choice(NAMES)))
                pos = tx.position()
                kind = rng.random()
                if kind < 0.1:
                    members.remove(tx, room, user)
                elif kind < 0.2:
                    tx.run(
                        "UPDATE member SET membership = 4, pos = ? WHERE room_nid = ?", pos, room
                    )
                else:
                    membership = rng.choice([Membership.JOIN, Membership.JOIN, *Membership])
                    members.put(tx, room, user, membership, 1, pos)
            if fails:
                raise ZeroDivisionError

        for _ in range(150):
            fails = rng.random() < 0.1
            try:
                await house.store.write(change, fails)
                assert not fails
            except ZeroDivisionError:
                assert fails
            for room in made:
                found = house.store.read(servers.in_room, room)
                assert dict(found) == house.store.read(counted, room)
                assert len(found) == len({name for name, _ in found})
                for name, _ in found:
                    assert house.store.read(servers.is_in_room, room, name)


async def test_assumed_servers_stay_until_the_members_are_known():
    """Joins with partial state: who is said to be there is sent what happens meanwhile."""
    async with household() as house:

        def make(tx):
            room = rooms.add(tx, RoomId("!a:x.test"), "11")
            servers.assume(tx, room, ["a.test", "b.test", "a.test"], tx.position())
            members.put(tx, room, names.add_user(tx, UserId("@x:a.test")), Membership.JOIN, 1, 2)
            return room

        room = await house.store.write(make)
        assert house.store.read(servers.in_room, room) == [("a.test", 1), ("b.test", 0)]
        await house.store.write(lambda tx: servers.settle(tx, room, tx.position()))
        assert house.store.read(servers.in_room, room) == [("a.test", 1)]
        assert house.store.read(servers.has_others, room, "a.test") is False
        assert house.store.read(servers.has_others, room, "home.test") is True


async def test_an_earlier_stay_is_kept_while_something_of_it_is_owed():
    async with household() as house:

        def stay(tx):
            room = rooms.add(tx, RoomId("!a:x.test"), "11")
            user = names.add_user(tx, UserId("@x:a.test"))
            members.put(tx, room, user, Membership.JOIN, 1, tx.position())
            sent = tx.position()
            outbound.put_event(tx, room, sent, sent)
            members.put(tx, room, user, Membership.LEAVE, 1, tx.position())
            later = tx.position()
            outbound.put_event(tx, room, later, later)
            return room, sent

        room, sent = await house.store.write(stay)
        server = house.store.read(names.server_nid, "a.test")
        owed = house.store.read(outbound.events_in, server, room, 0, 10**9, 10)
        assert [event.pos for event in owed] == [sent]
        await house.store.write(servers.forget_past)
        assert house.store.read(outbound.owed) == ["a.test"]
        await house.store.write(outbound.take, [outbound.Taken("a.test", sent + 1)])
        assert house.store.read(outbound.owed) == []
        assert house.store.read(lambda tx: tx.run("SELECT * FROM room_server_past")) == []
