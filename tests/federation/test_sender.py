"""What other servers are sent, in which order, how often, and what happens when they fail."""

from __future__ import annotations

import copy
import json
from itertools import pairwise

import pytest
import trio

from matrixbox.core.identifiers import UserId
from matrixbox.federation import places, transactions
from matrixbox.rooms import distribution, ingest
from matrixbox.rooms.build import Draft
from matrixbox.store import outbound
from matrixbox.store.events import Status
from tests.federation.sending import sending


async def test_an_event_goes_to_the_servers_in_its_room_alone(autojump_clock):
    """[B5.01]: everybody in the room gets it, once, and nobody else."""
    async with sending() as world:
        room = await world.room("far.test", "other.test")
        await world.room("third.test")
        await world.settle()
        for peer in world.peers.values():
            peer.taken.clear()
        event_id = await world.say(room)
        await world.settle()
        for name in ("far.test", "other.test"):
            (pdu,) = world.peers[name].pdus
            assert pdu["content"] == {"body": "hello"}
            assert "unsigned" not in pdu
        assert world.peers["third.test"].pdus == []
        assert event_id


async def test_rooms_without_others_cost_nothing(autojump_clock):
    async with sending() as world:
        room = await world.room()
        await world.say(room)
        await world.settle()
        assert world.peers == {}
        assert world.house.store.read(lambda tx: tx.run("SELECT * FROM outbound_event")) == []


async def test_a_burst_goes_out_in_order_with_at_most_50_in_a_transaction(autojump_clock):
    """[B5.01], [B5.02]: in order, one transaction at a time."""
    async with sending() as world:
        room = await world.room("far.test")
        world.peers["far.test"].takes_s = 1.0
        texts = [f"message {number}" for number in range(130)]
        for text in texts:
            await world.say(room, text)
        await world.settle(20)
        far = world.peers["far.test"]
        assert far.texts == texts
        assert max(len(body["pdus"]) for body in far.taken.values()) == 50
        assert len(far.asked) == len(far.taken)
        assert trio.current_time() < 60


# --- who gets what


async def test_whoever_is_made_to_leave_is_told_and_hears_nothing_after_that(autojump_clock):
    """A kick, a ban and a withdrawn invitation reach the user's server ([B9.12], T105)."""
    async with sending() as world:
        house, peers = world.house, world.peers
        room = await world.room("kicked.test", "banned.test", "stays.test")
        await world.settle()
        await house.kick(world.ann, room, UserId("@x:kicked.test"))
        await house.ban(world.ann, room, UserId("@x:banned.test"))
        await world.say(room, "in private")
        await world.settle()
        for name, word in (("kicked.test", "leave"), ("banned.test", "ban")):
            last = peers[name].pdus[-1]
            assert (last["type"], last["state_key"]) == ("m.room.member", f"@x:{name}")
            assert last["content"]["membership"] == word
            assert peers[name].texts == []
        assert peers["stays.test"].texts == ["in private"]


async def test_a_withdrawn_invitation_reaches_a_server_outside_the_room(autojump_clock):
    """[B9.12]."""
    async with sending() as world:
        room = await world.room()
        guest = UserId("@x:far.test")

        def invite(tx, env):
            content = {"membership": "invite"}
            draft = Draft("m.room.member", world.ann.user_id, content, guest)
            return ingest.send(tx, env, room, draft)

        await world.house.write(invite)
        await world.say(room, "between us")
        await world.house.kick(world.ann, room, guest)
        await world.say(room, "and this")
        await world.settle()
        (pdu,) = world.peers["far.test"].pdus
        assert pdu["content"]["membership"] == "leave"


async def test_a_ban_of_a_stranger_is_not_told_to_his_server(autojump_clock):
    async with sending() as world:
        room = await world.room("far.test")
        await world.house.ban(world.ann, room, UserId("@y:never.test"))
        await world.settle()
        assert "never.test" not in world.peers
        assert len(world.peers["far.test"].pdus) == 1


