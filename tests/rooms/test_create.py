"""Making rooms.

Matrix v1.19, Client-Server API, "Creation": the order of events, presets, what beats what, and
requests that cannot be granted ([A7.01] to [A7.07], [C10.03], T023).
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from matrixbox.core.json import encode
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.errors import (
    BadAlias,
    BadJson,
    Forbidden,
    InvalidRoomState,
    InviteBlocked,
    MatrixError,
    NotFound,
    RoomInUse,
    TooLarge,
    UnsupportedRoomVersion,
)
from matrixbox.rooms.create import StateDraft
from matrixbox.store import account_data, events, names, rooms
from matrixbox.store.account_data import GLOBAL, Entry
from tests.rooms.house import House, household

ALL = tuple(ROOM_VERSIONS)
BEFORE_12 = ALL[:-1]
PRESETS = {
    "private_chat": ("invite", "shared", "can_join"),
    "trusted_private_chat": ("invite", "shared", "can_join"),
    "public_chat": ("public", "shared", "forbidden"),
}


class StoppedClock:
    """Always the same moment."""

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic_s(self) -> float:
        return 0.0


def draft(kind: str, key: str = "", **content: Any) -> StateDraft:
    return StateDraft(kind, key, content)


def created(house: House, room: Any) -> list[Any]:
    return [stored.event for stored in house.timeline(room)]


@pytest.mark.parametrize("version", ALL)
async def test_events_come_in_the_order_of_the_specification(version):
    """[A7.01] in every room version, each event citing the one before."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(
            ann,
            version=version,
            preset="public_chat",
            alias="#den:home.test",
            name="Den",
            topic="Rest",
            initial_state=(draft("x.one", "k", n=1), draft("x.two", n=2)),
            invites=(bo.user_id,),
        )
        made = created(house, room)
        assert [(event.type, event.state_key) for event in made] == [
            ("m.room.create", ""),
            ("m.room.member", ann.user_id),
            ("m.room.power_levels", ""),
            ("m.room.canonical_alias", ""),
            ("m.room.join_rules", ""),
            ("m.room.history_visibility", ""),
            ("x.one", "k"),
            ("x.two", ""),
            ("m.room.name", ""),
            ("m.room.topic", ""),
            ("m.room.member", bo.user_id),
        ]
        assert made[0].prev_event_ids == ()
        for earlier, later in itertools.pairwise(made):
            assert later.prev_event_ids == (earlier.event_id,)
            assert later.depth == earlier.depth + 1
        assert house.state(room).keys() == {(event.type, event.state_key) for event in made}


@pytest.mark.parametrize("version", ALL)
async def test_the_create_event_says_what_its_version_wants(version):
    """[A7.06]: creator and room_version are the server's, all else passes through."""
    given = {
        "creator": "@mallory:evil.test",
        "room_version": "5",
        "m.federate": False,
        "type": "m.space",
        "predecessor": {"room_id": "!old:home.test", "event_id": "$x"},
        "x.own": [1],
    }
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann, version=version, creation_content=given)
        content = house.content(room, "m.room.create")
        content.pop("org.matrixbox.entropy", None)
        wanted = {**given, "room_version": version}
        del wanted["creator"]
        if int(version) < 11:
            wanted["creator"] = ann.user_id
        assert content == wanted
        create = house.state(room)["m.room.create", ""].event
        assert ("room_id" in create.json) is (version != "12")
        if version == "12":
            assert create.room_id == "!" + create.event_id[1:]
        assert house.store.read(rooms.rules, room).version == version


@pytest.mark.parametrize("preset", PRESETS)
async def test_presets(preset):
    """[A7.04]."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, version="11", preset=preset, invites=(bo.user_id,))
        join_rule, history, guests = PRESETS[preset]
        assert house.content(room, "m.room.join_rules") == {"join_rule": join_rule}
        assert house.content(room, "m.room.history_visibility") == {"history_visibility": history}
        kinds = [event.type for event in created(house, room)]
        assert ("m.room.guest_access" in kinds) == (guests == "can_join")  # else out by default
        users = {ann.user_id: 100}
        if preset == "trusted_private_chat":
            users[bo.user_id] = 100
        assert house.content(room, "m.room.power_levels")["users"] == users


@pytest.mark.parametrize("preset", PRESETS)
async def test_version_12_has_creators_instead_of_levels(preset):
    """[A7.05]: creators are not in `users`; trusted invitees are creators; tombstones need 150."""
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        room = await house.room(
            ann,
            version="12",
            preset=preset,
            invites=(bo.user_id, cy.user_id),
            creation_content={"additional_creators": ["@old:far.test", bo.user_id]},
        )
        creators = ["@old:far.test", bo.user_id]
        if preset == "trusted_private_chat":
            creators.append(cy.user_id)
        assert house.content(room, "m.room.create")["additional_creators"] == creators
        levels = house.content(room, "m.room.power_levels")
        assert levels["users"] == {}
        assert levels["events"]["m.room.tombstone"] == 150 > levels["state_default"]


@pytest.mark.parametrize("version", BEFORE_12)
async def test_before_version_12_additional_creators_mean_nothing(version):
    """A creation_content key of version 12 passes through, and gives no power."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(
            ann,
            version=version,
            creation_content={"additional_creators": [bo.user_id]},
            invites=(bo.user_id,),
        )
        await house.join(bo, room)
        with pytest.raises(Forbidden):
            await house.set_state(bo, room, "m.room.name", "", {"name": "mine"})


