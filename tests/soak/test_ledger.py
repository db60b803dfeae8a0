"""The soak's judge notices what is missing, twice, unreadable or lost between devices."""

from __future__ import annotations

from typing import Any, cast

from tests.clients.conversation import Client
from tests.soak.ledger import Device, Letters, Said, Whose, compare

ANN = Client("js", "ann", "@ann:test", "A", cast("Any", None))
BOB = Client("nio", "bob", "@bob:test", "B", cast("Any", None))


def shown(event_id: str, body: str | None) -> dict[str, Any]:
    kind = "m.room.message" if body is not None else "m.room.encrypted"
    return {"id": event_id, "type": kind, "body": body}


def test_all_is_well_when_everything_is_shown_once():
    said = [Said(ANN, "one", "$1"), Said(BOB, "two", "$2"), Said(BOB, "never sent")]
    seen = compare(said, {"timeline": [shown("$1", "one"), shown("$2", "two")]})
    assert seen.is_complete


def test_what_is_missing_unreadable_or_there_twice_is_noticed():
    said = [Said(ANN, body, f"${body}") for body in ("one", "two", "three")]
    timeline = [shown("$one", "one"), shown("$two", None), shown("$other", "one")]
    seen = compare(said, {"timeline": timeline})
    assert [one.body for one in seen.missing] == ["three"]
    assert [one.body for one in seen.undecryptable] == ["two"]
    assert seen.doubled == ["'one' as ['$one', '$other']"]
    assert seen.sent_twice == seen.doubled
    shown_twice = compare(said[:1], {"timeline": [shown("$one", "one")] * 2})
    assert (shown_twice.doubled, shown_twice.sent_twice) == (["'one' as ['$one', '$one']"], [])
    assert not seen.is_complete
    assert len(compare(said, None).missing) == 3


BOBS: Device = ("@bob:test", "B")


def test_a_message_between_devices_that_was_acknowledged_and_never_came_is_noticed():
    letters = Letters()
    letters.record(ANN, [["sent", *BOBS, "x", 0.0], ["sent", *BOBS, "y", 0.0]])
    letters.record(ANN, [["sent", "@cy:test", "does not tell", "z", 0.0]])
    letters.record(BOB, [["received", "@ann:test", None, "x", 0.0]])
    assert letters.lost() == {BOBS: ["y"]}
    assert letters.counted == 2
    letters.record(BOB, [["received", "@ann:test", None, "y", 0.0]])
    assert letters.lost() == {}


def test_what_is_sent_to_a_device_that_signed_out_is_not_awaited():
    letters = Letters()
    letters.record(BOB, [])
    letters.record(ANN, [["sent", *BOBS, "x", 0.0]])
    letters.leaves(BOBS)
    letters.record(ANN, [["sent", *BOBS, "y", 1.0]])
    assert letters.lost() == {BOBS: ["x"]}


def verdict(*found: str, knows: bool = True, remote: bool = False, lose: bool = False) -> Whose:
    """Of claims at a time when a fault explains those that are unreachable or unanswered."""
    letters = Letters()
    letters.record(BOB, [] if lose else [["received", "@ann:test", None, "x", 5.0]])
    letters.record(ANN, [["sent", *BOBS, "x", 5.0], *([kind, *BOBS, "", 5.0] for kind in found)])
    return letters.verdict(
        ANN, BOBS, since=4.0, knows=knows, remote=remote, explained=lambda *_: "calm" not in found
    ).whose


def test_who_was_asked_for_a_key_in_vain_during_a_fault_is_not_to_blame():
    assert verdict("unreachable", remote=True) is Whose.PEER
    assert verdict("unanswered", "unanswered") is Whose.CLIENT
    assert verdict() is Whose.CLIENT
    assert verdict(remote=True) is Whose.PEER


def test_a_server_that_has_no_key_or_loses_messages_or_does_not_answer_is_to_blame():
    assert verdict("refused", remote=True) is Whose.SERVER
    assert verdict("unreachable", "calm") is Whose.SERVER
    assert verdict("unanswered", "calm", remote=True) is Whose.SERVER
    assert verdict(knows=False) is Whose.SERVER
    assert verdict(lose=True) is Whose.SERVER


def test_what_was_before_the_round_explains_nothing_in_it():
    letters = Letters()
    letters.record(BOB, [])
    letters.record(ANN, [["refused", *BOBS, "", 5.0]])
    found = letters.verdict(
        ANN, BOBS, since=6.0, knows=True, remote=False, explained=lambda *_: False
    )
    assert found.whose is Whose.CLIENT