async def test_what_was_sent_while_a_server_was_in_the_room_is_owed_after_it_left(autojump_clock):
    async with sending() as world:
        room = await world.room("far.test", "other.test")
        far = world.peers["far.test"]
        far.up = False
        await world.say(room, "before")
        await world.settle(1)
        left = {"membership": "leave"}
        await world.from_afar(room, "@x:far.test", "m.room.member", left, "@x:far.test")
        await world.say(room, "after")
        far.up = True
        await world.settle(200)
        assert far.texts == ["before"]
        assert world.peers["other.test"].texts == ["before", "after"]


async def test_a_server_that_comes_gets_what_is_sent_from_then_on(autojump_clock):
    async with sending() as world:
        room = await world.room("far.test")
        await world.say(room, "before")
        await world.comes(room, "@x:late.test")
        await world.comes(room, "@y:late.test")  # a second user changes nothing
        await world.say(room, "after")
        await world.settle()
        assert world.peers["late.test"].texts == ["after"]


async def test_an_event_let_in_for_another_server_goes_to_all_but_that_one(autojump_clock):
    """A join through us is told to the others ([B8.07])."""
    async with sending() as world:
        room = await world.room("far.test", "other.test")
        joined = await world.comes(room, "@x:new.test")
        await world.house.write(distribution.distribute, joined)
        await world.settle()
        assert "new.test" not in world.peers
        for name in ("far.test", "other.test"):
            assert [pdu["state_key"] for pdu in world.peers[name].pdus] == ["@x:new.test"]


async def test_what_failed_a_check_is_never_sent(autojump_clock):
    async with sending() as world:
        room = await world.room("far.test", "other.test")
        stored = await world.from_afar(room, "@x:far.test", "m.room.message", {"body": "x"})
        for status in (Status.SOFT_FAILED, Status.REJECTED, Status.OUTLIER):
            failed = copy.copy(stored)
            failed.status = int(status)
            await world.house.write(distribution.distribute, failed)
        await world.settle()
        assert world.peers == {}


async def test_what_was_redacted_meanwhile_is_sent_without_its_content(autojump_clock):
    """T040."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.up = False
        event_id = await world.say(room, "secret")
        await world.settle(1)
        await world.house.redact(world.ann, room, event_id)
        far.up = True
        await world.settle(200)
        assert [pdu["type"] for pdu in far.pdus] == ["m.room.message", "m.room.redaction"]
        assert far.pdus[0]["content"] == {}


# --- failures


async def test_a_server_that_is_down_is_tried_ever_less_often_and_misses_nothing(autojump_clock):
    """T083: a minute, doubling up to a day, a fifth more or less; the same transaction again has
    the same identifier ([B5.02])."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.up = False
        await world.say(room)
        await world.settle(7 * 86_400)
        gaps = [b - a for (a, _), (b, _) in pairwise(far.asked)]
        for number, gap in enumerate(gaps):
            expected = min(60 * 2**number, 86_400)
            assert 0.8 * expected <= gap <= 1.2 * expected + 1
        assert 14 <= len(gaps) <= 20
        assert len({name for _, name in far.asked}) == 1
        far.up = True
        await world.settle(2 * 86_400)
        assert far.texts == ["hello"]


@pytest.mark.parametrize("sign", ["alive", "succeeded"])
async def test_a_sign_of_life_ends_the_waiting(autojump_clock, sign):
    """A request of theirs, or an answer to another one of ours."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.up = False
        await world.say(room)
        await world.settle(86_400)
        far.up = True
        assert not world.destinations.may_try("far.test")
        getattr(world.destinations, sign)("far.test")
        await world.settle(1)
        assert far.texts == ["hello"]
        assert world.destinations.may_try("far.test")


async def test_a_peer_that_calls_us_without_end_is_tried_once_a_minute(autojump_clock):
    """T083: it cannot be reached, and resets our back-off over and over."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.up = False
        await world.say(room)
        await world.settle(3600)
        before = len(far.asked)
        for _ in range(600):
            world.destinations.alive("far.test")
            await trio.sleep(1)
        assert 9 <= len(far.asked) - before <= 11


