"""What gateways are told, when, and what they are not told.

Matrix v1.19, Push Gateway API ([E.02] to [E.07]); T105, T108, T111, T132.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing

from matrixbox.accounts import sessions
from matrixbox.core.json import encode
from matrixbox.core.push_rules import Kind, PushRule
from matrixbox.errors import RemoteRefused
from matrixbox.rooms import counts, push_rules
from matrixbox.rooms.outside import Notice
from matrixbox.rooms.outside import put as put_outside
from matrixbox.store import account_data, accounts
from matrixbox.store.account_data import GLOBAL, Entry
from tests.push.household import URL, failing, pushing, unreachable

SOON = 0.1
DAY_S = 24 * 3600


async def two(pushed, **wanted):
    """Two people in a room, and the room."""
    alice, bob = [await pushed.house.user(name) for name in ("alice", "bob")]
    room = await pushed.house.room(alice, preset="public_chat", **wanted)
    await pushed.house.join(bob, room)
    return alice, bob, room


async def test_a_message_is_told_with_all_that_the_gateway_api_names(autojump_clock):
    """E.02."""
    async with pushing() as it:
        alice, bob, room = await two(it, name="The kitchen")
        await it.house.set_state(
            alice, room, "m.room.member", alice.user_id, {"membership": "join", "displayname": "Al"}
        )
        key = await it.pusher(bob, custom={"a": 1})
        set_s = it.house.env.clock.now_ms() // 1000
        sent = await it.house.say(alice, room, "hello", msgtype="m.text")
        await trio.sleep(SOON)
        assert it.gateway.of(key) == [
            {
                "event_id": sent.event.event_id,
                "room_id": it.house.room_id(room),
                "type": "m.room.message",
                "sender": alice.user_id,
                "sender_display_name": "Al",
                "room_name": "The kitchen",
                "prio": "high",
                "content": {"body": "hello", "msgtype": "m.text"},
                "counts": {"unread": 1},
                "devices": [
                    {
                        "app_id": "test.app",
                        "pushkey": key,
                        "pushkey_ts": set_s,
                        "data": {"custom": {"a": 1}},
                        "tweaks": {"sound": "default"},
                    }
                ],
            }
        ]


async def test_t111_a_pusher_that_wants_ids_only_gets_no_more(autojump_clock):
    """E.03."""
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob, format="event_id_only")
        sent = await it.house.say(alice, room, "a secret")
        await trio.sleep(SOON)
        (told,) = it.gateway.of(key)
        assert set(told) == {"event_id", "room_id", "counts", "devices"}
        assert told["event_id"] == sent.event.event_id
        assert told["devices"][0]["data"] == {"format": "event_id_only"}
        assert "a secret" not in str(told)


async def test_mentions_are_highlighted_and_own_messages_never_told(autojump_clock):
    """E.07, C14.01."""
    async with pushing() as it:
        alice, bob, room = await two(it)
        keys = [await it.pusher(who) for who in (alice, bob)]
        await it.house.say(alice, room, "bob!", **{"m.mentions": {"user_ids": [bob.user_id]}})
        await trio.sleep(SOON)
        assert it.gateway.of(keys[0]) == []
        (told,) = it.gateway.of(keys[1])
        assert told["devices"][0]["tweaks"] == {"sound": "default", "highlight": True}


async def test_events_are_told_in_order_with_growing_counts(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        it.gateway.takes_s = 0.05
        sent = [(await it.house.say(alice, room, str(n))).event.event_id for n in range(10)]
        await trio.sleep(2)
        assert it.gateway.events(key) == sent
        assert it.gateway.of(key)[-1]["counts"] == {"unread": 10}


async def test_what_was_said_before_the_pusher_was_set_is_not_told(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        await it.house.say(alice, room, "before")
        key = await it.pusher(bob)
        await trio.sleep(2)
        assert it.gateway.of(key) == []


async def test_reading_clears_the_badge_once_all_is_read(autojump_clock):
    """E.04: a count alone, and zero as well."""
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        said = [await it.house.say(alice, room, str(n)) for n in range(3)]
        await trio.sleep(SOON)
        assert it.gateway.badges(key) == []
        await it.read(bob, room, said[1])
        await trio.sleep(2)
        assert it.gateway.badges(key) == [1]
        await it.read(bob, room, said[2])
        await trio.sleep(2)
        assert it.gateway.badges(key) == [1, 0]
        told = it.gateway.of(key)[-1]
        assert set(told) == {"prio", "counts", "devices"}
        await it.house.say(bob, room, "an answer")
        await trio.sleep(5)
        assert it.gateway.badges(key) == [1, 0]


async def test_who_writes_has_read(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        await it.house.say(alice, room, "one")
        await trio.sleep(SOON)
        await it.house.say(bob, room, "two")
        await trio.sleep(2)
        assert it.gateway.badges(key) == [0]


async def test_the_count_is_over_all_rooms_and_without_those_that_were_left(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        other = await it.house.room(alice, preset="public_chat")
        await it.house.join(bob, other)
        key = await it.pusher(bob)
        await it.house.say(alice, room, "one")
        await it.house.say(alice, other, "two")
        await trio.sleep(SOON)
        assert it.gateway.of(key)[-1]["counts"] == {"unread": 2}
        await it.house.leave(bob, room)
        await trio.sleep(2)
        assert it.gateway.badges(key) == [1]


async def test_a_redacted_message_is_not_counted_and_not_told(autojump_clock):
    """T133."""
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        it.gateway.answers[URL] = unreachable()
        sent = await it.house.say(alice, room, "a slip")
        await trio.sleep(SOON)
        await it.house.redact(alice, room, sent.event.event_id)
        it.gateway.answers.clear()
        it.gateway.told.clear()
        await trio.sleep(60)
        assert it.gateway.events(key) == []


async def test_what_was_read_meanwhile_is_not_told(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        it.gateway.answers[URL] = unreachable()
        sent = await it.house.say(alice, room, "read elsewhere")
        await trio.sleep(SOON)
        await it.read(bob, room, sent)
        it.gateway.answers.clear()
        it.gateway.told.clear()
        await trio.sleep(60)
        assert it.gateway.of(key) == []


async def test_t105_nothing_is_told_after_a_user_has_left(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        it.gateway.answers[URL] = unreachable()
        await it.house.say(alice, room, "last words")
        await trio.sleep(SOON)
        await it.house.kick(alice, room, bob.user_id)
        it.gateway.answers.clear()
        it.gateway.told.clear()
        await it.house.say(alice, room, "without bob")
        await trio.sleep(60)
        assert it.gateway.events(key) == []


async def test_t108_nothing_is_told_of_ignored_users(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        ignored = encode({"ignored_users": {alice.user_id: {}}})

        def ignore(tx):
            kind = "m.ignored_user_list"
            account_data.put(tx, bob.user, Entry(GLOBAL, kind, ignored, tx.position()))

        await it.house.store.write(ignore)
        await it.house.say(alice, room, "psst")
        other = await it.house.room(alice)
        await it.house.invite(alice, other, bob.user_id)
        await trio.sleep(5)
        assert it.gateway.of(key) == []


async def test_an_invitation_here_is_told_without_the_room_inside(autojump_clock):
    async with pushing() as it:
        alice, bob = [await it.house.user(name) for name in ("alice", "bob")]
        key = await it.pusher(bob)
        room = await it.house.room(alice, name="Plans")
        await it.house.invite(alice, room, bob.user_id)
        await it.house.say(alice, room, "not for bob yet")
        await trio.sleep(SOON)
        (told,) = it.gateway.of(key)
        assert (told["type"], told["user_is_target"]) == ("m.room.member", True)
        assert (told["room_name"], told["counts"]) == ("Plans", {})


async def test_an_invitation_to_a_room_elsewhere_is_told(autojump_clock):
    async with pushing() as it:
        bob = await it.house.user("bob")
        key = await it.pusher(bob)
        notice = invitation_from_elsewhere(bob.user_id)
        await it.house.write(put_outside, notice, bob.user)
        await trio.sleep(SOON)
        (told,) = it.gateway.of(key)
        assert told["event_id"] == notice.event.event_id
        assert (told["sender"], told["user_is_target"]) == ("@carol:far.test", True)
        assert told["room_name"] == "Far away"
        assert told["devices"][0]["tweaks"] == {"sound": "default"}


def invitation_from_elsewhere(user_id):
    from matrixbox.core.events import parse_event
    from matrixbox.core.room_versions import ROOM_VERSIONS

    rules = ROOM_VERSIONS["11"]
    event = parse_event(
        rules,
        {
            "type": "m.room.member",
            "room_id": "!far:far.test",
            "sender": "@carol:far.test",
            "state_key": user_id,
            "content": {"membership": "invite"},
            "origin_server_ts": 1,
            "depth": 5,
            "prev_events": [],
            "auth_events": [],
            "hashes": {"sha256": "x"},
            "signatures": {},
        },
    )
    name = {
        "type": "m.room.name",
        "state_key": "",
        "sender": "@carol:far.test",
        "content": {"name": "Far away"},
    }
    return Notice(rules, event, [name], ["far.test"])


# --- gateways that fail


async def test_t132_a_dead_gateway_is_asked_less_and_less_and_told_the_newest_only(autojump_clock):
    """E.05."""
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        it.gateway.answers[URL] = unreachable()
        said = [(await it.house.say(alice, room, str(n))).event.event_id for n in range(30)]
        await trio.sleep(3600)
        tries = [at for at, _, _ in it.gateway.told]
        pauses = [later - earlier for earlier, later in pairwise(tries)]
        assert 8 <= len(tries) <= 14
        assert all(b > a for a, b in pairwise(pauses))
        it.gateway.answers.clear()
        it.gateway.told.clear()
        await trio.sleep(4 * 3600)
        assert it.gateway.events(key)[-1] == said[-1]
        assert len(it.gateway.events(key)) <= 2  # the first was at work already
        assert it.gateway.of(key)[-1]["counts"] == {"unread": 30}


async def test_t132_a_dead_gateway_holds_up_nobody_else(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        dead = "https://dead.test/_matrix/push/v1/notify"
        it.gateway.answers[dead] = lambda _: b"silence"
        for number in range(50):
            await it.pusher(bob, f"dead{number}", dead)
        key = await it.pusher(bob)
        for number in range(5):
            at = trio.current_time()
            await it.house.say(alice, room, str(number))
            await trio.sleep(SOON)
            assert [when for when, url, _ in it.gateway.told if url == URL][-1] - at < SOON
            await trio.sleep(1)
        assert len(it.gateway.events(key)) == 5
        assert it.gateway.most_under_way <= 8


async def test_t132_a_pusher_whose_gateway_is_dead_for_a_month_is_removed(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        await it.pusher(bob, "dead")
        await it.pusher(bob, "alive", "https://other.test/_matrix/push/v1/notify")
        it.gateway.answers[URL] = unreachable()
        for day in range(33):
            assert it.pushers(bob) == (["dead", "alive"] if day < 30 else it.pushers(bob))
            await it.house.say(alice, room, "good morning")
            await trio.sleep(DAY_S)
        assert it.pushers(bob) == ["alive"]


async def test_rejected_pushkeys_are_removed_and_only_ours(autojump_clock):
    """E.05, T132."""
    async with pushing() as it:
        alice, bob, room = await two(it)
        await it.pusher(bob, "one")
        await it.pusher(bob, "two", "https://other.test/_matrix/push/v1/notify")
        await it.pusher(alice, "three", "https://other.test/_matrix/push/v1/notify")
        it.gateway.answers[URL] = lambda _: b'{"rejected":["one","two","three"]}'
        await it.house.say(alice, room, "hello")
        await trio.sleep(SOON)
        assert it.pushers(bob) == ["two"]
        assert it.pushers(alice) == ["three"]
        await it.house.say(alice, room, "again")
        await trio.sleep(5)
        assert len(it.gateway.of("one")) == 1
        assert len(it.gateway.of("two")) == 2


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"rejected":5}', b'{"rejected":{}}'])
async def test_t132_nonsense_is_no_delivery(answer, autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        it.gateway.answers[URL] = lambda _: answer
        await it.house.say(alice, room, "hello")
        await trio.sleep(SOON)
        assert len(it.gateway.events(key)) == 1
        it.gateway.answers.clear()
        await trio.sleep(5)
        assert len(it.gateway.events(key)) == 2
        assert it.pushers(bob) == [key]


async def test_error_statuses_are_tried_again_and_one_pusher_does_not_stop_another(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        keys = [await it.pusher(who, who.user_id) for who in (bob, alice)]

        def answer(told):
            if told["devices"][0]["pushkey"] == keys[0]:
                raise RemoteRefused(URL, "no", status=502)
            return b"{}"

        it.gateway.answers[URL] = answer
        await it.house.say(alice, room, "one")
        for n in range(5):
            await it.house.say(bob, room, str(n))
        await trio.sleep(4)
        assert len(it.gateway.events(keys[1])) == 5
        assert 2 <= len(it.gateway.events(keys[0])) <= 4


async def test_a_gateway_that_comes_back_is_noticed_by_all_its_pushers(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        keys = [await it.pusher(bob, f"k{n}") for n in range(3)]
        it.gateway.answers[URL] = unreachable()
        await it.house.say(alice, room, "hello")
        await trio.sleep(DAY_S / 2)
        it.gateway.answers.clear()
        it.gateway.told.clear()
        # One of them is set anew, as apps do when they are opened.
        await trio.sleep(1)
        await it.pusher(bob, keys[0])
        await trio.sleep(SOON)
        assert all(len(it.gateway.events(key)) == 1 for key in keys)


async def test_setting_a_pusher_again_tries_again_at_once(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        it.gateway.answers[URL] = failing(RemoteRefused(URL, "no", status=500))
        await it.house.say(alice, room, "hello")
        await trio.sleep(DAY_S / 2)
        new = "https://new.test/_matrix/push/v1/notify"
        await it.pusher(bob, key, new)
        await trio.sleep(SOON)
        assert [url for _, url, _ in it.gateway.told][-1] == new
        assert len(it.pushers(bob)) == 1


# --- restarts


async def test_what_was_not_sent_is_sent_after_a_restart_and_nothing_twice(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        first = await it.house.say(alice, room, "one")
        await trio.sleep(1)
        await it.stop()
        second = await it.house.say(alice, room, "two")
        await it.start()
        await trio.sleep(SOON)
        assert it.gateway.events(key) == [one.event.event_id for one in (first, second)]
        await it.stop()
        await it.start()
        await trio.sleep(60)
        assert len(it.gateway.of(key)) == 2


async def test_a_badge_that_changed_while_nobody_sent_is_told_after_the_start(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)
        said = await it.house.say(alice, room, "one")
        await trio.sleep(1)
        await it.stop()
        await it.read(bob, room, said)
        await it.start()
        await trio.sleep(2)
        assert it.gateway.badges(key) == [0]


async def test_a_pause_outlasts_a_restart(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        await it.pusher(bob)
        it.gateway.answers[URL] = unreachable()
        await it.house.say(alice, room, "hello")
        await trio.sleep(DAY_S)
        tries = len(it.gateway.told)
        await it.stop()
        await it.start()
        await trio.sleep(600)
        assert len(it.gateway.told) == tries


# --- whose pushers they are


async def test_t103_removing_a_device_removes_its_pushers(autojump_clock):
    async with pushing() as it:
        alice, bob, room = await two(it)
        await it.pusher(bob, "phone")

        def second(tx):
            account = accounts.get(tx, bob.user)
            opened = sessions.open_session(tx, account, None, None)
            return sessions.authenticate(tx, opened.access_token)

        tablet = await it.house.store.write(second)
        await it.pusher(tablet, "tablet")
        await it.house.store.write(sessions.log_out, bob)
        assert it.pushers(bob) == ["tablet"]
        await it.house.say(alice, room, "hello")
        await trio.sleep(SOON)
        assert it.gateway.of("phone") == []
        assert len(it.gateway.of("tablet")) == 1


async def test_a_pusher_is_taken_from_other_users_unless_it_is_appended(autojump_clock):
    """E.06: a phone has one user at a time, unless its app says otherwise."""
    async with pushing() as it:
        alice, bob, _ = await two(it)
        await it.pusher(alice, "shared")
        await it.pusher(bob, "shared", append=True)
        assert (it.pushers(alice), it.pushers(bob)) == (["shared"], ["shared"])
        await it.pusher(bob, "shared", append=False)
        assert (it.pushers(alice), it.pushers(bob)) == ([], ["shared"])


# --- counts


async def test_t133_the_badge_is_what_counting_anew_says(autojump_clock):
    """Random actions; what the service knows equals a count from scratch."""
    import random

    chance = random.Random(7)
    async with pushing() as it:
        alice, bob, room = await two(it)
        other = await it.house.room(alice, preset="public_chat")
        await it.house.join(bob, other)
        key = await it.pusher(bob)
        said = {room: [], other: []}
        for _ in range(150):
            where = chance.choice([room, other])
            done = chance.random()
            if done < 0.5:
                said[where].append(await it.house.say(alice, where, "x"))
            elif done < 0.6:
                await it.house.say(bob, where, "y")
            elif done < 0.8 and said[where]:
                await it.read(bob, where, chance.choice(said[where]))
            elif done < 0.9 and said[where]:
                gone = said[where].pop(chance.randrange(len(said[where])))
                await it.house.redact(alice, where, gone.event.event_id)
            else:
                await trio.sleep(chance.random() * 2)
        await trio.sleep(5)
        store = it.house.store

        def anew(tx):
            tx.caches.unread.clear()
            found = [counts.unread(tx, bob.user, one, store.doorbell.position) for one in said]
            return sum(one.total.notifications for one in found)

        assert it.gateway.of(key)[-1]["counts"].get("unread", 0) == store.read(anew)


async def test_t133_the_actions_of_the_rule_that_matched_stay_with_the_event(autojump_clock):
    """What is changed about the rules later changes nothing about what was told."""
    async with pushing() as it:
        alice, bob, room = await two(it)
        key = await it.pusher(bob)

        def rule(actions):
            one = PushRule("x", tuple(actions), conditions=(), enabled=True)

            def change(tx):
                push_rules.store(tx, bob.user, {Kind.OVERRIDE: [one]}, {})

            return change

        await it.house.store.write(rule(["notify", {"set_tweak": "sound", "value": "bells"}]))
        it.gateway.answers[URL] = unreachable()
        sent = await it.house.say(alice, room, "x")
        await it.house.store.write(rule([]))
        it.gateway.answers.clear()
        await trio.sleep(5)
        assert it.gateway.of(key)[-1]["devices"][0]["tweaks"] == {"sound": "bells"}
        assert list(counts.notified(sent.notify)) == [bob.user]
        await it.house.say(alice, room, "y")
        await trio.sleep(5)
        assert it.gateway.events(key)[-1] == sent.event.event_id

        await it.house.store.write(rule(["notify", {"set_tweak": "sound", "value": "b" * 2000}]))
        long = await it.house.say(alice, room, "z")
        found = it.house.store.read(counts.actions_for, long.notify, bob.user)
        assert found == ["notify"]
