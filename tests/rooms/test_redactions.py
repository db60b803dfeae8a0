"""Redactions: who may, what is left, what waits, and that what was said is gone.

Matrix v1.19, Client-Server API, "Redactions"; room versions, "Handling redactions" ([A4.12] to
[A4.18], [C10.05]); T039, T040.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import apsw
import pytest

from matrixbox.core.json import encode
from matrixbox.errors import BadJson, Forbidden, NotFound
from matrixbox.rooms import membership, receipts, state_reading, timeline
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.receipts import Marks
from matrixbox.store import bodies, events, members
from matrixbox.store.events import Status
from tests.rooms.far import CREATOR, Graph
from tests.rooms.house import House, household, open_house

ALL = tuple(map(str, range(1, 13)))
BOB, MOD, EVE = "@bob:far.test", "@mod:two.test", "@eve:far.test"

# --- our own clients


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("through_send", [False, True], ids=["redact", "send"])
async def test_who_may_redact_what(version, through_send):
    """[C10.05], [A4.17]: own events with the power to redact at all, others' with `redact`."""
    async with household() as house:
        ann, bo, cy, eve = [await house.user(name) for name in ("ann", "bo", "cy", "eve")]
        users = {bo.user_id: 50, cy.user_id: 10}
        if version != "12":
            users[ann.user_id] = 100
        levels = {"users": users, "events": {"m.room.redaction": 10}}
        room = await house.room(ann, version=version, preset="public_chat", power_levels=levels)
        for who in (bo, cy, eve):
            await house.join(who, room)

        async def redact(who: Any, target: Any) -> Any:
            if through_send:
                content = {"redacts": target.event.event_id, "reason": "r"}
                return await house.message(who, room, "m.room.redaction", content)
            return await house.redact(who, room, target.event.event_id, reason="r")

        people = (ann, bo, cy, eve)
        may = {ann: people, bo: people, cy: (cy,), eve: ()}
        for who in people:
            for author in people:
                target = await house.say(author, room, "secret")
                if author not in may[who]:
                    with pytest.raises(Forbidden):
                        await redact(who, target)
                    assert house.stored(target.event.event_id).event.content["body"] == "secret"
                    continue
                redaction = await redact(who, target)
                shown = house.shown_event(eve, room, target.event.event_id)
                assert shown["content"] == {}
                because = shown["unsigned"]["redacted_because"]
                assert because["event_id"] == redaction.event.event_id
                assert because["content"]["reason"] == "r"


@pytest.mark.parametrize("version", ALL)
async def test_redacts_stands_where_the_version_wants_it_and_clients_see_both(version):
    """[A3.06], [A4.16]."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann, version=version)
        target = (await house.say(ann, room, "x")).event.event_id
        redaction = (await house.redact(ann, room, target)).event
        in_content = int(version) >= 11
        assert ("redacts" in redaction.content) is in_content
        assert ("redacts" in redaction.json) is not in_content
        for shown in (house.shown(ann, room)[-1], house.shown_event(ann, room, redaction.event_id)):
            assert shown["redacts"] == target
            assert shown["content"]["redacts"] == target
        because = house.shown_event(ann, room, target)["unsigned"]["redacted_because"]
        assert because["redacts"] == because["content"]["redacts"] == target


async def test_redactions_that_cannot_be():
    """Unknown events, those of other rooms, the create event, no event at all."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room, other = await house.room(ann), await house.room(ann)
        there = (await house.say(ann, other, "x")).event.event_id
        await house.invite(ann, room, bo.user_id)
        await house.join(bo, room)
        for who, target in ((bo, "$unknown"), (bo, there), (ann, there)):
            with pytest.raises(NotFound):
                await house.redact(who, room, target)
            with pytest.raises(NotFound):
                await house.message(who, room, "m.room.redaction", {"redacts": target})
        with pytest.raises(Forbidden):
            await house.redact(ann, room, house.state(room)["m.room.create", ""].event.event_id)
        for content in ({}, {"redacts": 5}, {"redacts": None}):
            with pytest.raises(BadJson):
                await house.message(ann, room, "m.room.redaction", content)
        mine = (await house.say(ann, room, "x")).event.event_id
        with pytest.raises(Forbidden):
            await house.redact(bo, room, mine)


