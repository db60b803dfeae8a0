"""Each departure of Synapse from the text by one small room."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.oracle.answers import Difference, answer, differences, truth_of
from tests.oracle.explaining import BY_NAME, explain
from tests.oracle.moves import third_party_key, third_party_signature, unpadded
from tests.oracle.story import ALICE, AMY, BOB, CARL, Story
from tests.oracle.synapse_pipe import Synapse

Told = tuple[Story, str, object, object]
"""A room, the matter in which Synapse differs, what the text says, what Synapse says."""

EXAMPLES: dict[str, Callable[[], Told]] = {}


def example(name: str) -> Callable[[Callable[[], Told]], Callable[[], Told]]:
    def register(tell: Callable[[], Told]) -> Callable[[], Told]:
        EXAMPLES[name] = tell
        return tell

    return register


@example("federate: only true")
def _() -> Told:
    story = Story("11", **{"m.federate": "no"})
    story.join_rule()
    story.member(BOB, "join")
    return story, "by_state", "+", "-"


@example("federate: target too")
def _() -> Told:
    story = Story("11", **{"m.federate": False})
    story.member(BOB, "invite", by=ALICE)
    return story, "by_state", "+", "-"


@example("member: target without domain")
def _() -> Told:
    story = Story("11")
    story.member("nobody", "invite", by=ALICE)
    return story, "by_state", "+", "-"


@example("redaction: of nothing")
def _() -> Told:
    story = Story("1")
    story.join_rule()
    story.member(BOB, "join")
    story.tell("m.room.redaction", BOB, {})
    return story, "by_state", "-", "+"


@example("levels: lax user ids")
def _() -> Told:
    story = Story("11")
    story.levels(users={ALICE: 100, "@bob:not a server": 0})
    return story, "by_state", "-", "+"


@example("levels: Python integers")
def _() -> Told:
    story = Story("9")
    story.levels(users={ALICE: 100, BOB: "1_0"})
    return story, "by_state", "-", "+"


@example("signatures: authoriser of joins only")
def _() -> Told:
    story = Story("11")
    content = {"join_authorised_via_users_server": BOB}
    story.member(ALICE, "leave", content=content, unsigned=True)
    return story, "signatures", "-", "+"


@example("3pid invites: first signature")
def _() -> Told:
    story = Story("11")
    key = unpadded(bytes(third_party_key(1).verify_key))
    story.tell("m.room.third_party_invite", ALICE, {"public_key": key}, "token")
    signatures = {
        "ed25519:1": third_party_signature(2, BOB, "token"),
        "ed25519:2": third_party_signature(1, BOB, "token"),
    }
    signed = {"mxid": BOB, "token": "token", "signatures": {"id.test": signatures}}
    story.member(BOB, "invite", by=ALICE, content={"third_party_invite": {"signed": signed}})
    return story, "by_state", "+", "-"


@example("levels: another state key")
def _() -> Told:
    story = Story("11")
    story.levels(users={ALICE: 50})
    story.levels(users={ALICE: 100}, key="another")
    return story, "by_state", "-", "+"


@example("power events: empty state key")
def _() -> Told:
    """Power levels under another key, allowed only before those under the empty key."""
    story = Story("3")
    other = story.levels(users={ALICE: 100}, key="another")
    levels = story.levels(users={ALICE: 10})
    story.probe((0, 1), (0, 1, other, levels))
    return story, "probe", [0, 1, other, levels], [0, 1, levels]


@example("auth chain: with the event")
def _() -> Told:
    """Alice's second membership is in both states; only one of the states has an event citing it.

    In the text it is therefore in the auth difference and brings the first join rule into the
    events to be sorted by power, where it loses.  For Synapse the first join rule comes last.
    """
    story = Story("11")
    first = story.join_rule(ts=100)
    again = story.member(ALICE, "join", ts=3)
    second = story.join_rule("invite", ts=50)
    story.probe((0, again, first), (0, again, second))
    return story, "probe", [0, again, second], [0, first, again]


@example("power events: chain within the set")
def _() -> Told:
    """A join rule needs Alice's membership, which it reaches only by way of the power levels.

    Those are in both states and cited in both; the membership is in one state only.
    """
    story = Story("2")
    levels = story.levels(users={ALICE: 100})
    rule = story.join_rule(auth=(0, levels))
    cited = story.member(BOB, "invite", by=ALICE, after=(levels,), auth=(0, levels))
    story.probe((0, levels, rule), (0, 1, levels, cited))
    return story, "probe", [0, 1, levels, rule, cited], [0, 1, levels, cited]


@example("rejected events: stay out")
def _() -> Told:
    story = Story("11")
    levels = story.levels(users={ALICE: 100})
    story.probe((0, 1), (0, 1, levels), rejected=(levels,))
    return story, "probe", [0, 1, levels], [0, 1]


@example("rejected events: passed over")
def _() -> Told:
    story = Story("11")
    rule = story.join_rule()
    story.probe((0, 1), (0, 1, rule), rejected=(1,))
    return story, "probe", [0, 1, rule], [0, 1]


@example("fails: incomplete member event")
def _() -> Told:
    story = Story("11")
    story.tell("m.room.member", ALICE, {"displayname": "Alice"}, ALICE)
    return story, "by_state", "-", "!KeyError"


@example("fails: auth event without state key")
def _() -> Told:
    story = Story("11")
    message = story.tell("m.room.message", ALICE, {})
    story.tell("m.room.message", ALICE, {}, auth=(0, 1, message))
    return story, "auth_events", "-", "!AttributeError"


@example("fails: unreadable level")
def _() -> Told:
    story = Story("9")
    story.levels(users={ALICE: 100}, events_default="many")
    story.tell("m.room.message", ALICE, {})
    return story, "by_state", "-", "!ValueError"


@example("fails: create event cited")
def _() -> Told:
    story = Story("12")
    story.tell("m.room.message", ALICE, {}, auth=(0, 1))
    return story, "auth_events", "-", "!RuntimeError"


@example("fails: create with a room id")
def _() -> Told:
    story = Story("12")
    story.tell("m.room.create", ALICE, {"room_version": "12"}, "", after=(), auth=())
    return story, "by_state", "-", "!BadJson"


@example("fails: users not an object")
def _() -> Told:
    story = Story("11")
    story.levels(users=[ALICE])
    return story, "by_state", "-", "!AttributeError"


@pytest.mark.parametrize("name", BY_NAME)
def test_synapse_departs_from_the_text_here(name: str, synapse: Synapse) -> None:
    story, what, truth, said = EXAMPLES[name]()
    found = [one for one in asked(story, synapse) if one.what == what]
    assert [(one.truth, one.said) for one in found] == [(truth, said)]
    assert explained(story, found[0]) == (name,)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_departure_says_what_it_is(name: str) -> None:
    assert len(BY_NAME[name].why) > 40


def test_an_answer_that_no_departure_gives_is_not_explained() -> None:
    story = Story("11")
    story.join_rule()
    story.member(CARL, "join")
    last = len(story.graph.steps) - 1
    assert explained(story, Difference("by_state", last, "+", "-")) is None


def test_a_departure_explains_only_the_very_answer(synapse: Synapse) -> None:
    """The example of one departure, with another answer than Synapse's."""
    story, _, _, _ = EXAMPLES["auth chain: with the event"]()
    [found] = asked(story, synapse)
    wrong = Difference(found.what, found.at, found.truth, [0])
    assert explained(story, found) is not None
    assert explained(story, wrong) is None


def test_where_nobody_departs_synapse_agrees(synapse: Synapse) -> None:
    story = Story("11")
    story.join_rule()
    story.member(AMY, "join")
    story.levels(users={ALICE: 100, AMY: 50})
    story.member(BOB, "invite", by=AMY)
    assert asked(story, synapse) == []


def asked(story: Story, synapse: Synapse) -> list[Difference]:
    synapse.ask([story.graph])
    [said] = synapse.answers([story.graph])
    return list(differences(truth_of(story.graph), said))


def explained(story: Story, found: Difference) -> tuple[str, ...] | None:
    graph = story.graph
    return explain(
        graph.version.name,
        lambda version: bool(answer(graph, version, found.what, found.at) == found.said),
    )
