"""The soak's judge notices what is missing, twice, unreadable or lost between devices."""

from __future__ import annotations

from typing import Any, cast

from tests.clients.conversation import Client
from tests.soak.ledger import Letters, Said, compare

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


def test_a_message_between_devices_that_was_acknowledged_and_never_came_is_noticed():
    letters = Letters()
    letters.record(ANN, [["sent", "@bob:test", "B", "x"], ["sent", "@bob:test", "B", "y"]])
    letters.record(ANN, [["sent", "@cy:test", "does not tell", "z"]])
    letters.record(BOB, [["received", "@ann:test", None, "x"]])
    assert letters.lost() == {("@bob:test", "B"): ["y"]}
    assert letters.counted == 2
    letters.record(BOB, [["received", "@ann:test", None, "y"]])
    assert letters.lost() == {}