@pytest.mark.parametrize(
    ("override", "tombstone"),
    [
        ({}, 150),
        ({"state_default": 170}, 171),
        ({"events": {"m.room.name": 10}}, 150),
        ({"events": {"m.room.name": 10}, "state_default": 150}, 151),
        ({"events": {"m.room.tombstone": 120}}, 120),
    ],
)
async def test_tombstones_need_more_than_other_state_in_version_12(override, tombstone):
    """[A7.05] holds under overrides too, unless the client names a level of its own."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann, version="12", power_levels=override)
        levels = house.content(room, "m.room.power_levels")
        assert levels["events"]["m.room.tombstone"] == tombstone
        assert tombstone > levels["state_default"]
        assert levels | {"events": 0} == levels | override | {"events": 0}


async def test_overrides_replace_whole_entries_of_the_default_levels():
    """[A7.01] step 3: laid on top of the default content."""
    async with household() as house:
        ann = await house.user("ann")
        override = {"users": {ann.user_id: 110, "@bo:home.test": 20}, "invite": 7, "x": {"y": 1}}
        room = await house.room(ann, version="11", power_levels=override)
        levels = house.content(room, "m.room.power_levels")
        assert {key: levels[key] for key in override} == override
        assert levels["kick"] == 50


async def test_initial_state_beats_the_preset_and_name_and_topic_beat_initial_state():
    """[A7.03]: each slot has one event, but for the two that name and topic replace."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(
            ann,
            preset="public_chat",
            name="New",
            topic="new",
            initial_state=(
                draft("m.room.name", name="Old"),
                draft("m.room.topic", topic="old"),
                draft("m.room.join_rules", join_rule="knock"),
                draft("m.room.history_visibility", history_visibility="joined"),
                draft("m.room.guest_access", guest_access="can_join"),
                draft("m.room.encryption", algorithm="m.megolm.v1.aes-sha2"),
            ),
        )
        assert house.content(room, "m.room.join_rules") == {"join_rule": "knock"}
        assert house.content(room, "m.room.history_visibility")["history_visibility"] == "joined"
        assert house.content(room, "m.room.guest_access")["guest_access"] == "can_join"
        assert house.content(room, "m.room.name") == {"name": "New"}
        text = [{"body": "new", "mimetype": "text/plain"}]
        wanted = {"topic": "new", "m.topic": {"m.text": text}}
        assert house.content(room, "m.room.topic") == wanted
        kinds = [event.type for event in created(house, room)]
        assert kinds.count("m.room.join_rules") == kinds.count("m.room.guest_access") == 1
        assert kinds.count("m.room.name") == kinds.count("m.room.topic") == 2


async def test_a_preset_entry_with_another_state_key_does_not_hide_the_preset():
    """Only the slot with the empty key is the preset's."""
    async with household() as house:
        ann = await house.user("ann")
        initial = (draft("m.room.join_rules", "x", join_rule="public"),)
        room = await house.room(ann, preset="private_chat", initial_state=initial)
        assert house.content(room, "m.room.join_rules") == {"join_rule": "invite"}


async def test_direct_chats_are_marked_in_the_invitations():
    """[A7.03], and the invitee's profile is in the invitation ([C10.07])."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")

        def rename(tx: Any) -> None:
            account_data.set_profile_field(tx, bo.user, "displayname", b'"Bo"')

        await house.store.write(rename)
        room = await house.room(
            ann, preset="trusted_private_chat", invites=(bo.user_id,), is_direct=True
        )
        assert house.content(room, "m.room.member", bo.user_id) == {
            "membership": "invite",
            "is_direct": True,
            "displayname": "Bo",
        }
        assert house.content(room, "m.room.member", ann.user_id) == {"membership": "join"}


async def test_the_alias_leads_to_the_room_and_the_room_is_listed():
    """`room_alias_name` and `visibility`."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann, alias="#pub:home.test", published=True)
        target = house.store.read(rooms.alias_target, "#pub:home.test")
        assert target == (house.room_id(room), ann.user)
        assert house.content(room, "m.room.canonical_alias") == {"alias": "#pub:home.test"}
        assert house.store.read(rooms.published) == [room]


