"""Events that are sent later: when, by whom, and what becomes of them.

MSC4140; T081 (bounded), T103 (accounts that end), T152 and T153 (clocks that are wrong).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from matrixbox.accounts.throttle import Throttle
from matrixbox.errors import (
    Conflict,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    NotFound,
    TooLarge,
    Unavailable,
)
from matrixbox.household.departures import close_account
from matrixbox.rooms import delayed
from matrixbox.rooms.delayed import Allowance, Repeatable, Wish
from matrixbox.rooms.delaying import Delays
from matrixbox.rooms.time_floor import TimeFloor
from matrixbox.store import accounts
from matrixbox.store import delayed as store
from tests.rooms.house import household

TEXT = {"msgtype": "m.text", "body": "later"}


def make(house, *, limited=False, floor_ms=0):
    throttle = Throttle(house.env.clock, enabled=limited)
    return Delays(house.store, house.env, TimeFloor(house.env.clock, floor_ms), throttle)


@asynccontextmanager
async def at_work(house, **how):
    """The service, for the length of a block; it ends as in a power cut."""
    delays = make(house, **how)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delays.run)
        await trio.testing.wait_all_tasks_blocked()
        yield delays
        nursery.cancel_scope.cancel()


async def schedule(house, who, room, delay_s=10.0, *, state_key=None, allowance=None, **more):
    kind = more.get("kind", "m.room.message" if state_key is None else "org.example.state")
    wish = Wish(room, kind, state_key, more.get("content", TEXT), round(delay_s * 1000))
    transaction = Repeatable(who.device, more.get("txn"), more.get("txn_id"))
    return await house.write(delayed.schedule, who, wish, transaction, allowance or Allowance())


def bodies(house, room):
    found = [stored.event.content.get("body") for stored in house.timeline(room)]
    return [body for body in found if body is not None]


def look(house, who, delay_id):
    return house.store.read(lambda tx: delayed.shown(tx, delayed.found(tx, delay_id, who.user)))


def waiting(house, who):
    return [one["delay_id"] for one in house.store.read(delayed.listed, who.user)]


async def test_an_event_is_sent_when_its_time_has_come_and_not_before(autojump_clock):
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house):
            delay_id = await schedule(house, alice, room, 10)
            scheduled_ms = house.env.clock.now_ms()
            await trio.sleep(9.9)
            assert bodies(house, room) == []
            assert waiting(house, alice) == [delay_id]
            await trio.sleep(0.2)
            assert bodies(house, room) == ["later"]
            assert waiting(house, alice) == []
        sent = house.timeline(room)[-1].event
        assert sent.origin_server_ts >= scheduled_ms + 10_000
        shown = look(house, alice, delay_id)
        assert shown["event_id"] == sent.event_id
        assert shown["finalised_ts"] >= shown["delayed_since_ts"] + shown["delay_ms"]


async def test_the_sender_alone_learns_which_delayed_event_it_was(autojump_clock):
    async with household() as house:
        alice, bob = await house.user("alice"), await house.user("bob")
        room = await house.room(alice, preset="public_chat")
        await house.join(bob, room)
        async with at_work(house):
            delay_id = await schedule(house, alice, room, 1)
            await trio.sleep(2)
        event_id = house.timeline(room)[-1].event.event_id
        name = "org.matrix.msc4140.delay_id"
        assert house.shown_event(alice, room, event_id)["unsigned"][name] == delay_id
        assert name not in house.shown_event(bob, room, event_id)["unsigned"]
        at_once = await house.say(alice, room, "now")
        assert name not in house.shown_event(alice, room, at_once.event.event_id)["unsigned"]


async def test_events_go_out_in_the_order_of_their_times(autojump_clock):
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house):
            for delay_s in (3, 1, 2, 1):
                await schedule(house, alice, room, delay_s, content={"body": f"after {delay_s}"})
            await trio.sleep(5)
        assert bodies(house, room) == ["after 1", "after 1", "after 2", "after 3"]


async def test_restarting_puts_it_off_by_the_whole_delay(autojump_clock):
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house):
            delay_id = await schedule(house, alice, room, 10, state_key="_call")
            for _ in range(5):
                await trio.sleep(6)
                await house.write(delayed.restart, delay_id, None)
            assert ("org.example.state", "_call") not in house.state(room)
            await trio.sleep(9.9)
            assert ("org.example.state", "_call") not in house.state(room)
            await trio.sleep(0.2)
            assert house.content(room, "org.example.state", "_call") == TEXT
            with pytest.raises(Conflict):
                await house.write(delayed.restart, delay_id, alice.user)
            with pytest.raises(Conflict):
                await house.write(delayed.cancel, delay_id, alice.user)


async def test_what_was_cancelled_is_never_sent(autojump_clock):
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house) as delays:
            delay_id = await schedule(house, alice, room, 10)
            for _ in range(2):  # a repeated request is no error
                await house.write(delayed.cancel, delay_id, None)
            await trio.sleep(20)
            with pytest.raises(Conflict):
                await delays.send_now(delay_id, None)
            with pytest.raises(Conflict):
                await house.write(delayed.restart, delay_id, None)
        assert bodies(house, room) == []
        shown = look(house, alice, delay_id)
        assert "finalised_ts" in shown
        assert {"event_id", "error"}.isdisjoint(shown)


async def test_sending_before_the_time_sends_once(autojump_clock):
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house) as delays:
            delay_id = await schedule(house, alice, room, 10)
            for _ in range(2):
                await delays.send_now(delay_id, None)
            await trio.sleep(20)
            assert bodies(house, room) == ["later"]
            shown = look(house, alice, delay_id)
            assert shown["finalised_ts"] < shown["delayed_since_ts"] + shown["delay_ms"]


async def test_strangers_with_an_account_manage_nothing(autojump_clock):
    """T101: the identifier is for who has it, but nobody's account reaches another's events."""
    async with household() as house:
        alice, bob = await house.user("alice"), await house.user("bob")
        room = await house.room(alice)
        delay_id = await schedule(house, alice, room, 10)
        assert waiting(house, bob) == []
        for function in (delayed.restart, delayed.cancel):
            with pytest.raises(NotFound):
                await house.write(function, delay_id, bob.user)
        with pytest.raises(NotFound):
            await make(house).send_now(delay_id, bob.user)
        with pytest.raises(NotFound):
            await house.write(delayed.cancel, "mbd_unknown", None)
        assert waiting(house, alice) == [delay_id]


async def test_what_fell_due_while_the_server_was_down_goes_out_at_the_start(
    autojump_clock, tmp_path
):
    """[C10.01] Restarts and downtime: nothing is lost, nothing is sent twice."""
    path = tmp_path / "database"
    async with household(path) as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house):
            for delay_s in (3, 5, 4, 100):
                await schedule(house, alice, room, delay_s, content={"body": f"{delay_s}"})
            await trio.sleep(3.5)
        assert bodies(house, room) == ["3"]
        clock = house.env.clock
    await trio.sleep(60)
    async with household(path, clock=clock) as house:
        async with at_work(house):
            await trio.testing.wait_all_tasks_blocked()
            assert bodies(house, room) == ["3", "4", "5"]
            await trio.sleep(30)
            assert bodies(house, room) == ["3", "4", "5"]
            await trio.sleep(10)
        assert bodies(house, room) == ["3", "4", "5", "100"]


async def test_a_clock_that_steps_sends_nothing_early_and_nothing_years_late(
    autojump_clock, tmp_path
):
    """T153, also for what an earlier run has stored."""
    path = tmp_path / "database"
    async with household(path) as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        clock = house.env.clock
        async with at_work(house):
            await schedule(house, alice, room, 100)
            await trio.testing.wait_all_tasks_blocked()
            clock.step(90_000)
            await trio.sleep(50)
            assert bodies(house, room) == []
            clock.step(-3_600_000)
            await trio.sleep(51)
            assert bodies(house, room) == ["later"]
            await schedule(house, alice, room, 100)
    clock.step(-10 * 365 * 86_400_000)
    async with household(path, clock=clock) as house, at_work(house):
        await trio.sleep(101)
        assert bodies(house, room) == ["later", "later"]


async def test_nothing_is_sent_before_the_clock_can_be_right(autojump_clock):
    """T152: a board without a battery."""
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        clock = house.env.clock
        await schedule(house, alice, room, 10)
        floor_ms = clock.now_ms()
        clock.step(-86_400_000)
        async with at_work(house, floor_ms=floor_ms):
            await trio.sleep(200)
            assert bodies(house, room) == []
            clock.step(86_400_000)
            await trio.sleep(11)
            assert bodies(house, room) == ["later"]


async def test_power_counts_at_the_time_of_sending(autojump_clock):
    async with household() as house:
        alice, bob = await house.user("alice"), await house.user("bob")
        room = await house.room(alice, preset="public_chat", version="11")
        await house.join(bob, room)
        async with at_work(house) as delays:
            early = await schedule(house, bob, room, 5, state_key="")
            late = await schedule(house, bob, room, 15, state_key="")
            with pytest.raises(Forbidden):
                await delays.send_now(late, None)
            await trio.sleep(6)
            error = look(house, bob, early)["error"]
            assert error["errcode"] == "M_FORBIDDEN"
            levels = house.content(room, "m.room.power_levels")
            levels = {**levels, "users": {**levels["users"], bob.user_id: 50}}
            await house.set_state(alice, room, "m.room.power_levels", "", levels)
            await trio.sleep(10)
            assert house.state(room)["org.example.state", ""].event.sender == bob.user_id


async def test_who_has_left_says_nothing_more(autojump_clock):
    """T105."""
    async with household() as house:
        alice, bob = await house.user("alice"), await house.user("bob")
        room = await house.room(alice, preset="public_chat")
        await house.join(bob, room)
        async with at_work(house):
            delay_id = await schedule(house, bob, room, 5)
            await house.kick(alice, room, bob.user_id)
            await trio.sleep(6)
        assert bodies(house, room) == []
        assert look(house, bob, delay_id)["error"]["errcode"] == "M_FORBIDDEN"


async def test_own_and_others_state_does_not_cancel_a_delayed_one(autojump_clock):
    """A call's participant schedules the end, then begins, with the same key."""
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house):
            await schedule(house, alice, room, 10, state_key="_me", content={})
            await house.set_state(alice, room, "org.example.state", "_me", {"in": "call"})
            await trio.sleep(11)
        assert house.content(room, "org.example.state", "_me") == {}


