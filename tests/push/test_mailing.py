"""Mails about what was not read: when, and with what in them.

Matrix v1.19, Client-Server API, pushers of the kind `email` ([E.06]); T105, T108.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
import trio.testing
from attrs import define

from matrixbox.accounts.mailing import Mailer
from matrixbox.core.json import encode
from matrixbox.net.smtp import MailServer
from matrixbox.push import mailing, pushers
from matrixbox.push.mailing import DELAY_S, MAX_LINES, PAUSES_MS, MailPusher, letter
from matrixbox.rooms import receipts
from matrixbox.rooms.receipts import Marks
from matrixbox.store import account_data, addresses
from matrixbox.store import pushers as stored
from matrixbox.store.account_data import GLOBAL, Entry
from matrixbox.store.caches import Session
from matrixbox.store.nids import RoomNid
from matrixbox.store.pushers import MAIL_APP, Pusher, PusherNid
from tests.mail.post_office import PostOffice
from tests.rooms.house import House, household

BOB = "bob@example.org"
DELAY_MS = DELAY_S * 1000
ENOUGH_MS = DELAY_MS + 1_000


@define
class Mailed:
    """Alice and Bob in a room; Bob is written to."""

    house: House
    nursery: trio.Nursery
    alice: Session
    bob: Session
    room: RoomNid
    _scope: trio.CancelScope | None = None

    async def start(self) -> None:
        """Start the service, or start it again."""
        if self._scope is not None:
            self._scope.cancel()
        self._scope = scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await MailPusher(self.house.store, self.house.env).run()

        self.nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()

    async def pass_ms(self, ms: int) -> None:
        """Let time pass."""
        await trio.sleep(ms / 1000)
        await trio.testing.wait_all_tasks_blocked()

    async def read(self, sent: Any) -> None:
        """Bob reads up to an event."""
        marks = Marks({"m.read": sent.event.event_id})
        await self.house.write(receipts.mark, self.bob, self.room, marks)

    async def say(self, text: str, **content: Any) -> Any:
        """Alice says something."""
        content = {"msgtype": "m.text", **content}
        return await self.house.say(self.alice, self.room, text, **content)

    def letters(self) -> list[tuple[str, str, str]]:
        """What waits for the mail server: to whom, subject and text."""
        query = "SELECT recipient, subject, text FROM mail ORDER BY mail_id"
        return self.house.store.read(lambda tx: tx.run(query))


@asynccontextmanager
async def mailed() -> AsyncIterator[Mailed]:
    """The service at work."""
    async with household() as house, trio.open_nursery() as nursery:
        alice, bob = [await house.user(name) for name in ("alice", "bob")]
        room = await house.room(alice, preset="public_chat", name="The kitchen")
        await house.join(bob, room)
        now_ms = house.env.clock.now_ms()
        await house.store.write(addresses.add, bob.user, BOB, now_ms, now_ms)
        made = Pusher(
            PusherNid(0), bob.user, MAIL_APP, BOB, "Mail", BOB, None, "en", {"brand": "x"}, now_ms
        )
        await house.store.write(partial(pushers.put, append=True), bob, made)
        found = Mailed(house, nursery, alice, bob, room)
        await found.start()
        yield found
        nursery.cancel_scope.cancel()


async def test_one_mail_tells_all_that_was_not_read_for_a_while(autojump_clock):
    """Not one for each message; who reads meanwhile gets none."""
    async with mailed() as it:
        first = await it.say("one")
        await it.pass_ms(DELAY_MS // 2)
        await it.say("two")
        await it.house.message(it.alice, it.room, "m.room.encrypted", {"ciphertext": "xyz"})
        assert it.letters() == []
        await it.read(first)
        await it.pass_ms(ENOUGH_MS // 2)
        ((recipient, subject, text),) = it.letters()
        assert (recipient, subject) == (BOB, "2 notifications on home.test")
        assert "The kitchen\n" in text
        assert f"  {it.alice.user_id}: two\n" in text
        assert f"  {it.alice.user_id} has sent an encrypted message\n" in text
        assert "one\n" not in text
        assert "xyz" not in text
        assert "turn\nnotifications by e-mail off" in text
        await it.pass_ms(2 * PAUSES_MS[-1])
        assert len(it.letters()) == 1


async def test_nothing_is_written_when_all_was_read_meanwhile(autojump_clock):
    async with mailed() as it:
        await it.say("one")
        await it.read(await it.say("two"))
        await it.pass_ms(2 * ENOUGH_MS)
        assert it.letters() == []


async def test_mails_come_ever_later_until_something_is_read(autojump_clock):
    async with mailed() as it:
        await it.say("one")
        await it.pass_ms(ENOUGH_MS)
        for number, pause_ms in enumerate(PAUSES_MS, 1):
            await it.say(f"more {number}")
            await it.pass_ms(pause_ms - 300_000)
            assert len(it.letters()) == number
            await it.pass_ms(310_000)
            assert len(it.letters()) == number + 1
            assert f"more {number}" in it.letters()[-1][2]
            assert "one" not in it.letters()[-1][2].split("kitchen")[1]
        newest = await it.say("and more")
        await it.pass_ms(ENOUGH_MS)
        await it.read(newest)
        written = len(it.letters())
        await it.pass_ms(PAUSES_MS[-1] + ENOUGH_MS)  # what was to be told has been read
        assert len(it.letters()) == written
        await it.say("good morning")
        await it.pass_ms(ENOUGH_MS)
        assert len(it.letters()) == written + 1


async def test_who_has_read_the_last_mail_gets_the_next_one_soon(autojump_clock):
    async with mailed() as it:
        sent = await it.say("one")
        await it.pass_ms(ENOUGH_MS)
        await it.read(sent)
        await it.say("two")
        await it.pass_ms(ENOUGH_MS)
        assert len(it.letters()) == 2


async def test_t105_t108_only_what_may_be_seen_is_told(autojump_clock):
    """Nothing of ignored users, nothing redacted, nothing after leaving."""
    async with mailed() as it:
        carol = await it.house.user("carol")
        await it.house.join(carol, it.room)

        def ignore(tx: Any) -> None:
            content = encode({"ignored_users": {carol.user_id: {}}})
            account_data.put(tx, it.bob.user, Entry(GLOBAL, "m.ignored_user_list", content, 0))

        await it.house.store.write(ignore)
        await it.house.say(carol, it.room, "rude")
        gone = await it.say("gone")
        await it.house.redact(it.alice, it.room, gone.event.event_id)
        await it.say("hi bob", **{"m.mentions": {"user_ids": [it.bob.user_id]}})
        await it.pass_ms(ENOUGH_MS)
        ((_, subject, text),) = it.letters()
        assert subject == "You were mentioned on home.test"
        assert "hi bob" in text
        assert "rude" not in text
        assert "gone" not in text
        await it.read(await it.say("last"))
        await it.say("secret")
        await it.house.leave(it.bob, it.room)
        await it.pass_ms(2 * PAUSES_MS[0])
        assert len(it.letters()) == 1


async def test_a_restart_neither_loses_nor_repeats_a_mail(autojump_clock):
    async with mailed() as it:
        await it.say("one")
        await it.pass_ms(DELAY_MS // 2)
        await it.start()
        await it.pass_ms(ENOUGH_MS)
        assert len(it.letters()) == 1
        await it.start()
        await it.pass_ms(2 * PAUSES_MS[-1])
        assert len(it.letters()) == 1


async def test_an_address_that_is_gone_is_not_written_to(autojump_clock):
    async with mailed() as it:
        await it.say("one")
        await it.house.store.write(addresses.forget_user, it.bob.user)
        await it.pass_ms(ENOUGH_MS)
        assert it.letters() == []
        assert it.house.store.read(stored.of_user, it.bob.user) == []


async def test_with_an_address_its_pusher_goes(autojump_clock):
    async with mailed() as it:
        await it.house.store.write(addresses.remove, it.bob.user, "email", BOB)
        assert it.house.store.read(stored.of_user, it.bob.user) == []


async def test_the_mail_arrives(monkeypatch):
    monkeypatch.setattr(mailing, "DELAY_S", 0.05)
    office = PostOffice()
    try:
        async with mailed() as it:
            await it.say("supper is ready")
            await it.pass_ms(100)
            server = MailServer("127.0.0.1", office.port, "none", "home.test")
            mailer = Mailer(it.house.store, it.house.env.clock, server, "m@home.test", "home.test")
            it.nursery.start_soon(mailer.run)
            found = await trio.to_thread.run_sync(office.letter, BOB)
            assert found["Subject"] == "One notification on home.test"
            assert "supper is ready" in found.get_content()
    finally:
        office.close()


def told(number: int, **more: Any) -> dict[str, Any]:
    about = {"room_id": "!a:b", "type": "m.room.message", "sender": "@al:b", "devices": [{}]}
    return {**about, "content": {"msgtype": "m.text", "body": f"text {number}"}, **more}


def test_a_mail_is_short_and_in_lines_of_its_own() -> None:
    """T101: what people write does not pass for what the server writes."""
    many = [told(number) for number in range(MAX_LINES + 3)]
    rude = told(
        0, room_id="!c:d", room_name="a\nb\u202e", content={"body": "x\r\n\r\nHello,\x07" * 99}
    )
    invite = told(
        0, room_id="!e:f", type="m.room.member", content={"membership": "invite"}, room_alias="#x:y"
    )
    odd = told(0, room_id="!g:h", content={"body": 5})
    subject, text = letter([*many, rude, invite, odd], "home.test")
    assert subject == f"{len(many) + 3} notifications on home.test"
    assert "With @al:b\n... and 3 before that\n  @al:b: text 3\n" in text
    assert "\na b\n  @al:b: x Hello, x Hello," in text
    assert "\n#x:y\n  @al:b invites you\n" in text
    assert "  @al:b has done something there\n" in text
    assert max(map(len, text.splitlines())) < 250
    assert not {"\r", "\x07", "\u202e"} & set(text)