async def test_who_may_redact_everything_may_redact_what_is_not_known_here():
    """[A4.17]: the redaction waits for the event, which may come later."""
    async with household() as house:
        ann = await house.user("ann")
        redaction = await house.redact(ann, await house.room(ann), "$unknown")
        assert redaction.status == Status.HELD


async def test_redacting_twice_keeps_the_first_redaction():
    """The second one is an event without effect."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        target = (await house.say(ann, room, "x")).event.event_id
        first = await house.redact(ann, room, target, reason="one")
        await house.redact(ann, room, target, reason="two")
        because = house.shown_event(ann, room, target)["unsigned"]["redacted_because"]
        assert because["event_id"] == first.event.event_id
        assert house.stored(target).redacted_by == first.nid


async def test_a_redaction_can_be_redacted():
    """Its reason goes, its effect stays."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann, version="11")
        target = (await house.say(ann, room, "x")).event.event_id
        first = (await house.redact(ann, room, target, reason="secret")).event.event_id
        await house.redact(ann, room, first)
        assert house.shown_event(ann, room, first)["content"] == {"redacts": target}
        because = house.shown_event(ann, room, target)["unsigned"]["redacted_because"]
        assert because["content"] == {"redacts": target}


async def test_redacted_state_still_counts():
    """[A4.18]: a redacted join is a join; a redacted name is no name any more."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, preset="public_chat", name="Den", topic="secret")
        await house.write(membership.join, bo, room, {"reason": "because"})
        for key in (("m.room.member", bo.user_id), ("m.room.name", ""), ("m.room.topic", "")):
            await house.redact(ann, room, house.state(room)[key].event.event_id)
        assert house.content(room, "m.room.member", bo.user_id) == {"membership": "join"}
        await house.say(bo, room, "still here")
        assert house.content(room, "m.room.name") == house.content(room, "m.room.topic") == {}
        shown = json.loads(house.look(bo, room, whole_state))
        assert {e["type"] for e in shown if "redacted_because" in e["unsigned"]} == {
            "m.room.member",
            "m.room.name",
            "m.room.topic",
        }
        levels = house.state(room)["m.room.power_levels", ""].event
        await house.redact(ann, room, levels.event_id)
        assert house.content(room, "m.room.power_levels") == dict(levels.content)


def whole_state(reader: Any) -> bytes:
    return encode(state_reading.whole(reader))


# --- held redactions


class Case:
    """A room of three servers; a message of BOB's and a redaction of it by somebody."""

    def __init__(self, version: str, name: str = "room") -> None:
        self.graph = Graph(version, name)
        self.graph.begin(BOB, MOD, EVE, "@friend:far.test", users={MOD: 50})
        self.start = self.graph.last()

    def target(self, sender: str = BOB, **how: Any) -> Any:
        return self.graph.make(
            "m.room.message", sender, {"body": "secret"}, prev=[self.start], **how
        )

    def redaction(self, sender: str, target: str, **how: Any) -> Any:
        how.setdefault("prev", [self.start])
        if int(self.graph.version) >= 11:
            return self.graph.make("m.room.redaction", sender, {"redacts": target}, **how)
        return self.graph.make("m.room.redaction", sender, {}, redacts=target, **how)


async def begin(house: House, case: Case) -> tuple[Any, Any]:
    ann = await house.user("ann")
    room = await case.graph.deliver_all(house)
    await house.join(ann, room)
    joined = house.timeline(room)[-1].event
    case.start = case.graph.add(joined)
    return ann, room


