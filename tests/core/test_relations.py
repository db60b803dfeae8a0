"""Relations between events [C9.12]-[C9.15]."""

from __future__ import annotations

import pytest

from matrixbox.core.relations import (
    Relation,
    ThreadSummary,
    bundle,
    has_relation,
    is_valid_edit,
    latest_edit,
    may_start_thread,
    relation_of,
    thread_of,
)
from tests.core.making import CREATOR, standard_room

ROOM = standard_room("12")


def message(content=None, *, sender=CREATOR, **how):
    return ROOM.make("m.room.message", content or {"body": "x"}, sender=sender, **how)


def child(rel_type, parent, *, sender=CREATOR, type_="m.room.message", **content):
    relates_to = {"rel_type": rel_type, "event_id": parent}
    how = content.pop("how", {})
    return ROOM.make(type_, {"m.relates_to": relates_to, **content}, sender=sender, **how)


@pytest.mark.parametrize(
    ("relates_to", "relation"),
    [
        ({"rel_type": "m.thread", "event_id": "$a"}, Relation("m.thread", "$a", None)),
        (
            {"rel_type": "m.annotation", "event_id": "$a", "key": "👍"},
            Relation("m.annotation", "$a", "👍"),
        ),
        ({"rel_type": "x", "event_id": "$a", "key": 5}, Relation("x", "$a", None)),
        ({"m.in_reply_to": {"event_id": "$a"}}, None),
        ({"rel_type": 5, "event_id": "$a"}, None),
        ({"rel_type": "x", "event_id": ["$a"]}, None),
        ({"event_id": "$a"}, None),
        ({"rel_type": "x"}, None),
        ([], None),
        (None, None),
        ("x", None),
    ],
)
def test_well_formed_relations_are_read_and_others_ignored(relates_to, relation):
    event = message({"m.relates_to": relates_to})
    assert relation_of(event) == relation
    assert may_start_thread(event) is (relation is None)


def test_types_of_relations_are_told_apart():
    event = child("m.thread", "$a")
    assert has_relation(event, "m.thread")
    assert not has_relation(event, "m.replace")
    assert not has_relation(message(), "m.thread")
    assert may_start_thread(message())


def test_a_thread_is_found_within_three_hops():
    root = message()
    events = {root.event_id: root}

    def relate(rel_type, parent):
        event = child(rel_type, parent.event_id)
        events[event.event_id] = event
        return event

    in_thread = relate("m.thread", root)
    reaction = relate("m.annotation", in_thread)
    second = relate("m.reference", reaction)
    third = relate("m.reference", second)
    for event in (in_thread, reaction, second):
        assert thread_of(event, events.get) == root.event_id
    assert thread_of(third, events.get) is None
    assert thread_of(root, events.get) is None
    assert thread_of(relate("m.annotation", root), events.get) is None
    lost = child("m.annotation", "$unknown")
    assert thread_of(lost, events.get) is None


NEW = {"m.new_content": {"body": "y"}}


def test_an_edit_by_its_author_is_valid():
    original = message()
    assert is_valid_edit(original, child("m.replace", original.event_id, **NEW))


def test_edits_that_are_not_valid():
    """ "Validity of replacement events" """
    original = message()
    name = original.event_id
    for edit in (
        child("m.replace", "$other", **NEW),
        child("m.reference", name, **NEW),
        message(NEW),
        child("m.replace", name, sender="@mod:one.test", **NEW),
        child("m.replace", name, type_="m.other", **NEW),
        child("m.replace", name, how={"key": ""}, **NEW),
        child("m.replace", name, how={"room_id": "!other"}, **NEW),
        child("m.replace", name),
    ):
        assert not is_valid_edit(original, edit)


def test_state_and_edits_are_not_edited():
    state = message(key="")
    assert not is_valid_edit(state, child("m.replace", state.event_id, **NEW))
    edit = child("m.replace", "$first", **NEW)
    assert not is_valid_edit(edit, child("m.replace", edit.event_id, **NEW))


def test_encrypted_edits_need_no_readable_content():
    original = ROOM.make("m.room.encrypted", {"ciphertext": "x"}, sender=CREATOR)
    edit = child("m.replace", original.event_id, type_="m.room.encrypted")
    assert is_valid_edit(original, edit)


def test_the_latest_edit_goes_by_time_and_then_by_id():
    original = message()

    def edit(ts, **how):
        return child("m.replace", original.event_id, how={"origin_server_ts": ts}, **NEW, **how)

    early, late, same = edit(5), edit(7), edit(7)
    foreign = edit(9, sender="@mod:one.test")
    winner = max(late, same, key=lambda event: event.event_id)
    assert latest_edit(original, [late, early, foreign, same]) is winner
    assert latest_edit(original, [same, late]) is winner
    assert latest_edit(original, [early]) is early
    assert latest_edit(original, [foreign]) is None
    assert latest_edit(original, []) is None


def test_bundles_hold_what_there_is():
    """[C9.12], [C9.14]"""
    assert bundle() == {}
    assert bundle(edit={"event_id": "$e"}) == {"m.replace": {"event_id": "$e"}}
    assert bundle(references=["$a", "$b"]) == {
        "m.reference": {"chunk": [{"event_id": "$a"}, {"event_id": "$b"}]}
    }
    summary = ThreadSummary({"event_id": "$l"}, 7, current_user_participated=True)
    assert bundle(thread=summary) == {
        "m.thread": {
            "latest_event": {"event_id": "$l"},
            "count": 7,
            "current_user_participated": True,
        }
    }