async def test_a_delayed_redaction_makes_a_message_disappear(autojump_clock):
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        said = await house.say(alice, room, "read this")
        async with at_work(house):
            content = {"redacts": said.event.event_id, "reason": "too old"}
            await schedule(house, alice, room, 5, kind="m.room.redaction", content=content)
            await trio.sleep(6)
        shown = house.shown_event(alice, room, said.event.event_id)
        assert shown["content"] == {}
        with pytest.raises(NotFound):
            await schedule_redaction_elsewhere(house, alice, said)


async def schedule_redaction_elsewhere(house, who, said):
    room = await house.room(who)
    content = {"redacts": said.event.event_id}
    delay_id = await schedule(house, who, room, 5, kind="m.room.redaction", content=content)
    await make(house).send_now(delay_id, None)


async def test_the_same_transaction_schedules_once(autojump_clock):
    """[C1.03]"""
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        first = await schedule(house, alice, room, 5, txn=b"t", txn_id="t")
        assert await schedule(house, alice, room, 5, txn=b"t", txn_id="t") == first
        async with at_work(house):
            await trio.sleep(6)
            assert await schedule(house, alice, room, 5, txn=b"t", txn_id="t") == first
            await trio.sleep(6)
        assert bodies(house, room) == ["later"]
        event = house.timeline(room)[-1].event
        assert house.shown_event(alice, room, event.event_id)["unsigned"]["transaction_id"] == "t"


