"""Events that relate to others: pages of them, bundles, threads, edits, reactions.

Matrix v1.19, Client-Server API, "Forming relationships between events", "Relationships API",
"Event replacements", "Threading" ([C9.10] to [C9.15], [C10.01], [C15.09], T007).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import trio

from matrixbox.core.json import encode
from matrixbox.errors import DuplicateAnnotation, Forbidden, NotFound, Unknown
from matrixbox.rooms import relations, timeline
from matrixbox.rooms.formatting import Formatter
from matrixbox.rooms.relations import Wanted
from matrixbox.rooms.tokens import Place
from matrixbox.store import account_data, events
from matrixbox.store.account_data import GLOBAL, Entry
from tests.rooms.far import Graph
from tests.rooms.house import House, household

Content = dict[str, Any]


def relating(rel_type: str, event_id: str, **more: Any) -> Content:
    return {"m.relates_to": {"rel_type": rel_type, "event_id": event_id, **more}}


async def sent(house: House, who: Any, room: Any, body: str, **content: Any) -> str:
    return (await house.say(who, room, body, **content)).event.event_id


async def edit(house: House, who: Any, room: Any, target: str, text: str, **more: Any) -> str:
    content = {"m.new_content": {"body": text}, **relating("m.replace", target), **more}
    return await sent(house, who, room, f"* {text}", **content)


async def react(house: House, who: Any, room: Any, target: str, key: str) -> str:
    stored = await house.message(who, room, "m.reaction", relating("m.annotation", target, key=key))
    return stored.event.event_id


async def ignore(house: House, who: Any, *others: str) -> None:
    def write(tx: Any) -> None:
        content = encode({"ignored_users": {other: {} for other in others}})
        account_data.put(tx, who.user, Entry(GLOBAL, "m.ignored_user_list", content, tx.position()))

    await house.store.write(write)


def bundle(house: House, who: Any, room: Any, event_id: str) -> Content:
    found = house.shown_event(who, room, event_id)["unsigned"].get("m.relations", {})
    assert isinstance(found, dict)
    return found


def children(
    house: House, who: Any, room: Any, parent: str, **wanted: Any
) -> tuple[list[str], Place | None]:
    """The ids of a page of children, and where the next one begins."""
    default = {
        "rel_type": None,
        "event_type": None,
        "recurse": False,
        "back": True,
        "start": None,
        "until": None,
        "limit": 100,
    }

    def read(reader: Any) -> tuple[list[str], Place | None]:
        page = relations.children(reader, parent, Wanted(**(default | wanted)))
        return [stored.event.event_id for stored in page.events], page.end

    return house.look(who, room, read)


def roots(
    house: House, who: Any, room: Any, start: Place | None = None, limit: int = 100, **how: Any
) -> tuple[list[Content], Place | None]:
    """The roots of a page of threads, as clients get them."""

    def read(reader: Any) -> tuple[bytes, Place | None]:
        page = relations.threads(reader, start, limit, participated=how.get("participated", False))
        return encode(Formatter(reader, bundled=True).all(page.events)), page.end

    shown, end = house.look(who, room, read)
    return json.loads(shown), end


@pytest.fixture
async def scene():
    async with household() as house:
        ann, bo, cy = [await house.user(name) for name in ("ann", "bo", "cy")]
        room = await house.room(ann, preset="public_chat")
        for who in (bo, cy):
            await house.join(who, room)
        yield house, room, ann, bo, cy


# --- edits


async def test_the_latest_valid_edit_is_bundled_and_the_content_stays(scene):
    """[C9.13]."""
    house, room, ann, bo, _ = scene
    original = await sent(house, ann, room, "one")
    assert bundle(house, bo, room, original) == {}
    await edit(house, ann, room, original, "two")
    await trio.sleep(0.002)  # of edits of the same time the greater id would be the latest
    last = await edit(house, ann, room, original, "three")
    found = bundle(house, bo, room, original)["m.replace"]
    assert found["event_id"] == last
    assert found["content"]["m.new_content"] == {"body": "three"}
    assert found["room_id"] == house.room_id(room)
    assert house.shown_event(bo, room, original)["content"] == {"body": "one"}
    assert bundle(house, bo, room, last) == {}


async def test_edits_that_are_not_valid(scene):
    """[C9.13]: another sender, another type, no new content, an edit of an edit, of state."""
    house, room, ann, bo, _ = scene
    original = await sent(house, ann, room, "one")
    await edit(house, bo, room, original, "not mine")
    await sent(house, ann, room, "no content", **relating("m.replace", original))
    await house.message(
        ann, room, "x.other", {"m.new_content": {}, **relating("m.replace", original)}
    )
    assert "m.replace" not in bundle(house, bo, room, original)
    first = await edit(house, ann, room, original, "two")
    await edit(house, ann, room, first, "edit of an edit")
    assert bundle(house, bo, room, first) == {}
    name = await house.set_state(ann, room, "m.room.name", "", {"name": "N"})
    await house.message(
        ann,
        room,
        "m.room.name",
        {"m.new_content": {"name": "M"}, **relating("m.replace", name.event.event_id)},
    )
    assert bundle(house, bo, room, name.event.event_id) == {}


async def test_encrypted_edits_have_their_new_content_inside(scene):
    """[C9.13]."""
    house, room, ann, bo, _ = scene
    secret = (await house.message(ann, room, "m.room.encrypted", {"ciphertext": "a"})).event
    content = {"ciphertext": "b", **relating("m.replace", secret.event_id)}
    changed = (await house.message(ann, room, "m.room.encrypted", content)).event
    assert bundle(house, bo, room, secret.event_id)["m.replace"]["event_id"] == changed.event_id


async def test_the_edit_that_was_the_latest_is_redacted(scene):
    """[C9.15]: the one before it shows again; a redacted original shows none."""
    house, room, ann, bo, _ = scene
    original = await sent(house, ann, room, "one")
    first = await edit(house, ann, room, original, "two")
    last = await edit(house, ann, room, original, "three")
    await house.redact(ann, room, last)
    assert bundle(house, bo, room, original)["m.replace"]["event_id"] == first
    await house.redact(ann, room, original)
    assert "m.replace" not in bundle(house, bo, room, original)
    assert children(house, bo, room, original)[0] == [first]


async def test_edits_with_equal_times_are_ordered_by_id():
    """[C9.13]: origin_server_ts, then the greatest event id."""
    async with household() as house:
        graph = Graph("11")
        graph.begin("@bob:far.test")
        ann = await house.user("ann")
        room = await graph.deliver_all(house)
        await house.join(ann, room)
        graph.add(house.timeline(room)[-1].event)
        original = graph.make("m.room.message", "@bob:far.test", {"body": "one"})
        made = []
        for number in range(5):
            content = {"m.new_content": {"n": number}, **relating("m.replace", original.event_id)}
            made.append(
                graph.make("m.room.message", "@bob:far.test", content, origin_server_ts=5_000)
            )
        await graph.deliver(house, original, *made)
        found = bundle(house, ann, room, original.event_id)["m.replace"]["event_id"]
        assert found == max(event.event_id for event in made)
        # One that comes later, and says that it was sent later, wins.
        late = graph.make(
            "m.room.message",
            "@bob:far.test",
            {"m.new_content": {}, **relating("m.replace", original.event_id)},
            prev=[made[-1]],
            origin_server_ts=6_000,
        )
        await graph.deliver(house, late)
        found = bundle(house, ann, room, original.event_id)["m.replace"]["event_id"]
        assert found == late.event_id


# --- reactions and references


async def test_reactions_are_refused_twice_and_never_bundled(scene):
    """[C9.14], [C10.01]."""
    house, room, ann, bo, _ = scene
    target = await sent(house, ann, room, "one")
    first = await react(house, bo, room, target, "+")
    with pytest.raises(DuplicateAnnotation):
        await react(house, bo, room, target, "+")
    await react(house, bo, room, target, "-")
    await react(house, ann, room, target, "+")
    annotation = relating("m.annotation", target, key="+")
    await house.message(bo, room, "x.reaction", annotation)
    assert bundle(house, ann, room, target) == {}
    assert len(children(house, ann, room, target)[0]) == 4
    await house.redact(bo, room, first)
    assert len(children(house, ann, room, target)[0]) == 3
    await react(house, bo, room, target, "+")


async def test_references_are_bundled_as_ids(scene):
    """[C9.14]."""
    house, room, ann, bo, _ = scene
    target = await sent(house, ann, room, "one")
    refs = [
        (await house.message(bo, room, "x.ref", relating("m.reference", target))).event.event_id
        for _ in range(3)
    ]
    chunk = [{"event_id": event_id} for event_id in refs]
    assert bundle(house, ann, room, target) == {"m.reference": {"chunk": chunk}}
    await house.redact(bo, room, refs[1])
    del chunk[1]
    assert bundle(house, ann, room, target) == {"m.reference": {"chunk": chunk}}
    # A redacted parent keeps its children ([C9.15]).
    await house.redact(ann, room, target)
    assert bundle(house, ann, room, target) == {"m.reference": {"chunk": chunk}}


async def test_rich_replies_are_no_relations(scene):
    """[C9.10]."""
    house, room, ann, bo, _ = scene
    target = await sent(house, ann, room, "one")
    reply = {"m.relates_to": {"m.in_reply_to": {"event_id": target}}}
    answer = await sent(house, bo, room, "two", **reply)
    assert children(house, ann, room, target)[0] == []
    assert bundle(house, ann, room, target) == {}
    # And one may begin a thread there.
    await sent(house, ann, room, "three", **relating("m.thread", answer))


@pytest.mark.parametrize(
    "relates_to",
    [
        None,
        5,
        [],
        {},
        {"rel_type": "m.thread"},
        {"rel_type": 5, "event_id": "TARGET"},
        {"rel_type": "m.reference", "event_id": 5},
        {"rel_type": None, "event_id": "TARGET"},
    ],
)
async def test_odd_relations_are_ignored(scene, relates_to):
    """ "Relationships which don't match the schema ... are simply ignored"."""
    house, room, ann, bo, _ = scene
    target = await sent(house, ann, room, "one")
    if isinstance(relates_to, dict) and relates_to.get("event_id") == "TARGET":
        relates_to = relates_to | {"event_id": target}
    odd = await sent(house, bo, room, "odd", **{"m.relates_to": relates_to})
    assert children(house, ann, room, target)[0] == []
    assert house.shown_event(ann, room, odd)["content"]["m.relates_to"] == relates_to


async def test_relations_end_at_the_room(scene):
    """A child in another room is no child."""
    house, room, ann, bo, _ = scene
    target = await sent(house, ann, room, "one")
    other = await house.room(bo)
    await sent(house, bo, other, "elsewhere", **relating("m.thread", target))
    await sent(house, bo, other, "elsewhere", **relating("m.reference", target))
    assert bundle(house, bo, room, target) == {}
    assert children(house, bo, room, target)[0] == []
    assert roots(house, bo, room)[0] == []
    with pytest.raises(NotFound):
        children(house, bo, other, target)


# --- threads


async def test_a_thread_is_summed_up_at_its_root(scene):
    """[C9.14]: the newest reply with its own bundle, the count, whether one took part."""
    house, room, ann, bo, cy = scene
    root = await sent(house, ann, room, "root")
    thread = relating("m.thread", root)
    for number in range(3):
        last = await sent(house, bo, room, f"reply {number}", **thread)
    changed = await edit(house, bo, room, last, "better")
    found = bundle(house, cy, room, root)["m.thread"]
    assert (found["count"], found["current_user_participated"]) == (3, False)
    assert found["latest_event"]["event_id"] == last
    own = found["latest_event"]["unsigned"]["m.relations"]["m.replace"]
    assert own["event_id"] == changed
    for who in (ann, bo):
        assert bundle(house, who, room, root)["m.thread"]["current_user_participated"] is True
    await house.redact(bo, room, last)
    found = bundle(house, cy, room, root)["m.thread"]
    assert (found["count"], found["latest_event"]["content"]["body"]) == (2, "reply 1")
    await house.redact(ann, room, root)
    shown = house.shown_event(cy, room, root)
    assert shown["content"] == {}
    assert shown["unsigned"]["m.relations"]["m.thread"]["count"] == 2


async def test_threads_begin_only_at_events_that_relate_to_nothing(scene):
    """[C10.01]: 400 M_UNKNOWN; what other servers make of it is no thread."""
    house, room, ann, bo, _ = scene
    root = await sent(house, ann, room, "root")
    reply = await sent(house, bo, room, "reply", **relating("m.thread", root))
    reaction = await react(house, bo, room, root, "+")
    changed = await edit(house, ann, room, root, "changed")
    for parent in (reply, reaction, changed):
        with pytest.raises(Unknown) as caught:
            await sent(house, ann, room, "nested", **relating("m.thread", parent))
        assert type(caught.value) is Unknown
    await sent(house, ann, room, "unknown root", **relating("m.thread", "$unknown"))
    assert [one["event_id"] for one in roots(house, ann, room)[0]] == [root]


async def test_the_list_of_threads(scene):
    """[C9.11]: by the newest reply, paged, all or those one took part in."""
    house, room, ann, bo, cy = scene
    made = [await sent(house, ann, room, f"root {number}") for number in range(5)]
    for root in (made[3], made[0], made[4], made[1], made[2], made[0]):
        await sent(house, bo, room, "reply", **relating("m.thread", root))
    await sent(house, cy, room, "reply", **relating("m.thread", made[3]))
    wanted = [made[3], made[0], made[2], made[1], made[4]]
    shown, end = roots(house, ann, room)
    assert [one["event_id"] for one in shown] == wanted
    assert end is None
    assert all("m.thread" in one["unsigned"]["m.relations"] for one in shown)
    for limit in (1, 2, 3, 4):
        paged, place = [], None
        while True:
            shown, place = roots(house, ann, room, place, limit)
            paged += [one["event_id"] for one in shown]
            if place is None:
                break
        assert paged == wanted
    took_part = {
        who: [one["event_id"] for one in roots(house, who, room, participated=True)[0]]
        for who in (ann, bo, cy)
    }
    assert took_part == {ann: wanted, bo: wanted, cy: [made[3]]}
    stranger = await house.user("eve")
    with pytest.raises(Forbidden):
        roots(house, stranger, room)


async def test_ignored_users_in_threads(scene):
    """[C9.11], [C9.14], [C15.09]: not counted, not shown; their roots without content."""
    house, room, ann, bo, cy = scene
    root = await sent(house, bo, room, "secret root", x="secret")
    other = await sent(house, ann, room, "other root")
    thread = relating("m.thread", root)
    await sent(house, ann, room, "seen", **thread)
    await sent(house, bo, room, "ignored", **thread)
    await sent(house, bo, room, "ignored", **relating("m.thread", other))
    await edit(house, bo, room, root, "ignored too")
    reference = await house.message(bo, room, "x.ref", relating("m.reference", other))
    await ignore(house, cy, bo.user_id)
    shown, _ = roots(house, cy, room)
    assert [one["event_id"] for one in shown] == [root]
    assert shown[0]["content"] == {}
    found = shown[0]["unsigned"]["m.relations"]["m.thread"]
    assert found["count"] == 1
    assert found["latest_event"]["content"]["body"] == "seen"
    with pytest.raises(NotFound):
        house.shown_event(cy, room, root)
    assert bundle(house, cy, room, other) == {}
    assert children(house, cy, room, other)[0] == []
    assert reference.event.event_id in children(house, ann, room, other)[0]
    assert {one["sender"] for one in house.shown(cy, room) if "state_key" not in one} == {
        ann.user_id
    }
    # State of ignored users is shown.
    assert ("m.room.member", bo.user_id) in {
        (one["type"], one.get("state_key")) for one in house.shown(cy, room)
    }


# --- pages


async def test_pages_of_children_in_both_directions(scene):
    """[C9.10]: each child once, in order, whatever the limit; nothing beyond `to`."""
    house, room, ann, bo, _ = scene
    parent = await sent(house, ann, room, "one")
    made = [
        (await house.message(bo, room, "x.ref", relating("m.reference", parent))).event.event_id
        for _ in range(7)
    ]
    places = [Place(house.stored(event_id).pos, 0) for event_id in made]
    for back, wanted in ((True, made[::-1]), (False, made)):
        for limit in (1, 2, 3, 7, 8):
            paged, place = [], None
            while True:
                found, place = children(
                    house, ann, room, parent, back=back, start=place, limit=limit
                )
                paged += found
                if place is None:
                    break
            assert paged == wanted
    found, _ = children(house, ann, room, parent, start=places[5], until=places[2])
    assert found == [made[5], made[4], made[3]]
    found, _ = children(house, ann, room, parent, start=places[2], until=places[5], back=False)
    assert found == [made[3], made[4], made[5]]
    found, _ = children(house, ann, room, parent, start=places[2], until=places[5])
    assert found == []


async def test_filters_and_recursion(scene):
    """[C9.10]: a child that does not match is not followed; three levels at most."""
    house, room, ann, bo, _ = scene
    root = await sent(house, ann, room, "root")
    reply = await sent(house, bo, room, "reply", **relating("m.thread", root))
    reaction = await react(house, ann, room, reply, "+")
    deep = (await house.message(ann, room, "x.ref", relating("m.reference", reaction))).event
    deeper = (await house.message(ann, room, "x.ref", relating("m.reference", deep.event_id))).event
    direct = await react(house, bo, room, root, "-")

    def found(**wanted: Any) -> set[str]:
        return set(children(house, ann, room, root, **wanted)[0])

    assert found() == {reply, direct}
    assert found(recurse=True) == {reply, direct, reaction, deep.event_id}
    assert deeper.event_id not in found(recurse=True)
    assert found(rel_type="m.annotation") == {direct}
    assert found(rel_type="m.annotation", recurse=True) == {direct}
    assert found(rel_type="m.thread", recurse=True) == {reply}
    assert found(rel_type="m.annotation", event_type="m.room.message") == set()
    assert found(rel_type="m.thread", event_type="m.room.message") == {reply}


async def test_children_that_one_may_not_see(scene):
    """[C9.10], T104: only visible children; an invisible parent is not there at all."""
    house, _, ann, _, _ = scene
    eve = await house.user("eve")
    hidden = await house.room(
        ann,
        preset="public_chat",
    )
    await house.set_state(
        ann, hidden, "m.room.history_visibility", "", {"history_visibility": "joined"}
    )
    before = await sent(house, ann, hidden, "before")
    await house.join(eve, hidden)
    parent = await sent(house, ann, hidden, "parent")
    await house.leave(eve, hidden)
    await sent(house, ann, hidden, "after", **relating("m.thread", parent))
    await sent(house, ann, hidden, "after", **relating("m.thread", before))
    assert bundle(house, eve, hidden, parent) == {}
    assert children(house, eve, hidden, parent)[0] == []
    assert roots(house, eve, hidden)[0] == []
    with pytest.raises(NotFound):
        children(house, eve, hidden, before)


# --- hostile graphs


@pytest.mark.parametrize("version", ["1", "2"])
async def test_t007_threads_that_run_in_a_circle(version):
    """Where servers choose event ids, two events can be each other's threads and edits."""
    async with household() as house:
        graph = Graph(version)
        bob = "@bob:far.test"
        graph.begin(bob)
        ann = await house.user("ann")
        room = await graph.deliver_all(house)
        await house.join(ann, room)
        graph.add(house.timeline(room)[-1].event)
        made = []
        for mine, other, kind in (
            ("$a:far.test", "$b:far.test", "m.thread"),
            ("$b:far.test", "$a:far.test", "m.thread"),
            ("$c:far.test", "$c:far.test", "m.thread"),
            ("$d:far.test", "$e:far.test", "m.replace"),
            ("$e:far.test", "$d:far.test", "m.replace"),
        ):
            content = {"body": mine, "m.new_content": {}, **relating(kind, other)}
            made.append(graph.make("m.room.message", bob, content, event_id=mine))
        await graph.deliver(house, *made)
        for event in made:
            house.shown_event(ann, room, event.event_id)
            found, _ = children(house, ann, room, event.event_id, recurse=True)
            assert len(found) <= 2
        assert len(house.shown(ann, room)) >= 5
        assert roots(house, ann, room)[0] == []