def acts(version: str, sender: str) -> bool:
    """The literal rule: power, or the same server as the target's sender."""
    return sender in (CREATOR, MOD) or sender.endswith(":far.test")


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("target_first", [True, False], ids=["in order", "reversed"])
async def test_t039_redactions_of_others_in_both_orders(version, target_first):
    """[A4.14], [A4.15]: what may not redact is never shown, for clients would act on it."""
    for sender in (CREATOR, MOD, BOB, "@friend:far.test", "@lodger:one.test"):
        async with household() as house:
            case = Case(version)
            case.graph.make(
                "m.room.member", "@lodger:one.test", {"membership": "join"}, "@lodger:one.test"
            )
            case.start = case.graph.last()
            ann, room = await begin(house, case)
            target = case.target()
            redaction = case.redaction(sender, target.event_id)
            order = (target, redaction) if target_first else (redaction, target)
            await case.graph.deliver(house, order[0])
            first = [one["event_id"] for one in house.shown(ann, room)]
            assert (redaction.event_id in first) is False
            await case.graph.deliver(house, order[1])
            allowed = acts(version, sender)
            by_rule_11 = version in ("1", "2") and not allowed
            stored = house.stored(redaction.event_id)
            assert bool(stored.status & Status.REJECTED) is by_rule_11
            if not by_rule_11:
                assert stored.status == (Status.ACCEPTED if allowed else Status.HELD)
            shown = {one["event_id"]: one for one in house.shown(ann, room)}
            assert (redaction.event_id in shown) is allowed
            wanted = {} if allowed else {"body": "secret"}
            assert shown[target.event_id]["content"] == wanted
            assert house.stored(target.event_id).event.content == wanted
            if allowed:
                ids = list(shown)
                assert ids.index(redaction.event_id) > ids.index(target.event_id)
                because = shown[target.event_id]["unsigned"]["redacted_because"]
                assert because["event_id"] == redaction.event_id
            else:
                assert "redacted_because" not in shown[target.event_id]["unsigned"]
                with pytest.raises(NotFound):
                    house.shown_event(ann, room, redaction.event_id)


@pytest.mark.parametrize("version", ["3", "10", "11", "12"])
async def test_t039_several_redactions_wait_for_one_event(version):
    """One that may not, then two that may: the first of these acts, both are shown."""
    async with household() as house:
        case = Case(version)
        case.graph.make(
            "m.room.member", "@lodger:one.test", {"membership": "join"}, "@lodger:one.test"
        )
        case.start = case.graph.last()
        ann, room = await begin(house, case)
        target = case.target()
        waiting = [
            case.redaction(sender, target.event_id) for sender in ("@lodger:one.test", MOD, BOB)
        ]
        await case.graph.deliver(house, *waiting)
        count = len(house.shown(ann, room))
        assert not [one for one in house.shown(ann, room) if one["type"] == "m.room.redaction"]
        house.store.caches.clear()
        await case.graph.deliver(house, target)
        shown = [one["event_id"] for one in house.shown(ann, room)[count:]]
        assert shown == [event.event_id for event in (target, waiting[1], waiting[2])]
        assert house.stored(target.event_id).redacted_by == house.stored(waiting[1].event_id).nid
        # What waits is extremity and parent like any event.
        said = await house.say(ann, room, "hello")
        cited = set(said.event.prev_event_ids)
        assert {event.event_id for event in (target, *waiting)} <= cited


@pytest.mark.parametrize("version", ["1", "3", "11", "12"])
async def test_t039_what_is_not_valid_or_elsewhere_is_not_redacted(version):
    """Targets in other rooms or rejected; redactions rejected or soft-failed."""
    async with household() as house:
        case, other = Case(version), Case(version, "other")
        ann, room = await begin(house, case)
        await other.graph.deliver_all(house)
        there = other.target()
        await other.graph.deliver(house, there)
        bad = case.graph.make("m.room.topic", EVE, {"topic": "secret"}, "", prev=[case.start])
        ban = case.graph.make(
            "m.room.member", CREATOR, {"membership": "ban"}, MOD, prev=[case.start]
        )
        mine = case.target(BOB)
        await case.graph.deliver(house, bad, mine, ban)
        elsewhere = case.redaction(CREATOR, there.event_id)
        of_rejected = case.redaction(CREATOR, bad.event_id)
        evading = case.redaction(MOD, mine.event_id)  # from before the ban
        late = case.redaction(MOD, mine.event_id, prev=[ban])
        await case.graph.deliver(house, elsewhere, of_rejected, evading, late)
        assert house.stored(there.event_id).event.content == {"body": "secret"}
        assert house.stored(mine.event_id).event.content == {"body": "secret"}
        assert house.stored(elsewhere.event_id).status == Status.HELD
        assert house.stored(of_rejected.event_id).status == Status.HELD
        assert house.stored(evading.event_id).status == Status.SOFT_FAILED
        assert house.stored(late.event_id).status & Status.REJECTED
        shown = {one["event_id"] for one in house.shown(ann, room)}
        assert not shown & {e.event_id for e in (elsewhere, of_rejected, evading, late)}


