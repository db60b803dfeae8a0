"""The shape of a random room: its beginning, its branches and merges, and its disorder."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from tests.oracle.graphs import NOWHERE, Graph, Probe, Step
from tests.oracle.judging import StateIds
from tests.oracle.levels import first_power_levels
from tests.oracle.moves import USERS, Move, Room, make_move
from tests.reference import ROOM_VERSIONS
from tests.reference.words import CREATE, JOIN_RULES, StateKey

VERSIONS = tuple(ROOM_VERSIONS)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def generate(seed: int, number: int) -> Graph:
    """Graph `number` of the series `seed`: the same arguments give the same graph."""
    rng = random.Random(seed * 1_000_003 + number)
    return Generator(VERSIONS[number % len(VERSIONS)], rng).run()


class Generator:
    def __init__(self, version: str, rng: random.Random) -> None:
        creator = USERS[0] if rng.random() < 0.9 else rng.choice(USERS)
        self.graph = Graph(ROOM_VERSIONS[version])
        self.room = Room(self.graph, rng, creator, int(version))
        self.rng = rng
        self.clock = 1_000_000
        self.tips: list[int] = []
        self.strangers: list[int] = []

    def run(self) -> Graph:
        rng = self.rng
        self.begin()
        if rng.random() < 0.12:
            self.build_other_room()
        for _ in range(rng.choice((6, 8, 8, 10, 10, 12, 14, 18, 30))):
            self.advance()
        self.merge(self.tips)
        self.judge_late()
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            self.probe()
        return self.graph

    # -- placing events

    def tick(self) -> int:
        """A timestamp: mostly later, often the same, now and then of a clock that is off."""
        draw = self.rng.random()
        if draw < 0.5:
            self.clock += 1
        elif draw > 0.93:
            return self.rng.choice((0, -5, self.clock - 1000, self.clock + 1000, 2**53 - 1))
        return self.clock

    def place(
        self, move: Move, prev: tuple[int, ...], state: StateIds, room: int = 0, odd: float = 0.0
    ) -> int:
        rng, name = self.rng, "".join(self.rng.choices(LETTERS, k=6))
        step = Step(
            kind=move.kind,
            type=move.type,
            sender=move.sender,
            content=move.content,
            prev=prev,
            auth=self.auth_of(move, state),
            ts=self.tick(),
            name=f"{name}{len(self.graph.steps)}",
            state_key=move.state_key,
            room=room,
            redacts=move.redacts,
        )
        if rng.random() < odd:
            step = self.disorder(step, state)
        return self.graph.place(step)

    def auth_of(self, move: Move, state: StateIds) -> tuple[int, ...]:
        event: dict[str, Any] = {
            "type": move.type,
            "sender": move.sender,
            "content": move.content,
            "state_key": move.state_key,
        }
        if move.state_key is None:
            del event["state_key"]
        keys = self.graph.version.rules.selection(event)
        return tuple(self.position(state[key]) for key in sorted(keys) if key in state)

    def position(self, event_id: str) -> int:
        return self.graph.ids.index(event_id)

    # -- the beginning

    def create_content(self) -> dict[str, Any]:
        rng, number = self.rng, self.room.number
        content: dict[str, Any] = {"room_version": str(number)}
        if number < 11:
            content["creator"] = self.room.creator
        if number == 12 and rng.random() < 0.4:
            content["additional_creators"] = rng.sample(USERS, rng.randrange(3))
        if rng.random() < 0.06:
            content["m.federate"] = False
        elif rng.random() < 0.015:
            content["m.federate"] = rng.choice((True, "false", 0, None, []))
        return content

    def begin(self) -> None:
        """Create, the creator's join, levels, join rule, and some members."""
        rng, creator = self.rng, self.room.creator
        sender = creator
        if self.room.number < 11 and rng.random() < 0.05:
            sender = rng.choice(USERS)
        self.tips = [self.place(create("create", sender, self.create_content()), (), {})]
        repeated = rng.random() < 0.01
        self.tips = [
            self.place(
                self.joining("creator joins", creator),
                (0, 0) if repeated else (0,),
                self.graph.after[0],
            )
        ]
        if rng.random() < 0.9:
            content = first_power_levels(rng, self.room.number, self.creators(), USERS)
            self.follow(Move("first levels", "m.room.power_levels", creator, content, ""))
        if rng.random() < 0.95:
            rule = self.first_join_rule()
            self.follow(
                Move("first join rule", "m.room.join_rules", creator, {"join_rule": rule}, "")
            )
        for user in rng.sample(USERS, rng.randrange(1, 4)):
            self.follow(self.joining("early join", user))

    def joining(self, kind: str, user: str) -> Move:
        return Move(kind, "m.room.member", user, {"membership": "join"}, user)

    def first_join_rule(self) -> str:
        rules = ["public"] * 6 + ["invite"]
        if self.room.number >= 7:
            rules.append("knock")
        if self.room.number >= 8:
            rules.append("restricted")
        if self.room.number >= 10:
            rules.append("knock_restricted")
        return self.rng.choice(rules)

    def creators(self) -> list[str]:
        more = self.graph.steps[0].content.get("additional_creators", [])
        return [self.room.creator, *more]

    def follow(self, move: Move) -> None:
        """Add a move after the only tip."""
        tip = self.tips[0]
        self.tips = [self.place(move, (tip,), self.graph.after[tip])]

    def build_other_room(self) -> None:
        """A room beside the room, whose events have no business in it."""
        at = len(self.graph.steps)
        content = {**self.create_content(), "name": "other"}
        self.place(create("other room", self.room.creator, content), (), {}, room=at)
        self.strangers.append(at)
        for move in (
            self.joining("other room", USERS[0]),
            Move("other room", "m.room.power_levels", USERS[0], {"users": {}}, ""),
        ):
            last = self.strangers[-1]
            self.strangers.append(self.place(move, (last,), self.graph.after[last], room=at))

    # -- branches

    def advance(self) -> None:
        """One more event: on a tip, on an older event (a fork), or on several tips (a merge)."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.15 and len(self.tips) > 1:
            self.merge(rng.sample(self.tips, min(len(self.tips), rng.choice((2, 2, 3, 4)))))
        elif draw < 0.4 and len(self.tips) < 4:
            self.extend(self.old_event())
        else:
            self.extend(rng.choice(self.tips))

    def old_event(self) -> int:
        """Somewhere to fork: mostly a few events back, in this room."""
        steps = self.graph.steps
        here = [
            at
            for at, step in enumerate(steps)
            if step.room == 0 and (at == 0 or step.type != "m.room.create")
        ]
        return self.rng.choice(here[-self.rng.choice((4, 8, 30)) :])

    def extend(self, at: int) -> None:
        """An event on one other, now and then with auth events from a state that is no more."""
        state = self.graph.after[at]
        if self.rng.random() < 0.06:
            state = self.graph.after[self.old_event()]
        new = self.place(make_move(self.room, state), (at,), state, odd=0.06)
        self.grow(new, (at,))

    def merge(self, tips: list[int]) -> None:
        """An event on several tips; what it is matters less than the state before it."""
        if len(tips) < 2:
            return
        prev = tuple(tips)
        sets = [self.graph.after[at] for at in prev]
        state = self.graph.version.resolution.resolve(sets, self.graph.events, self.graph.rejected)
        move = make_move(self.room, state)
        while move.type == "m.room.create":
            move = make_move(self.room, state)
        self.grow(self.place(move, prev, state, odd=0.03), prev)

    def grow(self, new: int, prev: tuple[int, ...]) -> None:
        """Make the new event a tip; a rejected one only sometimes, or the room dies out."""
        step = self.graph.steps[new]
        if step.room != 0 or step.type == "m.room.create":
            return
        if self.graph.verdicts[new].accepted or self.rng.random() < 0.3:
            self.tips = [tip for tip in self.tips if tip not in prev] + [new]

    # -- disorder

    def disorder(self, step: Step, state: StateIds) -> Step:
        """Something that a faulty or lying server might do to the event."""
        rng = self.rng
        ways = (self.disorder_auth,) * 8 + (self.disorder_event,) * 4
        return rng.choice(ways)(step, state)

    def disorder_auth(self, step: Step, state: StateIds) -> Step:
        rng, auth, count = self.rng, list(step.auth), len(self.graph.steps)
        way = rng.randrange(6)
        if way == 0 and auth:
            auth.remove(rng.choice(auth))
        elif way == 1:
            auth.append(rng.choice([at for at in range(count) if self.is_sound(at)]))
        elif way == 2 and auth:
            auth.append(rng.choice(auth))
        elif way == 3 and self.strangers:
            auth.append(rng.choice(self.strangers))
        elif auth:
            # Another event for the same key: an older one, one of another branch, a rejected one.
            at = rng.randrange(len(auth))
            old = self.graph.steps[auth[at]]
            same = [
                other
                for other, found in enumerate(self.graph.steps)
                if (found.type, found.state_key, found.room) == (old.type, old.state_key, old.room)
            ]
            auth[at] = rng.choice(same)
        return replace(step, auth=tuple(auth), kind=f"{step.kind}, auth events off")

    def is_sound(self, at: int) -> bool:
        """Whether the event can be read at all, so that others can cite it."""
        step = self.graph.steps[at]
        return self.room.number < 12 or step.type != "m.room.create" or step.room == at

    def disorder_event(self, step: Step, state: StateIds) -> Step:
        rng, kind = self.rng, f"{step.kind}, off"
        if step.type == "m.room.create":
            # In room 12, Synapse computes another event id if it has a state key and a room id.
            return replace(step, unsigned=True, kind=kind)
        way = rng.randrange(9)
        if way == 0:
            return replace(step, unsigned=True, kind=kind)
        if way == 1:
            return replace(step, state_key=None, kind=kind)
        if way == 2:
            return replace(step, state_key="odd", kind=kind)
        if way == 3:
            return replace(step, room=NOWHERE, kind=kind)
        if way == 4:
            return replace(step, depth=rng.randrange(1, 12), kind=kind)
        if way == 5:
            return replace(step, home="b.test", kind=kind)
        if way == 6:
            return replace(step, content={}, kind=kind)
        return self.lone_create()

    def lone_create(self) -> Step:
        """Another create event without previous events, in some way wrong or not."""
        rng, content = self.rng, self.create_content()
        sender = rng.choice((self.room.creator, rng.choice(USERS)))
        way = rng.choice((0, 1, 2, 2, 3)) if self.room.number == 12 else rng.randrange(4)
        if way == 0:
            content["room_version"] = rng.choice(("99", "", None, 11, "1", [], "12"))
        elif way == 1:
            content.pop("creator", None)
        elif way == 2:
            content["additional_creators"] = rng.choice(
                ("@amy:a.test", [5], ["amy"], ["@amy"], {}, None, [], ["@amy:a.test"])
            )
        at = len(self.graph.steps)
        return Step(
            kind="lone create",
            type="m.room.create",
            sender=sender,
            content=content,
            prev=(),
            auth=(),
            ts=self.clock,
            name=f"lone{at}",
            state_key="",
            room=rng.choice((0, at)),
        )

    # -- judgements beside the graph

    def judge_late(self) -> None:
        """Judge events of the branches by the state after the last merge (soft failure)."""
        by = len(self.graph.steps) - 1
        if by in self.graph.merges:
            count = min(3, by)
            for at in self.rng.sample(range(by - count, by), count):
                if self.graph.steps[at].room == 0:
                    self.graph.judge_late(at, by)

    def probe(self) -> None:
        """State sets as a peer might claim them: cut, mixed, and with rejected events."""
        rng, graph = self.rng, self.graph
        here = [
            at
            for at, step in enumerate(graph.steps)
            if step.room == 0 and (at == 0 or step.type != "m.room.create")
        ]
        sets = [dict(graph.after[rng.choice(here)]) for _ in range(rng.choice((2, 2, 3, 4)))]
        by_key: dict[StateKey, list[str]] = {}
        for at in here:
            step = graph.steps[at]
            if step.state_key is not None and graph.verdicts[at].stands_on_its_chain:
                by_key.setdefault((step.type, step.state_key), []).append(graph.ids[at])
        rejected = set(graph.rejected)
        for state in sets:
            for _ in range(rng.randrange(4)):
                key = rng.choice(list(state))
                if key == CREATE:
                    continue
                if rng.random() < 0.5 and key != JOIN_RULES:
                    del state[key]
                else:
                    state[key] = rng.choice(by_key[key])
        if rng.random() < 0.4:
            rejected.add(rng.choice(graph.ids[1:]))
        graph.probe(Probe(tuple(sets), frozenset(rejected)))


def create(kind: str, sender: str, content: dict[str, Any]) -> Move:
    return Move(kind, "m.room.create", sender, content, "")
