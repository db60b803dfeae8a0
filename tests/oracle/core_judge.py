"""`matrixbox.core` as a judge: the events come from their bytes on the wire."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from matrixbox.core.auth import check_auth, check_auth_events
from matrixbox.core.events import Event, MalformedEvent, parse_event
from matrixbox.core.identifiers import EventId
from matrixbox.core.json import FEDERATION, decode
from matrixbox.core.resolve import resolve
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import required_signers
from matrixbox.core.verdict import NotAllowed
from tests.oracle.answers import Answers, Resolved
from tests.oracle.graphs import Graph
from tests.oracle.judging import STAGES, StateIds

CREATE = ("m.room.create", "")


class Core:
    """The room of one graph, read and judged by `matrixbox.core`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.rules = ROOM_VERSIONS[graph.version.name]
        self.parsed = [self.parse(text) for text in graph.wire]
        self.events = {
            graph_id: event
            for graph_id, event in zip(graph.ids, self.parsed, strict=True)
            if event is not None
        }
        self.rejected: Collection[str] = graph.rejected
        self.place = {event_id: at for at, event_id in enumerate(graph.ids)}
        self.raised: dict[str, str] = {}

    def parse(self, text: str) -> Event | None:
        pdu = decode(text.encode(), FEDERATION)
        assert isinstance(pdu, Mapping)
        try:
            return parse_event(self.rules, pdu)
        except MalformedEvent:
            return None

    # -- the graph as resolution asks for it

    def event(self, event_id: EventId) -> Event | None:
        return self.events.get(event_id)

    def auth_event_ids(self, event_id: EventId) -> Sequence[EventId]:
        return self.events[event_id].auth_event_ids

    def is_rejected(self, event_id: EventId) -> bool:
        return event_id in self.rejected

    # -- verdicts

    def verdict(self, place: str, event: Event | None, check: Callable[[Event], None]) -> str:
        if event is None:
            self.raised[place] = "MalformedEvent"
            return "!"
        try:
            check(event)
        except NotAllowed:
            return "-"
        return "+"

    def signed(self, event: Event) -> None:
        signatures = event.json["signatures"]
        assert isinstance(signatures, Mapping)
        if not required_signers(self.rules, event) <= set(signatures):
            raise NotAllowed("a signature is missing")

    def create_of(self, event: Event) -> Event | None:
        """The accepted create event of the event's room."""
        for other in self.parsed:
            if (
                other is not None
                and other.type == "m.room.create"
                and other.room_id == event.room_id
                and not self.is_rejected(other.event_id)
            ):
                return other
        return None

    def cites_well(self, event: Event) -> None:
        entries = [self.events[event_id] for event_id in event.auth_event_ids]
        check_auth_events(self.rules, event, entries, self.is_rejected, self.create_of(event))

    def allowed_by_auth_events(self, event: Event) -> None:
        state = {}
        for event_id in event.auth_event_ids:
            entry = self.events[event_id]
            if entry.state_key is not None:  # others describe no room
                state[entry.type, entry.state_key] = entry
        create = self.create_of(event)
        if create is not None:
            state.setdefault(CREATE, create)
        check_auth(self.rules, event, state)

    def allowed_by(self, state: StateIds) -> Callable[[Event], None]:
        room = {key: self.events[event_id] for key, event_id in state.items()}
        return lambda event: check_auth(self.rules, event, room)

    def resolved(self, sets: Sequence[StateIds], rejected: Collection[str]) -> Resolved:
        self.rejected = rejected
        state = resolve(self.rules, sets, self, self.graph.ids[0])
        self.rejected = self.graph.rejected
        return sorted([self.place[event_id] for event_id in state.values()])

    def answers(self) -> Answers:
        graph = self.graph
        rows: dict[str, str] = dict.fromkeys(STAGES, "")
        for at, event in enumerate(self.parsed):
            said = self.verdict(f"auth_events {at}", event, self.cites_well)
            rows["auth_events"] += said
            rows["by_auth_events"] += (
                self.verdict(f"by_auth_events {at}", event, self.allowed_by_auth_events)
                if said == "+"
                else " "
            )
            rows["signatures"] += self.verdict(f"signatures {at}", event, self.signed)
            before = graph.state_to_judge_by(at)
            rows["by_state"] += (
                " "
                if before is None
                else self.verdict(f"by_state {at}", event, self.allowed_by(before))
            )
        late = ""
        for number, (at, by, _) in enumerate(graph.late):
            by_state = self.allowed_by(graph.before[by])
            late += self.verdict(f"late {number}", self.parsed[at], by_state)
        return Answers(
            ids=[
                event.event_id if event else mine
                for event, mine in zip(self.parsed, graph.ids, strict=True)
            ],
            rows=rows,
            late=late,
            merges={at: self.resolved(sets, graph.rejected) for at, sets in graph.merges.items()},
            probes=[self.resolved(probe.sets, probe.rejected) for probe, _ in graph.probes],
            raised=self.raised,
        )