async def test_t039_a_redaction_that_names_nothing_is_an_event_like_others():
    """`redacts` missing or of another type: shown, without effect."""
    async with household() as house:
        case = Case("11")
        ann, room = await begin(house, case)
        for content in ({}, {"redacts": 5}, {"redacts": None}):
            odd = case.graph.make("m.room.redaction", BOB, content, prev=[case.graph.last()])
            (got,) = await case.graph.deliver(house, odd)
            assert got.status == Status.ACCEPTED
            assert house.shown(ann, room)[-1]["content"] == content


# --- what was said is gone (T040)

MARK = "zq7MARK"


def rows_with(house: House, text: str) -> list[str]:
    """The tables that have the text in some row."""
    found = []
    for table, rows in house.everything().items():
        for row in rows:
            for value in row:
                raw = value if isinstance(value, bytes) else str(value).encode()
                if text.encode() in raw:
                    found.append(table)
    return found


async def fill(house: House, rng: random.Random) -> tuple[Any, Any, Any, list[str]]:
    """A room in which all that can be redacted says something secret; the events to redact."""
    ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
    room = await house.room(ann, version="11", preset="public_chat", name=f"{MARK} name")
    first = house.state(room)["m.room.name", ""].event.event_id
    await house.write(membership.join, bo, room, {"reason": MARK})
    await house.invite(ann, room, cy.user_id)
    secret = [first, house.state(room)["m.room.member", bo.user_id].event.event_id]
    for kind in ("m.room.topic", "m.room.avatar", "m.room.name"):
        content = {"topic": f"{MARK} topic", "name": MARK, "url": f"mxc://{MARK}"}
        secret.append((await house.set_state(ann, room, kind, "", content)).event.event_id)
    root = (await house.say(ann, room, f"{MARK} root")).event.event_id
    secret.append(root)
    for number in range(60):
        size = rng.choice([5, 80, 400, 900, 1_100, 3_000, 20_000])
        body = f"{MARK}{number} " + "".join(rng.choice("abc") for _ in range(size)) + MARK
        relation = rng.choice(
            [
                {},
                {"m.relates_to": {"rel_type": "m.thread", "event_id": root}},
                {"m.relates_to": {"rel_type": "m.reference", "event_id": root}},
            ]
        )
        sent = await house.say(rng.choice([ann, bo]), room, body, **relation)
        secret.append(sent.event.event_id)
        if number % 5 == 0:
            await house.say(bo, room, f"innocent {number} " + "x" * rng.choice([3, 700, 2_000]))
        if number % 7 == 0:
            key = {"rel_type": "m.annotation", "event_id": root, "key": f"{MARK}{number}"}
            reaction = await house.message(bo, room, "m.reaction", {"m.relates_to": key})
            secret.append(reaction.event.event_id)
        if number % 9 == 0:
            new = {"body": f"{MARK} edited"}
            edit = {"rel_type": "m.replace", "event_id": sent.event.event_id}
            changed = await house.say(
                ann, room, f"* {MARK}", **{"m.new_content": new, "m.relates_to": edit}
            )
            secret.append(changed.event.event_id)
    await house.write(receipts.mark, bo, room, Marks({"m.read": root, "m.fully_read": root}))
    return ann, cy, room, secret