async def test_a_user_has_so_many_and_so_much_waiting(autojump_clock):
    """T081: bounded per user; who waits learns for how long."""
    async with household() as house:
        alice, bob = await house.user("alice"), await house.user("bob")
        room = await house.room(alice, preset="public_chat")
        await house.join(bob, room)
        three = Allowance(most=3, longest_ms=60_000)
        await schedule(house, alice, room, 20, allowance=three)
        for _ in range(2):
            await schedule(house, alice, room, 60, allowance=three)
        with pytest.raises(LimitExceeded) as caught:
            await schedule(house, alice, room, 1, allowance=three)
        assert 19_000 < caught.value.retry_after_ms <= 20_000
        await schedule(house, bob, room, 60, allowance=three)
        with pytest.raises(Forbidden):
            await schedule(house, bob, room, 60.001, allowance=three)
        with pytest.raises(Forbidden):
            await schedule(house, bob, room, 1, allowance=Allowance(most=0))
        with pytest.raises(TooLarge):
            await schedule(house, bob, room, 1, content={"body": "x" * 65_536})
        big = {"body": "x" * 60_000}
        with pytest.raises(LimitExceeded):
            for _ in range(18):
                await schedule(house, bob, room, 1, content=big)
        assert len(waiting(house, bob)) == 18


async def test_what_is_over_is_remembered_for_a_while_and_within_bounds(autojump_clock):
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        made = []
        for _ in range(delayed.MAX_ENDED + 5):
            delay_id = await schedule(house, alice, room, 10)
            await house.write(delayed.cancel, delay_id, None)
            made.append(delay_id)
            await trio.sleep(0.01)
        with pytest.raises(NotFound):
            look(house, alice, made[4])
        assert "finalised_ts" in look(house, alice, made[5])
        await house.store.write(store.forget_older, house.env.clock.now_ms() + 1)
        with pytest.raises(NotFound):
            look(house, alice, made[-1])