async def test_t007_a_long_chain_of_threads_needs_no_deep_stack():
    """Each reply is the root of the next: everything works with little stack left."""
    async with household() as house:
        graph = Graph("11")
        bob = "@bob:far.test"
        graph.begin(bob)
        ann = await house.user("ann")
        room = await graph.deliver_all(house)
        await house.join(ann, room)
        graph.add(house.timeline(room)[-1].event)
        root = last = graph.make("m.room.message", bob, {"body": "root"})
        made = [root]
        for _ in range(150):
            last = graph.make("m.room.message", bob, relating("m.thread", last.event_id))
            made.append(last)
        await graph.deliver(house, *made)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(stack_depth() + 90)
        try:
            shown = house.shown(ann, room)
            found, _ = children(house, ann, room, root.event_id, recurse=True)
        finally:
            sys.setrecursionlimit(limit)
        assert len(found) == 3
        one = next(event for event in shown if event["event_id"] == root.event_id)
        thread = one["unsigned"]["m.relations"]["m.thread"]
        assert (thread["count"], thread["latest_event"]["event_id"]) == (1, made[1].event_id)
        assert "m.relations" not in thread["latest_event"]["unsigned"]


def stack_depth() -> int:
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    return depth


async def test_bundles_are_only_where_they_belong(scene):
    """[C9.12]: without `bundled` there are none, and none on state events."""
    house, room, ann, _, _ = scene
    target = await sent(house, ann, room, "one")
    await edit(house, ann, room, target, "two")

    def plain(reader: Any) -> bytes:
        return encode(Formatter(reader).event(timeline.event(reader, target)))

    assert "m.relations" not in json.loads(house.look(ann, room, plain))["unsigned"]
    name = (await house.set_state(ann, room, "m.room.name", "", {"name": "N"})).event.event_id
    await house.message(ann, room, "x.ref", relating("m.reference", name))
    assert bundle(house, ann, room, name) == {}
    assert house.store.read(events.relations, name)