@pytest.mark.parametrize("seed", range(3))
async def test_t040_redacted_text_is_in_no_row_and_no_byte_of_the_files(
    seed, tmp_path, monkeypatch
):
    """All secrets redacted in random order: no row has them at once, no file after a checkpoint."""
    monkeypatch.setattr(bodies, "pack", lambda json: json)  # so that text can be searched for
    path = tmp_path / "house.db"
    async with household(path) as house:
        rng = random.Random(seed)
        ann, cy, room, secret = await fill(house, rng)
        assert {"event", "stripped_state", "relation"} <= set(rows_with(house, MARK))
        rng.shuffle(secret)
        for event_id in secret:
            await house.redact(ann, room, event_id)
        assert rows_with(house, MARK) == []
        assert MARK not in json.dumps(house.shown(ann, room))
        for event_id in secret:
            assert MARK not in json.dumps(house.shown_event(ann, room, event_id))
        assert MARK.encode() not in house.look(ann, room, everything_readable)
        assert house.store.read(members.stripped, room, cy.user)
        # The write-ahead log keeps old pages until it is emptied.
        house.store._writer.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        assert files_with(tmp_path, MARK) == []
        assert "innocent 0" in json.dumps(house.shown(ann, room))
    assert files_with(tmp_path, MARK) == []
    assert files_with(tmp_path, "innocent 0") == ["house.db"]


def files_with(folder: Path, text: str) -> list[str]:
    return [file.name for file in folder.iterdir() if text.encode() in file.read_bytes()]


def everything_readable(reader: Any) -> bytes:
    """What the other reading functions show."""
    formatter = Formatter(reader, bundled=True)
    shown = [state_reading.whole(reader), state_reading.members_at(reader, None, None, None)]
    for stored in timeline.page(
        reader, timeline.BEGINNING, None, 500, lambda _: True, back=False
    ).events:
        found = timeline.context(reader, stored.event.event_id, 4, lambda _: True)
        shown.append(formatter.all([*found.before, found.event, *found.after]))
        shown.append(state_reading.around(reader, stored, None))
    return encode([*shown, encode(state_reading.joined(reader)).decode()])


async def test_t040_a_redacted_target_that_comes_late_is_never_stored_as_it_was(tmp_path):
    """The redaction waits; when the event comes, its text does not reach the file."""
    house = open_house(tmp_path / "house.db")
    case = Case("11")
    ann, room = await begin(house, case)
    target = case.graph.make("m.room.message", BOB, {"body": MARK * 300}, prev=[case.start])
    redaction = case.redaction(BOB, target.event_id)
    await case.graph.deliver(house, redaction, target)
    assert rows_with(house, MARK) == []
    assert MARK not in json.dumps(house.shown(ann, room))
    house.store.close()
    assert files_with(tmp_path, MARK) == []


async def test_t040_who_waits_at_the_door_sees_the_room_as_it_is_after_the_redaction():
    """Invited and knocking users keep what they may know; what is redacted leaves it."""
    async with household() as house:
        ann, bo = await house.user("ann"), await house.user("bo")
        room = await house.room(ann, name="secret", invites=(bo.user_id,))
        before = house.store.read(members.stripped, room, bo.user)
        position = house.store.read(members.get, room, bo.user).pos
        assert b"secret" in before
        message = await house.say(ann, room, "x")
        await house.redact(ann, room, message.event.event_id)
        assert house.store.read(members.get, room, bo.user).pos == position, "no news"
        await house.redact(ann, room, house.state(room)["m.room.name", ""].event.event_id)
        after = house.store.read(members.stripped, room, bo.user)
        assert b"secret" not in after
        assert json.loads(after)[-1]["content"]["membership"] == "invite"
        assert house.store.read(members.get, room, bo.user).pos > position, "sync tells it"
        await house.join(bo, room)
        assert house.store.read(members.stripped, room, bo.user) is None


async def test_the_relations_of_a_redacted_event():
    """[C9.15]: a redacted child is no child; a redacted parent keeps its children."""
    async with household() as house:
        ann = await house.user("ann")
        room = await house.room(ann)
        root = (await house.say(ann, room, "root")).event.event_id
        thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
        reply = (await house.say(ann, room, "reply", **thread)).event.event_id
        other = (await house.say(ann, room, "other", **thread)).event.event_id
        await house.redact(ann, room, reply)
        found = house.shown_event(ann, room, root)["unsigned"]["m.relations"]["m.thread"]
        assert (found["count"], found["latest_event"]["event_id"]) == (1, other)
        await house.redact(ann, room, root)
        relations = house.store.read(events.relations, root)
        assert len(relations) == 1
