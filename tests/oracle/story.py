"""Rooms told by hand, for examples and vectors."""

from __future__ import annotations

from typing import Any

from tests.oracle.graphs import Graph, Probe, Step
from tests.oracle.judging import StateIds
from tests.reference import ROOM_VERSIONS

ALICE, AMY, BOB, CARL = "@alice:a.test", "@amy:a.test", "@bob:b.test", "@carl:c.test"


class Story:
    """A room of Alice's, one event after the other; events are named by their position."""

    def __init__(self, version: str, **create: Any) -> None:
        self.graph = Graph(ROOM_VERSIONS[version])
        content = {"room_version": version, "creator": ALICE, **create}
        self.create = self.tell("m.room.create", ALICE, content, "", after=(), auth=())
        self.alice = self.member(ALICE, "join")

    def tell(
        self,
        kind: str,
        sender: str,
        content: dict[str, Any],
        key: str | None = None,
        *,
        after: tuple[int, ...] | None = None,
        auth: tuple[int, ...] | None = None,
        **more: Any,
    ) -> int:
        """Add an event, after the last one and with the right auth events if nothing is said."""
        count = len(self.graph.steps)
        prev = (count - 1,) if after is None else after
        if auth is None:
            auth = self.selected(kind, sender, content, key, self.state_after(prev))
        step = Step("told", kind, sender, content, prev, auth, more.pop("ts", count), f"e{count}")
        for name, value in (("state_key", key), *more.items()):
            object.__setattr__(step, name, value)
        return self.graph.place(step)

    def selected(
        self, kind: str, sender: str, content: dict[str, Any], key: str | None, state: StateIds
    ) -> tuple[int, ...]:
        event = {"type": kind, "sender": sender, "content": content}
        if key is not None:
            event["state_key"] = key
        wanted = self.graph.version.rules.selection(event)
        return tuple(self.graph.ids.index(state[at]) for at in sorted(wanted) if at in state)

    def state_after(self, prev: tuple[int, ...]) -> StateIds:
        states = [self.graph.after[at] for at in prev]
        if len(states) == 1:
            return states[0]
        graph = self.graph
        return graph.version.resolution.resolve(states, graph.events, graph.rejected)

    def member(self, user: str, membership: str, by: str | None = None, **more: Any) -> int:
        content = {"membership": membership, **more.pop("content", {})}
        return self.tell("m.room.member", by or user, content, user, **more)

    def levels(self, by: str = ALICE, *, key: str | None = "", **content: Any) -> int:
        return self.tell("m.room.power_levels", by, content, key)

    def join_rule(self, rule: str = "public", by: str = ALICE, **more: Any) -> int:
        return self.tell("m.room.join_rules", by, {"join_rule": rule}, "", **more)

    def probe(self, *sets: tuple[int, ...], rejected: tuple[int, ...] = ()) -> set[int]:
        """Resolve state sets; the resolved state as positions."""
        graph = self.graph
        by_ids = tuple(
            {(graph.steps[at].type, graph.steps[at].state_key or ""): graph.ids[at] for at in ids}
            for ids in sets
        )
        graph.probe(Probe(by_ids, frozenset(graph.ids[at] for at in rejected)))
        return {graph.ids.index(event_id) for event_id in graph.probes[-1][1].values()}