async def test_back_off_survives_a_restart(autojump_clock, tmp_path):
    """T083."""
    async with sending(tmp_path / "db") as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.up = False
        await world.say(room)
        await world.settle(3600)
        tries = len(far.asked)
        while len(far.asked) == tries:  # the next pause begins
            await world.settle(5)
        tries = len(far.asked)
        for _ in range(3):
            await world.restart()
            await world.settle(10)
        assert len(far.asked) == tries
        assert world.destinations.failures("far.test") == tries
        far.up = True
        await world.settle(24 * 3600)
        assert far.texts == ["hello"]


async def test_a_wall_clock_that_steps_does_not_stretch_a_pause(autojump_clock, tmp_path):
    """T152: years forward and back."""
    async with sending(tmp_path / "db", longest_s=600) as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.up = False
        await world.say(room)
        await world.settle(60)
        world.house.env.clock.step(-10 * 365 * 86_400_000)
        await world.restart()
        far.up = True
        await world.settle(800)
        assert far.texts == ["hello"]


async def test_nothing_is_lost_when_the_server_is_stopped(autojump_clock, tmp_path):
    async with sending(tmp_path / "db") as world:
        room = await world.room("far.test", "other.test")
        world.peers["far.test"].takes_s = 30.0
        for number in range(60):
            await world.say(room, str(number))
        await world.settle(1)
        await world.restart()  # the first transaction is on the way
        await world.settle(100)
        far = world.peers["far.test"]
        assert list(dict.fromkeys(far.texts)) == [str(number) for number in range(60)]
        assert world.peers["other.test"].texts == [str(number) for number in range(60)]


async def test_nothing_is_lost_when_the_server_is_killed(autojump_clock, tmp_path):
    """What was committed is sent; what was on the way comes again under the same identifier."""
    async with sending(tmp_path / "db") as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        await world.say(room, "first")
        await world.settle()
        await world.say(room, "second")
        await world.settle(0.1)  # taken, and not written down yet
        assert far.texts == ["first", "second"]
        await world.kill()
        await world.settle()
        assert far.texts == ["first", "second"]
        names = [name for _, name in far.asked]
        assert names[-1] == names[-2]
        await world.say(room, "third")
        await world.settle()
        assert far.texts == ["first", "second", "third"]


async def test_who_missed_much_is_sent_the_newest_event_of_each_room(autojump_clock):
    """T083, T154: over 500 waiting; everything after that comes in full again."""
    async with sending() as world:
        rooms = [await world.room("far.test") for _ in range(3)]
        quiet = await world.room("far.test")
        await world.say(quiet, "seen")
        await world.settle()
        far = world.peers["far.test"]
        far.up = False
        await world.say(rooms[0], "lost")
        await world.settle(900)
        for number in range(200):
            for index, room in enumerate(rooms):
                await world.say(room, f"{index}.{number}")
        await world.settle()
        far.up = True
        far.taken.clear()
        await world.settle(1800)
        assert far.texts == ["0.199", "1.199", "2.199"]
        for room in rooms:
            await world.say(room, "on")
        await world.settle()
        assert far.texts[3:] == ["on", "on", "on"]


async def test_who_missed_little_is_sent_all_of_it(autojump_clock, tmp_path):
    async with sending(tmp_path / "db") as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.up = False
        texts = [str(number) for number in range(400)]
        for text in texts:
            await world.say(room, text)
        await world.settle(500)
        await world.restart()
        far.up = True
        await world.settle(2000)
        assert list(dict.fromkeys(far.texts)) == texts


