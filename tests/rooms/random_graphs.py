"""Random rooms made by several servers: legal and nearly legal moves on forks of all kinds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from matrixbox.core.events import Event
from tests.rooms.far import CREATOR, Graph

ADMIN, MOD, PLAIN, GONE = "@admin:one.test", "@mod:two.test", "@plain:far.test", "@gone:one.test"
USERS = (CREATOR, ADMIN, MOD, PLAIN, GONE)
VERSIONS = ("1", "2", "6", "10", "11", "12")
MAX_TIPS = 6


def random_graph(rng: random.Random, version: str, size: int, also: Sequence[str] = ()) -> Graph:
    """A room with a common beginning and `size` events, some of them on forks, some not allowed.

    `also` are members who do nothing.
    """
    graph = Graph(version)
    graph.begin(ADMIN, MOD, PLAIN, GONE, *also, users={ADMIN: 100, MOD: 50})
    graph.beginning = len(graph.events)
    for _ in range(size):
        kind, sender, content, key = _move(rng, graph)
        parents = _parents(rng, graph)
        auth = _citations(rng, graph, kind, sender, key, content, parents)
        fields = {}
        if rng.random() < 0.2:  # clocks lie (T024)
            fields["origin_server_ts"] = rng.choice([0, 2**53 - 1, graph.now_ms - 5_000])
        graph.make(kind, sender, content, key, prev=parents, auth=auth, **fields)
    return graph


def _move(rng: random.Random, graph: Graph) -> tuple[str, str, dict[str, Any], str | None]:
    sender, other = rng.choice(USERS), rng.choice(USERS)
    draw = rng.random()
    if draw < 0.35:
        word = rng.choice(["join", "join", "leave", "leave", "ban", "ban", "invite", "knock"])
        target = sender if word in ("join", "knock") else rng.choice([sender, other])
        return "m.room.member", sender, {"membership": word}, target
    if draw < 0.55:
        users = {user: rng.choice([0, 50, 100]) for user in rng.sample(USERS, 3)}
        if graph.rules.privileged_creators:
            users.pop(CREATOR, None)
        elif rng.random() < 0.8:
            users[CREATOR] = 100
        content: dict[str, Any] = {"users": users}
        if rng.random() < 0.3:
            content["state_default"] = rng.choice([0, 50])
        return "m.room.power_levels", sender, content, ""
    if draw < 0.65:
        rule = rng.choice(["public", "invite", "knock"])
        return "m.room.join_rules", sender, {"join_rule": rule}, ""
    if draw < 0.85:
        return "m.room.topic", sender, {"topic": str(rng.random())}, ""
    return "m.room.message", sender, {"body": str(rng.random())}, None


def _parents(rng: random.Random, graph: Graph) -> list[Event]:
    made = list(graph.events.values())
    tips = _tips(made)
    if len(tips) >= MAX_TIPS or rng.random() < 0.25:
        return rng.sample(tips, min(len(tips), rng.randint(2, 4)))
    if rng.random() < 0.5:
        return [rng.choice(tips)]
    # An old parent, but for the room's beginning; now and then two that are not tips.
    old = made[graph.beginning - 1 :]
    return rng.sample(old, min(len(old), rng.choice([1, 1, 2])))


def _tips(made: Sequence[Event]) -> list[Event]:
    cited = {parent for event in made for parent in event.prev_event_ids}
    return [event for event in made if event.event_id not in cited]


def _citations(
    rng: random.Random,
    graph: Graph,
    kind: str,
    sender: str,
    key: str | None,
    content: dict[str, Any],
    parents: Sequence[Event],
) -> list[Event]:
    """What the sender's server cites: by the state before the event, or by an older one."""
    state = graph.state_before(parents)
    if rng.random() < 0.15:
        state = graph.after[rng.choice(list(graph.events))]
    return graph.cited(kind, sender, key, content, state)


def arrival(rng: random.Random, graph: Graph) -> list[Event]:
    """The events in a random order that has each one after what it cites."""
    waiting = dict(graph.events)
    known: set[str] = set()
    order: list[Event] = []
    while waiting:
        ready = [
            event
            for event in waiting.values()
            if known.issuperset(event.prev_event_ids) and known.issuperset(event.auth_event_ids)
        ]
        event = rng.choice(ready)
        del waiting[event.event_id]
        known.add(event.event_id)
        order.append(event)
    return order
