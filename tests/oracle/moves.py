"""The moves people and servers make in a room: mostly legal, some nearly.

A move looks at the state in which it will be made and gives type, sender, state key and content;
`generate` gives it a place in the graph.  Which moves a room version knows, and how often each is
made, is in `TABLE`.
"""

from __future__ import annotations

import base64
import functools
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nacl.signing import SigningKey

from tests.oracle.graphs import Graph
from tests.oracle.judging import StateIds
from tests.oracle.levels import new_power_levels
from tests.reference.event_ids import canonical_json
from tests.reference.words import JOIN_RULES, POWER_LEVELS, domain_of

USERS = (
    "@alice:a.test",
    "@amy:a.test",
    "@bob:b.test",
    "@beth:b.test",
    "@carl:c.test:8448",
    "@dora:d.test",
)
ODD_JOIN_RULES: tuple[dict[str, Any], ...] = (
    {},
    {"join_rule": 5},
    {"join_rule": None},
    {"join_rule": "knock_restricted"},
)
TOKENS = ("t1", "t2", "t3")


@dataclass(frozen=True, slots=True)
class Move:
    kind: str
    type: str
    sender: str
    content: dict[str, Any] = field(default_factory=dict)
    state_key: str | None = None
    redacts: int | str | None = None


@dataclass(slots=True)
class Room:
    """A graph under construction, with what the moves need to know."""

    graph: Graph
    rng: random.Random
    creator: str
    number: int

    def content(self, state: StateIds, key: tuple[str, str]) -> Mapping[str, Any]:
        event_id = state.get(key)
        return {} if event_id is None else self.graph.events[event_id]["content"]

    def membership(self, state: StateIds, user: str) -> Any:
        return self.content(state, ("m.room.member", user)).get("membership", "leave")

    def those(self, state: StateIds, *memberships: str) -> list[str]:
        return [user for user in USERS if self.membership(state, user) in memberships]

    def someone(self, state: StateIds, *memberships: str) -> str:
        """Mostly somebody with one of the memberships, now and then anybody."""
        fitting = self.those(state, *memberships)
        if fitting and self.rng.random() < 0.9:
            return self.rng.choice(fitting)
        return self.rng.choice(USERS)

    def member(self, state: StateIds) -> str:
        return self.someone(state, "join")

    def powerful(self, state: StateIds) -> str:
        """Mostly a member with a level of his or her own."""
        listed = self.content(state, POWER_LEVELS).get("users")
        names = [*(listed if isinstance(listed, Mapping) else ()), self.creator]
        fitting: list[str] = [user for user in names if self.membership(state, user) == "join"]
        if fitting and self.rng.random() < 0.85:
            return self.rng.choice(fitting)
        return self.member(state)


Maker = Callable[[Room, StateIds], Move | None]


def message(room: Room, state: StateIds) -> Move:
    return Move("message", "m.room.message", room.member(state), {"body": "hi"})


def topic(room: Room, state: StateIds) -> Move:
    kind = room.rng.choice(("topic", "name", "history_visibility"))
    content = {
        "topic": {"topic": "t"},
        "name": {"name": "n"},
        "history_visibility": {"history_visibility": room.rng.choice(("shared", "joined"))},
    }[kind]
    return Move(kind, f"m.room.{kind}", room.powerful(state), content, "")


def keyed_state(room: Room, state: StateIds) -> Move:
    """State under a user id, one's own or another's, or under any other key."""
    sender = room.powerful(state)
    key = room.rng.choice((sender, sender, room.rng.choice(USERS), "other", "@"))
    return Move("keyed state", "org.example.state", sender, {"x": 1}, key)


def aliases(room: Room, state: StateIds) -> Move:
    sender = room.rng.choice(USERS)
    key = room.rng.choice((domain_of(sender), domain_of(sender), "b.test", "", None))
    return Move("aliases", "m.room.aliases", sender, {"aliases": []}, key)


def redaction(room: Room, state: StateIds) -> Move:
    graph, rng = room.graph, room.rng
    sender, target = room.member(state), rng.randrange(len(graph.steps))
    own = [at for at, step in enumerate(graph.steps) if step.sender == sender]
    if own and rng.random() < 0.3:
        target = rng.choice(own)
    if room.number >= 11:
        return Move("redaction", "m.room.redaction", sender, {"redacts": graph.ids[target]})
    redacts: int | str | None = target
    if rng.random() < 0.15:
        redacts = rng.choice((None, "nonsense", "$e:b.test"))
    return Move("redaction", "m.room.redaction", sender, {}, redacts=redacts)