async def test_the_newest_event_of_a_room_is_never_pruned(autojump_clock):
    """What is kept of a room is more than what makes catching up begin."""
    async with sending() as world:
        room, other = await world.room("far.test"), await world.room("far.test")
        world.peers["far.test"].up = False
        await world.say(other, "alone")
        await world.settle(900)
        for number in range(outbound.KEPT_EVENTS + 50):
            await world.say(room, str(number))
        await world.house.store.write(outbound.prune)
        (kept,) = world.house.store.read(
            lambda tx: tx.one("SELECT COUNT(*) FROM outbound_event WHERE room_nid = ?", room)
        )
        assert kept == outbound.KEPT_EVENTS > transactions.CATCH_UP_OVER
        world.peers["far.test"].up = True
        await world.settle(1800)
        assert world.peers["far.test"].texts == ["alone", str(outbound.KEPT_EVENTS + 49)]


async def test_slow_and_dead_servers_do_not_delay_others(autojump_clock):
    """T155, T083: 100 that answer just below the deadline, and one that is good."""
    async with sending() as world:
        slow = [f"slow{number}.test" for number in range(100)]
        room = await world.room(*slow, "good.test")
        good = world.peers["good.test"]
        world.destinations.alive("good.test")  # it is in the room: it has called us
        for name in slow:
            world.peers[name].takes_s = 59.0
        for number in range(20):
            said_at = trio.current_time()
            await world.say(room, str(number))
            while len(good.texts) <= number:
                await trio.sleep(0.1)
            assert trio.current_time() - said_at < 1.0
            await trio.sleep(45)
        assert world.peers.most_at_once <= places.AT_ONCE


async def test_servers_that_all_stop_at_once_leave_room_for_one_that_is_well(autojump_clock):
    """T083: what hangs is broken off while others wait; after that the well one does not wait."""
    async with sending() as world:
        others = [f"s{number}.test" for number in range(60)]
        room = await world.room(*others, "well.test")
        await world.say(room, "all are fast")
        await world.settle(10)
        for name in others:
            world.peers[name].takes_s = 1000.0
        well = world.peers["well.test"]
        for number in range(5):
            said_at = trio.current_time()
            await world.say(room, str(number))
            while len(well.texts) <= number + 1:
                await trio.sleep(0.1)
            assert trio.current_time() - said_at <= (25 if number == 0 else 1)


async def test_a_week_among_dead_servers(autojump_clock):
    """T083, with fewer of them: attempts and memory bounded, the live ones served within 5 s."""
    async with sending() as world:
        dead = [f"dead{number}.test" for number in range(150)]
        room = await world.room(*dead, "one.test", "two.test")
        for name in dead:
            world.peers[name].up = False
        live = [world.peers["one.test"], world.peers["two.test"]]
        for peer in live:
            world.destinations.alive(peer.name)
        for number in range(7 * 4):
            await world.say(room, str(number))
            await world.settle(5)
            assert all(len(peer.texts) == number + 1 for peer in live)
            await trio.sleep(6 * 3600 - 5)
        for name in dead:
            assert len(world.peers[name].asked) <= 20
        assert len(world.sender._queues) == 0
        assert world.peers.most_at_once <= places.AT_ONCE


async def test_requests_in_a_second_are_bounded(autojump_clock):
    """T083: 50 per second, after a first burst of as many."""
    async with sending() as world:
        names = [f"s{number}.test" for number in range(300)]
        room = await world.room(*names)
        await world.say(room)
        began = trio.current_time()
        while sum(len(peer.taken) for peer in world.peers.values()) < 300:
            await trio.sleep(0.1)
        assert 4.5 <= trio.current_time() - began <= 7


# --- servers that refuse


def refuse(wrong, status):
    """A server that does not take what is wrong."""

    def answer(body):
        return (status, {"errcode": "M_UNKNOWN"}) if wrong(body) else (200, {"pdus": {}})

    return answer