# --- what cannot be granted


async def refused(house: House, who: Any, error: type[MatrixError], **wanted: Any) -> MatrixError:
    """The error of a request, which must leave no trace in the database or in memory."""
    before, position = house.everything(), house.store.doorbell.position
    with pytest.raises(error) as caught:
        await house.room(who, **wanted)
    assert caught.type is error
    assert house.everything() == before
    assert house.store.doorbell.position == position
    # What is in memory must not know more than the file either.
    known = {
        "rooms": (house.store.caches.rooms.numbers, names.room_nid),
        "slots": (house.store.caches.slots.numbers, names.slot_nid),
    }
    cached = {kind: dict(numbers) for kind, (numbers, _) in known.items()}
    house.store.caches.clear()
    for kind, (_, read) in known.items():
        for name, nid in cached[kind].items():
            assert house.store.read(read, name) == nid
    return caught.value


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_a_taken_alias_leaves_nothing_behind(version):
    """[A7.07]: the whole room is rolled back; the alias stays where it is."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        first = await house.room(ann, version=version, alias="#den:home.test")
        await refused(house, bo, RoomInUse, version=version, alias="#den:home.test", name="Second")
        target = house.store.read(rooms.alias_target, "#den:home.test")
        assert target == (house.room_id(first), ann.user)
        await house.room(bo, version=version, alias="#other:home.test")


@pytest.mark.parametrize("version", ["13", "0", "", "org.example.1"])
async def test_unknown_versions(version):
    """[A1.05], T018."""
    async with household() as house:
        ann = await house.user("ann")
        await refused(house, ann, UnsupportedRoomVersion, version=version)


@pytest.mark.parametrize("version", ["1", "9", "10", "11"])
@pytest.mark.parametrize(
    ("override", "extra"),
    [
        ({"users": {}}, {}),  # nothing can follow
        ({"users": {"@ann:home.test": 49}}, {"name": "N"}),
        ({"events": {"m.room.topic": 101}}, {"topic": "T"}),
        ({"state_default": 101}, {}),
        ({"events": {"m.room.canonical_alias": 101}}, {"alias": "#a:home.test"}),
        ({"invite": 101}, {"invites": ("@bo:home.test",)}),
        ({"events": {"x.y": 101}}, {"initial_state": (draft("x.y"),)}),
    ],
)
async def test_an_override_that_forbids_a_later_step(version, override, extra):
    """[A7.02]."""
    async with household() as house:
        ann = await house.user("ann")
        await house.user("bo")
        await refused(house, ann, InvalidRoomState, version=version, power_levels=override, **extra)


async def test_creators_cannot_be_given_levels_in_version_12():
    """[A5.19] seen from createRoom."""
    async with household() as house:
        ann = await house.user("ann")
        levels = {"users": {ann.user_id: 100}}
        await refused(house, ann, InvalidRoomState, version="12", power_levels=levels)


async def test_creators_are_above_what_overrides_demand_in_version_12():
    """What is out of reach before version 12 stays possible for creators."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        levels = {"state_default": 1000, "invite": 2000, "events_default": 3000}
        room = await house.room(
            ann, version="12", name="N", power_levels=levels, invites=(bo.user_id,)
        )
        await house.say(ann, room, "hello")
        await house.join(bo, room)
        with pytest.raises(Forbidden):
            await house.say(bo, room, "hello")


