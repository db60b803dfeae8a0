"""State resolution on random rooms and graphs: T011, T019, T028, [A6.12]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core import resolve_v2
from matrixbox.core.events import Event
from matrixbox.core.graph import Reader
from matrixbox.core.identifiers import EventId
from matrixbox.core.resolve import resolve
from tests.core.making import CREATOR, VERSIONS, Room

USERS = [CREATOR, "@alice:one.test", "@bob:two.test", "@carol:three.test"]
State = dict[tuple[str, str], EventId]


class History:
    """A random room: every event is judged as on receipt, the rejected ones change no state."""

    def __init__(self, version: str, seed: int, length: int) -> None:
        self.room = Room(version)
        self.random = Random(seed)
        self.after: dict[EventId, State] = {}
        self.accepted: list[Event] = []
        self.merges: list[list[State]] = []
        self.results: list[State] = []
        create = self.room.create
        self.room.state = {}
        self._keep(create, {})
        for build in (
            lambda: self._member(CREATOR, CREATOR, "join"),
            lambda: self._levels(CREATOR),
            lambda: self._join_rule(CREATOR, "public"),
        ):
            self._add([self.accepted[-1]], build)
        for _ in range(length):
            recent = self.accepted[-8:]
            parents = self.random.sample(recent, min(len(recent), self.random.choice([1, 1, 2, 3])))
            self._add(parents, self._anything)

    def _anything(self) -> Event:
        sender = self.random.choice(USERS)
        build = self.random.choice(
            [
                lambda: self._member(sender, sender, "join"),
                lambda: self._member(sender, sender, "join"),
                lambda: self._member(sender, self.random.choice(USERS), self._word()),
                lambda: self._levels(sender),
                lambda: self._join_rule(sender, self.random.choice(["public", "invite", "knock"])),
                lambda: self._plain(sender, "m.room.topic"),
                lambda: self._plain(sender, "m.room.name"),
            ]
        )
        return build()

    def _word(self) -> str:
        return self.random.choice(["leave", "ban", "invite", "knock", "join"])

    def _make(self, type_: str, content: dict, sender: str, key: str) -> Event:
        ts = self.random.randrange(10)
        return self.room.make(
            type_, content, sender=sender, key=key, prev=self.parents, origin_server_ts=ts
        )

    def _member(self, sender: str, target: str, membership: str) -> Event:
        return self._make("m.room.member", {"membership": membership}, sender, target)

    def _levels(self, sender: str) -> Event:
        users = {user: self.random.choice([0, 25, 50, 100]) for user in USERS[1:]}
        content = {"users": users, "kick": self.random.choice([0, 50]), "state_default": 25}
        return self._make("m.room.power_levels", self.room.level_content(content), sender, "")

    def _join_rule(self, sender: str, rule: str) -> Event:
        return self._make("m.room.join_rules", {"join_rule": rule}, sender, "")

    def _plain(self, sender: str, type_: str) -> Event:
        return self._make(type_, {"x": self.random.random() < 2}, sender, "")

    def _add(self, parents: Sequence[Event], build) -> None:
        before = self._merge([self.after[parent.event_id] for parent in parents])
        self.room.state = {key: self.room.events[id_] for key, id_ in before.items()}
        self.parents = parents
        event = build()
        cited = [self.room.events[id_] for id_ in event.auth_event_ids]
        if (
            self.room.citations_verdict(event, cited, self.room.create) is not None
            or self.room.verdict(event) is not None
        ):
            self.room.rejected.add(event.event_id)
            self._keep(event, before)
        else:
            self._keep(event, {**before, (event.type, event.state_key or ""): event.event_id})
            self.accepted.append(event)

    def _keep(self, event: Event, state: State) -> None:
        if not self.accepted:
            state = {(event.type, ""): event.event_id}
            self.accepted.append(event)
        self.after[event.event_id] = state

    def _merge(self, states: list[State]) -> State:
        result = resolve(self.room.rules, states, self.room, self.room.create.event_id)
        self.merges.append(states)
        self.results.append(result)
        return result


histories = st.builds(History, st.sampled_from(VERSIONS), st.integers(0, 10**9), st.integers(5, 25))


@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_states_and_entries_never_matters(history: History, random: Random):
    """T019"""
    for states, result in zip(history.merges, history.results, strict=True):
        mixed = [dict(random.sample(list(state.items()), len(state))) for state in states]
        mixed += random.sample(mixed, random.randint(0, len(mixed)))
        random.shuffle(mixed)
        found = resolve(history.room.rules, mixed, history.room, history.room.create.event_id)
        assert found == result


@given(histories)
def test_a_rejected_event_never_enters_the_state(history: History):
    """T011"""
    for result in history.results:
        assert history.room.rejected.isdisjoint(result.values())


@given(histories)
def test_a_resolved_state_is_made_of_events_of_the_branches(history: History):
    room = history.room
    for states, result in zip(history.merges, history.results, strict=True):
        known = set(reach(room, {id_ for state in states for id_ in state.values()}))
        for (type_, key), event_id in result.items():
            event = room.events[event_id]
            assert (event.type, event.state_key) == (type_, key)
            assert event_id in known
        for key in set.intersection(*map(set, states)):
            values = {state[key] for state in states}
            if len(values) == 1:
                assert result[key] in values


def test_random_rooms_do_have_conflicts_and_rejections():
    """The properties above would prove nothing without them."""
    conflicts = rejections = changes = 0
    for seed in range(40):
        history = History(str(1 + seed % 12), seed, 20)
        rejections += len(history.room.rejected)
        for states, result in zip(history.merges, history.results, strict=True):
            conflicts += len({frozenset(state.items()) for state in states}) > 1
            changes += all(result != state for state in states)
    assert conflicts > 100
    assert rejections > 100
    assert changes > 50


# --- parts of the algorithm against their definitions


class Links:
    """A graph of which only the links between events are known."""

    def __init__(self, links: dict[EventId, list[EventId]]) -> None:
        self.links = links

    def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
        return self.links[event_id]


def reach(graph, roots: Iterable[EventId]) -> Iterable[EventId]:
    """The roots and their auth chains."""
    found: set[EventId] = set()
    ahead = list(roots)
    while ahead:
        event_id = ahead.pop()
        if event_id not in found:
            found.add(event_id)
            ahead.extend(graph.auth_event_ids(event_id))
    return found


@st.composite
def graphs(draw, cyclic: bool = False) -> Links:
    count = draw(st.integers(1, 14))
    names = [EventId(f"${number}") for number in range(count)]
    links = {}
    for number, name in enumerate(names):
        candidates = names if cyclic else names[:number]
        chosen = draw(st.lists(st.sampled_from(candidates), max_size=3)) if candidates else []
        links[name] = chosen
    return Links(links)


def reader_of(graph: Links) -> Reader:
    return Reader(Room("12").rules, graph, EventId("$0"))


@given(st.data(), st.booleans())
def test_the_auth_difference_is_the_union_of_the_chains_without_their_intersection(
    data: st.DataObject, cyclic: bool
):
    """[A6.12], rooms/v2 "Auth difference" """
    graph = data.draw(graphs(cyclic))
    names = list(graph.links)
    shared = set(data.draw(st.lists(st.sampled_from(names), max_size=4)))
    branches = [
        set(data.draw(st.lists(st.sampled_from(names), max_size=4)))
        for _ in range(data.draw(st.integers(2, 4)))
    ]

    def chain(state: set[EventId]) -> set[EventId]:
        return {up for id_ in state for auth in graph.links[id_] for up in reach(graph, [auth])}

    chains = [chain(shared | branch) for branch in branches]
    expected = set.union(*chains) - set.intersection(*chains)
    reader = reader_of(graph)
    links = resolve_v2._walk(reader, set().union(*branches))
    assert resolve_v2._auth_difference(reader, links, branches, shared) == expected


@given(st.data())
def test_the_conflicted_subgraph_is_what_lies_between_conflicted_events(data: st.DataObject):
    """rooms/v12 "Conflicted state subgraph" """
    graph = data.draw(graphs())
    names = list(graph.links)
    conflicted = set(data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=5)))
    expected = {
        middle
        for middle in names
        if any(middle in reach(graph, [start]) for start in conflicted)
        and any(end in reach(graph, [middle]) for end in conflicted)
    }
    links = resolve_v2._walk(reader_of(graph), conflicted)
    assert set(links) == set(reach(graph, conflicted))
    assert resolve_v2._leading_to(links, conflicted) == expected


@given(st.data())
def test_walks_end_within_the_number_of_events_and_links(data: st.DataObject):
    """T007"""
    graph = data.draw(graphs(cyclic=True))
    asked: list[EventId] = []

    class Counted(Links):
        def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
            asked.append(event_id)
            return self.links[event_id]

    names = list(graph.links)
    reader = reader_of(Counted(graph.links))
    branches = [set(data.draw(st.lists(st.sampled_from(names), max_size=4))) for _ in range(2)]
    links = resolve_v2._walk(reader, set().union(*branches))
    assert len(asked) == len(set(asked)) == len(links)
    asked.clear()
    resolve_v2._auth_difference(reader, links, branches, names)
    assert len(asked) <= 2 * len(names)


@given(st.integers(0, 10**9), st.integers(2, 9))
def test_the_power_ordering_is_the_smallest_topological_ordering(seed: int, count: int):
    """rooms/v2 "Reverse topological power ordering": at each step the smallest candidate, a
    candidate being an event that cites no unsorted one of the set."""
    random = Random(seed)
    room = Room("11")
    room.member(CREATOR, "join")
    for number in range(count + 3):
        auth = random.sample(list(room.events.values()), min(len(room.events), 2))
        sender = random.choice(USERS[:2])
        content = {"users": {user: random.choice([0, 50]) for user in USERS}}
        type_ = random.choice(["m.room.power_levels", "m.room.join_rules"])
        ts = random.randrange(3)
        room.make(type_, content, sender=sender, key="", auth=auth, origin_server_ts=ts, n=number)
    chosen = set(random.sample(list(room.events), count))
    reader = Reader(room.rules, room, room.create.event_id)
    links = resolve_v2._walk(reader, chosen)
    expected: list[EventId] = []
    left = set(chosen)
    while left:
        free = [id_ for id_ in left if left.isdisjoint(room.events[id_].auth_event_ids)]
        smallest = min(free, key=lambda id_: resolve_v2._power_key(reader, id_))
        expected.append(smallest)
        left.remove(smallest)
    order = resolve_v2._power_order(reader, links, chosen)
    assert [event.event_id for event in order] == expected