@pytest.mark.parametrize("status", [400, 413, 500])
async def test_one_event_that_a_server_refuses_is_left_out(autojump_clock, status):
    """A poisoned transaction does not block a destination for ever (T130)."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.answer = refuse(lambda body: "poison" in json.dumps(body["pdus"]), status)
        far.takes_s = 1.0
        for number in range(40):
            await world.say(room, "poison" if number == 23 else str(number))
        await world.settle(900)
        expected = [str(number) for number in range(40) if number != 23]
        assert sorted(far.texts) == sorted(expected)
        await world.say(room, "on")
        await world.settle(900)
        assert far.texts[-1] == "on"


async def test_a_server_that_takes_no_large_bodies_gets_small_ones(autojump_clock):
    """T130: bodies over 100 KB are refused."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.answer = refuse(lambda body: len(json.dumps(body)) > 100_000, 413)
        far.takes_s = 1.0
        texts = [f"{number} " + "x" * 10_000 for number in range(30)]
        for text in texts:
            await world.say(room, text)
        await world.settle(60)
        assert far.texts == texts


async def test_events_are_not_held_up_by_edus(autojump_clock):
    """T130: the EDU is given up after three refusals alone."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.answer = refuse(lambda body: "m.wrong" in json.dumps(body.get("edus", [])), 400)
        await world.edu("far.test", "m.good", {"n": 1})
        await world.edu("far.test", "m.wrong", {"n": 2})
        await world.edu("far.test", "m.good", {"n": 3})
        await world.say(room)
        await world.settle(10)
        assert far.texts == ["hello"]
        assert [content["n"] for content in far.edus("m.good")] == [1, 3]
        assert world.house.store.read(outbound.with_edus, 0)[0] == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
async def test_a_server_that_refuses_everything_is_left_alone_and_loses_nothing(
    autojump_clock, status
):
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        far.answer = refuse(lambda _: True, status)
        for number in range(3):
            await world.say(room, str(number))
        await world.settle(86_400)
        assert len(far.asked) <= 30
        far.answer = refuse(lambda _: False, status)
        await world.settle(2 * 86_400)
        assert far.texts == ["0", "1", "2"]


async def test_a_server_may_say_when_to_come_again(autojump_clock):
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        limited = (429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 600_000})
        far.answer = lambda _: limited
        await world.say(room)
        await world.settle(590)
        assert len(far.asked) == 1


async def test_refused_events_in_an_answer_change_nothing(autojump_clock):
    """[B5.03]: the transaction was taken."""
    async with sending() as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        wrong = {"pdus": {"$x": {"error": "no"}, "$y": 3}}
        for said in (wrong, {"pdus": []}, {"pdus": None}, {}):
            far.answer = lambda _, said=said: (200, said)
            await world.say(room)
            await world.settle(1)
        assert len(far.asked) == len(far.taken) == 4


# --- EDUs


async def test_edus_that_must_arrive_survive_failures_and_kills(autojump_clock, tmp_path):
    """[B7.10]: at least once, in order, at most 100 in a transaction ([B5.01])."""
    async with sending(tmp_path / "db") as world:
        far = world.peers["far.test"]
        far.up = False
        for number in range(250):
            await world.edu("far.test", "m.direct_to_device", {"n": number})
        await world.settle(10)
        await world.kill()
        far.up = True
        await world.settle(200)
        found = [content["n"] for content in far.edus("m.direct_to_device")]
        assert list(dict.fromkeys(found)) == [*range(250)]
        assert max(len(body["edus"]) for body in far.taken.values()) == 100
        await world.settle()
        assert world.house.store.read(outbound.with_edus, 0)[0] == []


async def test_too_many_waiting_edus_leave_the_newest_of_each_user(autojump_clock):
    """T083, T130: 1,000 device lists; 5,000 messages; the rest is lost, and the log says so."""
    async with sending() as world:
        world.peers["far.test"].up = False

        def put(tx):
            for number in range(outbound.MAX_EDUS + 200):
                user = f"@u{number % 3}:home.test"
                content = {"user_id": user, "stream_id": number}
                outbound.put_edu(tx, "far.test", "m.device_list_update", content, user)
            for number in range(outbound.MAX_TO_DEVICE + 200):
                outbound.put_edu(tx, "far.test", outbound.TO_DEVICE, {"n": number})

        await world.house.store.write(put)
        rows = world.house.store.read(
            lambda tx: tx.run("SELECT type, json FROM outbound_edu ORDER BY seq")
        )
        lists = [json.loads(text)["stream_id"] for kind, text in rows if kind != outbound.TO_DEVICE]
        messages = [json.loads(text)["n"] for kind, text in rows if kind == outbound.TO_DEVICE]
        assert len(lists) <= outbound.MAX_EDUS
        assert lists[-3:] == [outbound.MAX_EDUS + 200 - n for n in (3, 2, 1)]
        assert len(messages) <= outbound.MAX_TO_DEVICE + 64
        assert messages == [*range(messages[0], outbound.MAX_TO_DEVICE + 200)]


async def test_typing_is_told_to_the_servers_in_the_room_and_never_late(autojump_clock):
    """[B7.01], [C13.07], T084: of our own users only."""
    async with sending() as world:
        room = await world.room("far.test", "down.test")
        far, down = world.peers["far.test"], world.peers["down.test"]
        down.up = False
        typing = world.house.env.typing
        typing.start(room, world.ann.user_id, 30)
        typing.start(room, UserId("@x:far.test"), 30)
        await world.settle(2)
        room_id = world.house.room_id(room)
        expected = {"room_id": room_id, "user_id": world.ann.user_id, "typing": True}
        assert far.edus("m.typing") == [expected]
        typing.stop(room, world.ann.user_id)
        await world.settle(2)
        assert [edu["typing"] for edu in far.edus("m.typing")] == [True, False]
        down.up = True
        await world.settle(600)
        assert down.edus("m.typing") == []


async def test_typing_on_and_off_again_is_not_taken_for_a_repetition(autojump_clock):
    """The same content twice is two transactions ([B5.02])."""
    async with sending() as world:
        room = await world.room("far.test")
        typing = world.house.env.typing
        for _ in range(3):
            typing.start(room, world.ann.user_id, 30)
            await world.settle(1)
            typing.stop(room, world.ann.user_id)
            await world.settle(1)
        found = [edu["typing"] for edu in world.peers["far.test"].edus("m.typing")]
        assert found == [True, False] * 3


async def test_public_receipts_are_told_and_private_ones_never(autojump_clock, tmp_path):
    """[B7.03], [C13.05], T108: coalesced, with their threads, and not lost over a kill."""
    async with sending(tmp_path / "db") as world:
        room = await world.room("far.test")
        far = world.peers["far.test"]
        ids = []
        for _ in range(5):
            stored = await world.from_afar(room, "@x:far.test", "m.room.message", {"body": "x"})
            ids.append(stored.event.event_id)
        await world.read("m.read.private", room, ids[4])
        await world.settle()
        assert far.asked == []
        for event_id in ids[:3]:
            await world.read("m.read", room, event_id)
        await world.settle()
        (content,) = far.edus("m.receipt")
        said = content[world.house.room_id(room)]["m.read"][world.ann.user_id]
        assert said["event_ids"] == [ids[2]]
        assert "thread_id" not in said["data"]
        far.up = False
        await world.read("m.read", room, ids[3], "main")
        await world.read("m.read", room, ids[4])
        await world.settle(1)
        await world.kill()
        far.up = True
        await world.settle(200)
        told = far.edus("m.receipt")[1:]
        assert {
            (one["event_ids"][0], one["data"].get("thread_id"))
            for content in told
            for one in [content[world.house.room_id(room)]["m.read"][world.ann.user_id]]
        } == {(ids[3], "main"), (ids[4], None)}


async def test_receipts_alone_wait_for_company(autojump_clock):
    """T084: ten receipts within a moment are one transaction."""
    async with sending() as world:
        rooms = [await world.room("far.test") for _ in range(10)]
        for room in rooms:
            stored = await world.from_afar(room, "@x:far.test", "m.room.message", {"body": "x"})
            await world.read("m.read", room, stored.event.event_id)
        await world.settle()
        (content,) = world.peers["far.test"].edus("m.receipt")
        assert len(content) == 10