def member_event(kind: str, sender: str, target: str, content: dict[str, Any]) -> Move:
    return Move(kind, "m.room.member", sender, content, target)


def join(room: Room, state: StateIds) -> Move:
    user = room.someone(state, "leave", "invite", "knock")
    content: dict[str, Any] = {"membership": "join"}
    if room.number >= 8:
        rule = room.content(state, JOIN_RULES).get("join_rule")
        if room.rng.random() < (0.8 if rule in ("restricted", "knock_restricted") else 0.05):
            content["join_authorised_via_users_server"] = room.powerful(state)
    return member_event("join", user, user, content)


def profile(room: Room, state: StateIds) -> Move:
    user = room.someone(state, "join")
    content = {"membership": "join", "displayname": room.rng.choice(("A", "B"))}
    return member_event("profile", user, user, needless_authoriser(room, content))


def invite(room: Room, state: StateIds) -> Move:
    target = room.someone(state, "leave", "knock", "invite")
    content = needless_authoriser(room, {"membership": "invite"})
    return member_event("invite", room.member(state), target, content)


def leave(room: Room, state: StateIds) -> Move:
    user = room.someone(state, "join", "invite", "knock")
    return member_event("leave", user, user, needless_authoriser(room, {"membership": "leave"}))


def needless_authoriser(room: Room, content: dict[str, Any]) -> dict[str, Any]:
    """Now and then, an authorising user where nobody asks for one."""
    if room.rng.random() < 0.02:
        content["join_authorised_via_users_server"] = room.rng.choice(USERS)
    return content


def kick(room: Room, state: StateIds) -> Move:
    target = room.someone(state, "join", "invite", "knock")
    return member_event("kick", room.powerful(state), target, {"membership": "leave"})


def ban(room: Room, state: StateIds) -> Move:
    target = room.rng.choice(USERS)
    content = needless_authoriser(room, {"membership": "ban"})
    return member_event("ban", room.powerful(state), target, content)


def unban(room: Room, state: StateIds) -> Move | None:
    banned = room.those(state, "ban")
    if not banned:
        return None
    target = room.rng.choice(banned)
    return member_event("unban", room.powerful(state), target, {"membership": "leave"})


def knock(room: Room, state: StateIds) -> Move | None:
    rule = room.content(state, JOIN_RULES).get("join_rule")
    if rule not in ("knock", "knock_restricted") and room.rng.random() < 0.7:
        return None
    user = room.someone(state, "leave", "knock")
    return member_event("knock", user, user, {"membership": "knock"})


def for_another(room: Room, state: StateIds) -> Move:
    """Joining or knocking in another's name, or a membership that does not exist."""
    odd = ("join", "knock", "knock", "ignore", None, 5, "leave", "ban")
    membership = room.rng.choice(odd)
    target = room.rng.choice(USERS)
    return member_event("odd member", room.member(state), target, {"membership": membership})


def power_levels(room: Room, state: StateIds) -> Move:
    sender = room.powerful(state)
    old = room.content(state, POWER_LEVELS)
    content = new_power_levels(room.rng, room.number, old, USERS, sender)
    return Move("power levels", "m.room.power_levels", sender, content, "")


def join_rules(room: Room, state: StateIds) -> Move:
    rules = ["public", "public", "public", "invite", "private", "knock", "restricted"]
    if room.number >= 10:
        rules.append("knock_restricted")
    content: dict[str, Any] = {"join_rule": room.rng.choice(rules)}
    if room.rng.random() < 0.06:
        content = room.rng.choice(ODD_JOIN_RULES)
    return Move("join rules", "m.room.join_rules", room.powerful(state), content, "")


@functools.cache
def third_party_key(number: int) -> SigningKey:
    return SigningKey(bytes([number]) * 32)


@functools.cache
def third_party_signature(key: int, mxid: str, token: str) -> str:
    signed = third_party_key(key).sign(canonical_json({"mxid": mxid, "token": token}))
    return unpadded(signed.signature)


def unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def third_party_offer(room: Room, state: StateIds) -> Move:
    keys = [unpadded(bytes(third_party_key(number).verify_key)) for number in (1, 2)]
    content: dict[str, Any] = room.rng.choice(
        (
            {"public_key": keys[0]},
            {"public_key": keys[1], "public_keys": [{"public_key": keys[0]}]},
            {"public_keys": [{"public_key": keys[1]}, {"public_key": keys[0]}]},
            {"public_key": keys[1]},
            {"public_key": "not base64", "public_keys": [{"public_key": keys[0]}]},
            {"public_key": keys[0].replace("+", "-").replace("/", "_") + "="},
        )
    )
    token = room.rng.choice(TOKENS)
    sender = room.powerful(state)
    return Move("3pid offer", "m.room.third_party_invite", sender, content, token)


def third_party_invite(room: Room, state: StateIds) -> Move | None:
    offers = [key[1] for key in state if key[0] == "m.room.third_party_invite"]
    if not offers and room.rng.random() < 0.97:
        return None
    rng, target = room.rng, room.someone(state, "leave", "knock", "ban")
    token = rng.choice(offers or TOKENS)
    sender = room.member(state)
    if offers and rng.random() < 0.9:
        sender = room.graph.events[state["m.room.third_party_invite", token]]["sender"]
    mxid = target if rng.random() < 0.92 else rng.choice(USERS)
    signature = third_party_signature(1, mxid, token if rng.random() < 0.92 else "other")
    signed: dict[str, Any] = {
        "mxid": mxid,
        "token": token,
        "signatures": {"id.test": {"ed25519:0": signature}},
    }
    if rng.random() < 0.1:
        bad = third_party_signature(2, mxid, "another")
        signed["signatures"] = rng.choice(
            (
                {"a.test": {"ed25519:0": bad}, "id.test": {"ed25519:0": signature}},
                {"id.test": {"ed25519:0": bad, "ed25519:1": signature}},
                {"id.test": {"other:0": bad, "ed25519:1": signature, "ed25519:2": "!"}},
            )
        )
    if rng.random() < 0.08:
        del signed[rng.choice(("mxid", "token", "signatures"))]
    invite: dict[str, Any] = {"display_name": "x", "signed": signed}
    if rng.random() < 0.03:
        invite = {"display_name": "x"}
    return member_event(
        "3pid invite", sender, target, {"membership": "invite", "third_party_invite": invite}
    )


def second_create(room: Room, state: StateIds) -> Move:
    """A create event on top of the room."""
    content: dict[str, Any] = {"creator": room.creator}
    return Move("create later", "m.room.create", room.creator, content, "")


TABLE: tuple[tuple[Maker, float, int, int], ...] = (
    # maker, weight, first and last room version
    (message, 3, 1, 12),
    (topic, 7, 1, 12),
    (keyed_state, 2, 1, 12),
    (aliases, 2, 1, 5),
    (aliases, 0.5, 6, 12),
    (redaction, 4, 1, 2),
    (redaction, 1, 3, 12),
    (join, 14, 1, 12),
    (profile, 4, 1, 12),
    (invite, 9, 1, 12),
    (leave, 5, 1, 12),
    (kick, 7, 1, 12),
    (ban, 7, 1, 12),
    (unban, 9, 1, 12),
    (knock, 1, 1, 6),
    (knock, 6, 7, 12),
    (for_another, 2.5, 1, 12),
    (power_levels, 18, 1, 12),
    (join_rules, 8, 1, 12),
    (third_party_offer, 3, 1, 12),
    (third_party_invite, 6, 1, 12),
    (second_create, 0.3, 1, 12),
)


@functools.cache
def table_of(number: int) -> tuple[list[Maker], list[float]]:
    """The moves of a room version with their summed weights."""
    known = [(maker, weight) for maker, weight, first, last in TABLE if first <= number <= last]
    return [maker for maker, _ in known], list(itertools.accumulate(w for _, w in known))


def make_move(room: Room, state: StateIds) -> Move:
    """Draw moves until one can be made in the state."""
    makers, weights = table_of(room.number)
    while True:
        move = room.rng.choices(makers, cum_weights=weights)[0](room, state)
        if move is not None:
            return move
