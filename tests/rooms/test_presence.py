"""Who is there, as time goes by, and what is written down of it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from attrs import evolve

from matrixbox.config import settings as config
from matrixbox.core.identifiers import ServerName, UserId
from matrixbox.rooms import presence as module
from matrixbox.rooms.presence import Presence
from matrixbox.store import members, names
from matrixbox.store import presence as stored
from matrixbox.store.memberships import Membership
from matrixbox.store.presence import Row, State
from tests.federation import towns
from tests.rooms.house import SERVER, household


@asynccontextmanager
async def watched(house):
    """A household's presence, running, and what others are told."""
    told = []
    found = Presence(house.store, house.env.clock, SERVER, house.env.typing)
    found.on_change = lambda user: told.append((user, found.content(user)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await trio.lowlevel.checkpoint()
        yield found, told
        nursery.cancel_scope.cancel()


def rows(house):
    return house.store.read(lambda tx: tx.run("SELECT state, status FROM presence"))


async def test_a_user_is_online_while_syncing_then_idle_then_gone(autojump_clock):
    """[C13.08]: idle after five minutes, offline half a minute after the last sync."""
    async with household() as house, watched(house) as (found, told):
        ann = (await house.user("ann")).user_id
        with found.syncing(ann, State.ONLINE):
            assert found.content(ann) == {
                "presence": "online", "last_active_ago": 0, "currently_active": True,
            }  # fmt: skip
            await trio.sleep(70)
            assert found.content(ann)["currently_active"] is False
            await trio.sleep(240)
            assert found.content(ann)["presence"] == "unavailable"
            found.active(ann)
            assert found.content(ann)["presence"] == "online"
        await trio.sleep(20)
        assert found.content(ann)["presence"] == "online"
        await trio.sleep(20)
        assert found.content(ann)["presence"] == "offline"
        states = [(c["presence"], c.get("currently_active")) for _, c in told]
        assert states == [
            ("online", True), ("online", False), ("unavailable", None),
            ("online", True), ("offline", None),
        ]  # fmt: skip


async def test_a_sync_may_leave_presence_as_it_is_or_say_idle(autojump_clock):
    """[C8.27]."""
    async with household() as house, watched(house) as (found, _):
        ann = (await house.user("ann")).user_id
        with found.syncing(ann, State.OFFLINE):
            assert found.content(ann)["presence"] == "offline"
        with found.syncing(ann, State.UNAVAILABLE):
            assert found.content(ann)["presence"] == "unavailable"
        with found.syncing(ann, State.ONLINE):
            assert found.content(ann)["presence"] == "online"
        found.set(ann, State.UNAVAILABLE, "at lunch")
        with found.syncing(ann, State.ONLINE):
            assert found.content(ann)["presence"] == "unavailable"
            found.active(ann)
            assert found.content(ann)["presence"] == "unavailable"
        found.set(ann, State.ONLINE, None)
        assert found.content(ann)["presence"] == "online"


async def test_others_are_reminded_of_who_is_still_there(autojump_clock):
    """They would take somebody for gone of whom they hear nothing for half an hour."""
    async with household() as house, watched(house) as (found, told):
        ann = (await house.user("ann")).user_id
        found.set(ann, State.UNAVAILABLE, None)
        with found.syncing(ann, State.UNAVAILABLE):
            await trio.sleep(4 * 3600)
        assert 8 <= len(told) <= 12


async def test_users_of_a_silent_server_are_taken_for_gone(autojump_clock):
    """T084, and never written down once they are gone."""
    async with household() as house, watched(house) as (found, told):
        ann = await house.user("ann")
        room = await house.room(ann, preset="public_chat")
        far = UserId("@x:far.test")
        await house.store.write(_joined, room, far)
        push = {"push": [{"user_id": far, "presence": "online", "last_active_ago": 5}]}
        house.store.read(found.receive, ServerName("far.test"), push)
        await trio.sleep(60)
        assert found.content(far)["presence"] == "online"
        assert rows(house) == [(State.ONLINE, None)]
        await trio.sleep(1900)
        assert found.content(far)["presence"] == "offline"
        assert rows(house) == []
        assert told == []


def _joined(tx, room, user_id):
    members.put(tx, room, names.add_user(tx, user_id), Membership.JOIN, 1, tx.position())


async def test_what_is_known_of_others_is_bounded(autojump_clock, monkeypatch):
    """T084: those heard of longest ago are forgotten, our own users never."""
    monkeypatch.setattr(module, "MAX_KNOWN", 10)
    async with household() as house, watched(house) as (found, _):
        ann = await house.user("ann")
        room = await house.room(ann, preset="public_chat")
        found.set(ann.user_id, State.ONLINE, "here")
        for number in range(30):
            far = UserId(f"@x{number}:far.test")
            await house.store.write(_joined, room, far)
            push = {"push": [{"user_id": far, "presence": "online"}]}
            house.store.read(found.receive, ServerName("far.test"), push)
        await trio.sleep(40)
        assert len(found._people) == 11
        assert len(rows(house)) == 11
        assert found.content(ann.user_id)["status_msg"] == "here"
        assert found.content(UserId("@x29:far.test"))["presence"] == "online"


async def test_changes_are_shown_once_to_those_who_share_a_room(autojump_clock):
    """[C8.27], T108: and to the user, in the order of the changes."""
    async with household() as house, watched(house) as (found, _):
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        room = await house.room(ann, preset="public_chat")
        await house.join(bo, room)

        def shown(who, since, until=2**60):
            events = house.store.read(found.changed_since, who.user, who.user_id, since, until)
            return [event["sender"] for event in events]

        start = house.env.typing.serial
        found.set(bo.user_id, State.ONLINE, None)
        middle = house.env.typing.serial
        found.set(ann.user_id, State.ONLINE, None)
        found.set(cy.user_id, State.OFFLINE, "away")
        end = house.env.typing.serial
        assert start < middle < end
        assert shown(ann, start) == [bo.user_id, ann.user_id]
        assert shown(ann, middle) == [ann.user_id]
        assert shown(ann, start, middle) == [bo.user_id]
        assert shown(ann, end) == []
        assert shown(cy, start) == [cy.user_id]
        assert shown(cy, 0) == []
        assert found.any_changed_since(middle)
        assert not found.any_changed_since(end)


@pytest.mark.parametrize("presence", [True, False])
async def test_without_the_feature_nobody_is_seen_or_written_down(
    tmp_path, autojump_clock, presence
):
    """T108."""

    class Quiet(towns.Town):
        @property
        def settings(self):
            return evolve(super().settings, features=config.Features(presence=presence))

    async with towns.country(tmp_path) as land:
        towns.Town, kept = Quiet, towns.Town
        try:
            one, two = await land.town("one.test"), await land.town("two.test")
        finally:
            towns.Town = kept
        row = Row(UserId("@old:far.test"), State.ONLINE, None, 1)
        await one.store.write(stored.put, [row])
        await one.stop()
        await one.start(land.nursery)
        ann, bo = await one.register("ann"), await two.register("bo")
        room = await one.room(ann)
        await two.join(bo, room, "one.test")
        path = f"/presence/{ann.user_id}/status"
        await one.client(ann, "PUT", path, {"presence": "online", "status_msg": "x"})
        await one.sync(ann)
        await trio.sleep(60)
        assert ("presence" in await two.sync(bo)) == presence
        assert bool(rows_of(one)) == presence
        found = await one.client(ann, "GET", path)
        assert found["presence"] == "offline"
        assert found.get("status_msg") == ("x" if presence else None)


def rows_of(town):
    return town.store.read(lambda tx: tx.run("SELECT * FROM presence"))