@pytest.mark.parametrize("erase", [False, True])
async def test_an_account_that_ends_sends_nothing_more(autojump_clock, erase):
    """T103, T110."""
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house):
            await schedule(house, alice, room, 10)
            account = house.store.read(accounts.get, alice.user)
            await house.store.write(partial(close_account, erase=erase), account)
            await trio.sleep(11)
        assert bodies(house, room) == []
        assert house.everything()["delayed_event"] == []


async def test_signing_out_does_not_keep_a_call_from_ending(autojump_clock):
    """Nothing in the proposal ends it; a participant whose device was removed must go."""
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        async with at_work(house):
            await schedule(house, alice, room, 10, state_key="_call", content={"left": True})
            await house.store.write(accounts.remove_device, alice.device)
            await trio.sleep(11)
        assert house.content(room, "org.example.state", "_call") == {"left": True}


@pytest.mark.parametrize(
    ("restrict", "errcode"),
    [
        (partial(accounts.set_suspended, suspended=True), "M_USER_SUSPENDED"),
        (partial(accounts.set_locked, locked=True), "M_USER_LOCKED"),
    ],
)
async def test_a_restricted_account_is_restricted_here_too(autojump_clock, restrict, errcode):
    """[C6.01] [C6.02] T042: as if the request came now."""
    async with household() as house:
        alice, bob = await house.user("alice"), await house.user("bob")
        room = await house.room(alice, preset="public_chat")
        await house.join(bob, room)
        async with at_work(house):
            said = await schedule(house, bob, room, 5)
            gone = await schedule(
                house,
                bob,
                room,
                6,
                kind="m.room.member",
                state_key=bob.user_id,
                content={"membership": "leave"},
            )
            await house.store.write(lambda tx: restrict(tx, bob.user))
            await trio.sleep(7)
        assert look(house, bob, said)["error"]["errcode"] == errcode
        left = errcode == "M_USER_SUSPENDED"
        assert ("event_id" in look(house, bob, gone)) is left
        assert house.membership(room, bob.user_id) == ("leave" if left else "join")


async def test_events_due_at_once_are_throttled_as_others_are(autojump_clock):
    """A limit on sending counts when the event is sent; who is over it is told why."""
    async with household() as house:
        alice = await house.user("alice")
        room = await house.room(alice)
        many = Allowance(most=500)
        made = [await schedule(house, alice, room, 10, allowance=many) for _ in range(120)]
        async with at_work(house, limited=True):
            await trio.sleep(11)
        assert len(bodies(house, room)) == 100
        assert look(house, alice, made[-1])["error"]["errcode"] == "M_LIMIT_EXCEEDED"


async def test_a_room_that_waits_for_its_policy_server_holds_up_no_other(
    autojump_clock, monkeypatch
):
    """One room fails alone; what the server could not do is tried again (T139)."""
    async with household() as house:
        alice = await house.user("alice")
        slow, quick = await house.room(alice), await house.room(alice)
        await schedule(house, alice, slow, 5)
        await schedule(house, alice, quick, 6)
        tried = []
        deliver = Delays.deliver

        async def hampered(self, one, *, quiet):
            if one.room == slow and len(tried) < 2:
                tried.append(trio.current_time())
                await trio.sleep(20)
                raise Unavailable("not now")
            await deliver(self, one, quiet=quiet)

        monkeypatch.setattr(Delays, "deliver", hampered)
        async with at_work(house):
            await trio.sleep(7)
            assert bodies(house, quick) == ["later"]
            await trio.sleep(100)
        assert len(tried) == 2
        assert bodies(house, slow) == ["later"]


async def test_what_can_never_be_sent_is_refused_at_once(autojump_clock):
    async with household() as house:
        alice, bob = await house.user("alice"), await house.user("bob")
        room = await house.room(alice)
        for kind, state_key, content in (
            ("m.room.create", "", {}),
            ("m.room.member", "bob", {"membership": "leave"}),
            ("m.room.member", "@ann:else.test", {"membership": "invite"}),
            ("x" * 256, None, {}),
            ("org.example", "k" * 256, {}),
        ):
            with pytest.raises(InvalidParam):
                await schedule(house, alice, room, kind=kind, state_key=state_key, content=content)
        with pytest.raises(Forbidden):
            await schedule(house, bob, room)
        assert waiting(house, alice) == waiting(house, bob) == []