@pytest.mark.parametrize(
    "creators", ["@bo:home.test", ["bo"], [5], {"@bo:home.test": True}, ["@bo:home.test", None]]
)
@pytest.mark.parametrize("preset", ["private_chat", "trusted_private_chat"])
async def test_odd_additional_creators(creators, preset):
    """[A5.01]: only a list of user ids makes a version 12 room."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await refused(
            house,
            ann,
            InvalidRoomState,
            preset=preset,
            invites=(bo.user_id,),
            creation_content={"additional_creators": creators},
        )


@pytest.mark.parametrize("version", ["1", "6", "9", "10", "12"])
@pytest.mark.parametrize(
    "levels",
    [
        {"ban": "50"},
        {"kick": None},
        {"redact": True},
        {"users_default": 1.5},
        {"events": {"m.room.name": "50"}},
        {"events": []},
        {"notifications": {"room": 20.0}},
        {"users": {"@bo:home.test": "100"}},
        {"users": ["@bo:home.test"]},
        {"invite": [50]},
    ],
)
async def test_our_clients_cannot_send_levels_that_are_no_integers(version, levels):
    """[C10.03], [A5.24], T025: whatever the version, by createRoom and later."""
    async with household() as house:
        ann = await house.user("ann")
        await refused(house, ann, BadJson, version=version, power_levels=levels)
        initial = (StateDraft("m.room.power_levels", "", levels),)
        await refused(house, ann, BadJson, version=version, initial_state=initial)
        room = await house.room(ann, version=version)
        present = house.content(room, "m.room.power_levels")
        with pytest.raises(BadJson):
            await house.set_state(ann, room, "m.room.power_levels", "", present | levels)


async def test_the_initial_state_cannot_make_a_second_room_or_other_members():
    """Auth rules and membership functions hold for initial state too ([A7.02], [C10.04])."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await refused(house, ann, InvalidRoomState, initial_state=(draft("m.room.create"),))
        joined = draft("m.room.member", bo.user_id, membership="join")
        await refused(house, ann, InvalidRoomState, initial_state=(joined,))
        own = draft("x.own", bo.user_id)
        await refused(house, ann, InvalidRoomState, initial_state=(own,))
        unknown = draft("m.room.member", "@nobody:home.test", membership="invite")
        await refused(house, ann, NotFound, initial_state=(unknown,))
        banned = draft("m.room.member", "@mallory:evil.test", membership="ban")
        room = await house.room(ann, initial_state=(banned,))
        assert house.membership(room, "@mallory:evil.test") == "ban"


async def test_blocked_and_unknown_invitees():
    """[A7.07]: M_INVITE_BLOCKED, by `invite` and by initial state."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        await block_invites(house, bo)
        await refused(house, ann, InviteBlocked, invites=(bo.user_id,))
        entry = draft("m.room.member", bo.user_id, membership="invite")
        await refused(house, ann, InviteBlocked, initial_state=(entry,))
        await refused(house, ann, NotFound, invites=("@nobody:home.test",))


async def block_invites(house: House, who: Any) -> None:
    def write(tx: Any) -> None:
        content = encode({"default_action": "block"})
        account_data.put(
            tx, who.user, Entry(GLOBAL, "m.invite_permission_config", content, tx.position())
        )

    await house.store.write(write)


async def test_a_canonical_alias_in_the_initial_state_must_lead_to_the_room():
    """[C10.02] holds for createRoom as well (T041)."""
    async with household() as house:
        ann = await house.user("ann")
        await house.room(ann, alias="#den:home.test")
        stolen = draft("m.room.canonical_alias", alias="#den:home.test")
        await refused(house, ann, BadAlias, initial_state=(stolen,))
        entry = draft("m.room.canonical_alias", alias="#new:home.test", alt_aliases=[])
        room = await house.room(ann, alias="#new:home.test", initial_state=(entry,))
        assert house.content(room, "m.room.canonical_alias")["alias"] == "#new:home.test"


async def test_too_large_requests():
    """[A3.05]: 413, and nothing is left."""
    async with household() as house:
        ann = await house.user("ann")
        await refused(house, ann, TooLarge, topic="x" * 65_536)
        await refused(house, ann, TooLarge, creation_content={"x": "y" * 65_536})
        await refused(house, ann, TooLarge, initial_state=(draft("x" * 256),))


async def test_equal_rooms_in_one_millisecond_are_two_rooms():
    """T023: equal requests at one moment make rooms with different ids."""
    async with household(clock=StoppedClock()) as house:
        ann = await house.user("ann")
        nids = [await house.room(ann, version="12") for _ in range(20)]
        assert len({house.room_id(nid) for nid in nids}) == 20
        times = {event.origin_server_ts for nid in nids for event in created(house, nid)}
        assert times == {1_700_000_000_000}


async def test_the_version_outlives_the_redaction_of_the_create_event():
    """T018, [A4.12]: up to version 10 the create event loses its version; the room does not."""
    for version in ("1", "5", "10", "11", "12"):
        async with household() as house:
            ann = await house.user("ann")
            room = await house.room(ann, version=version)
            create = house.state(room)["m.room.create", ""]
            with pytest.raises(Forbidden):
                await house.redact(ann, room, create.event.event_id)

            def prune(tx: Any, create: Any = create) -> None:
                from matrixbox.core.redaction import redacted

                events.redact(tx, create.nid, redacted(create.event).json, create.nid)

            await house.store.write(prune)
            house.store.caches.clear()
            assert house.store.read(rooms.rules, room).version == version
            content = house.content(room, "m.room.create")
            assert ("room_version" in content) is (int(version) >= 11)
            await house.say(ann, room, "still here")
            await house.set_state(ann, room, "m.room.name", "", {"name": "still mine"})
