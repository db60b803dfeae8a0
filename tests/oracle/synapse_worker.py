"""Synapse's own code as judge, in a process of Synapse's own environment.

Run by `tests.oracle.synapse_pipe` with the Python of that environment; nothing of this project is
imported.  Each line of standard input is a JSON list of tasks, each line of standard output the
list of answers.  A verdict is one character: `+` allowed, `-` refused (an error that Synapse
means to raise), `!` another exception, or an event that it cannot read (Synapse drops those).

What is asked of Synapse, per event, is what its federation handler asks: the signatures that must
be there, the rules independent of state, the rules by the claimed auth events, the rules by the
state before the event (cut to `auth_types_for_event`).  State resolution runs over a store that
knows everything; for some resolutions the task names events that are not persisted yet, for
which Synapse computes auth chains and the conflicted subgraph in memory.
"""

from __future__ import annotations

import json
import logging
import sys

import synapse.server  # noqa: F401  (makes the order of Synapse's imports right)
from synapse import event_auth
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS, StateResolutionVersions
from synapse.events import make_event_from_json
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference


def run(coroutine):
    """The result of a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("Synapse waited for something")


class Clock:
    async def sleep(self, duration):
        return None


class Store:
    """What Synapse asks its database, answered from a dict."""

    def __init__(self, events):
        self.events = events
        self.chains = {}

    async def get_events(self, event_ids, redact_behaviour=None, allow_rejected=False, **_):
        return {i: self.events[i] for i in event_ids if i in self.events}

    def chain(self, event_id):
        """The auth chain of an event and the event itself, as Synapse's chain index has it."""
        chain = self.chains.get(event_id)
        if chain is None:
            chain, to_walk = set(), [event_id]
            while to_walk:
                found = to_walk.pop()
                if found not in chain:
                    chain.add(found)
                    to_walk.extend(self.events[found].auth_event_ids())
            self.chains[event_id] = chain
        return chain

    async def get_auth_chain_difference(self, room_id, state_sets, conflicted, additional):
        chains = [set().union(*map(self.chain, ids)) for ids in state_sets]
        difference = set.union(*chains) - set.intersection(*chains)
        if conflicted is None:
            return StateDifference(auth_difference=difference, conflicted_subgraph=None)
        backwards = set().union(*map(self.chain, conflicted | (additional or set())))
        subgraph = {i for i in backwards if not conflicted.isdisjoint(self.chain(i))}
        return StateDifference(auth_difference=difference, conflicted_subgraph=subgraph)


class Room:
    """One task: a graph of events, judged and resolved."""

    def __init__(self, task):
        self.version = KNOWN_ROOM_VERSIONS[task["version"]]
        rejected = set(task["rejected"])
        self.texts = task["events"]
        self.built = [self.event(at, at in rejected) for at in range(len(self.texts))]
        self.ids = [event.event_id if event else "" for event in self.built]
        self.events = {event.event_id: event for event in self.built if event}
        self.position = {event_id: at for at, event_id in enumerate(self.ids)}
        self.store = Store(self.events)
        self.room_id = self.built[0].room_id
        self.raised = {}
        self.task = task

    def event(self, at, rejected):
        reason = "rejected" if rejected else None
        try:
            return make_event_from_json(self.texts[at], self.version, rejected_reason=reason)
        except SynapseError:
            return None

    def verdict(self, name, check, event, *arguments):
        if event is None:
            self.raised[name] = "BadJson"
            return "!"
        try:
            check(event, *arguments)
        except SynapseError:
            return "-"
        except Exception as error:  # noqa: BLE001  (whatever Synapse's code does is the answer)
            self.raised[name] = type(error).__name__
            return "!"
        return "+"

    def auth_events_fine(self, event):
        if event.type != "m.room.create":
            run(event_auth.check_state_independent_auth_rules(self.store, event))

    def allowed_by_auth_events(self, event):
        if event.type == "m.room.create":
            self.create_allowed(event)
            return
        claimed = [self.events[i] for i in event.auth_event_ids()]
        event_auth.check_state_dependent_auth_rules(event, claimed)

    def create_allowed(self, event):
        """Synapse has the whole rule for create events among those independent of state."""
        run(event_auth.check_state_independent_auth_rules(self.store, event))

    def allowed_by(self, event, state):
        if event.type == "m.room.create":
            self.create_allowed(event)
            return
        keys = event_auth.auth_types_for_event(self.version, event)
        entries = [self.events[state[key]] for key in keys if key in state]
        event_auth.check_state_dependent_auth_rules(event, entries)

    def state_of(self, positions):
        events = [self.built[at] for at in positions]
        return {(event.type, event.state_key): event.event_id for event in events}

    def resolve(self, sets, unpersisted, store):
        in_flight = {
            self.ids[at]: store.events[self.ids[at]] for at in unpersisted if self.built[at]
        }
        try:
            if self.version.state_res == StateResolutionVersions.V1:
                resolved = run(
                    v1.resolve_events_with_store(
                        self.room_id, self.version, sets, in_flight, store.get_events
                    )
                )
            else:
                resolved = run(
                    v2.resolve_events_with_store(
                        Clock(), self.room_id, self.version, sets, in_flight, store
                    )
                )
        except Exception as error:  # noqa: BLE001  (whatever Synapse's code does is the answer)
            return f"!{type(error).__name__}"
        return sorted(self.position[event_id] for event_id in resolved.values())

    def answer(self):
        task, before, after = self.task, [], []
        verdicts = {"signatures": "", "auth_events": "", "by_auth_events": "", "by_state": ""}
        merges = {}
        for at, event in enumerate(self.built):
            previous = event.prev_event_ids() if event else []
            states = [after[self.position[i]] for i in previous]
            truth = task["merges"].get(str(at))
            if truth is None:
                state = states[0] if states else {}
            else:
                merges[at] = self.resolve(states, truth["unpersisted"], self.store)
                state = self.state_of(truth["state"])
            before.append(state)
            checks = {
                "signatures": (event_auth.validate_event_for_room_version, event),
                "auth_events": (self.auth_events_fine, event),
                "by_auth_events": (self.allowed_by_auth_events, event),
                "by_state": (self.allowed_by, event, state),
            }
            for name, check in checks.items():
                not_cited_well = verdicts["auth_events"][-1:] != "+"
                if (name == "by_auth_events" and not_cited_well) or (
                    name == "by_state" and at in task["homeless"]
                ):
                    verdicts[name] += " "
                else:
                    verdicts[name] += self.verdict(f"{name} {at}", *check)
            if event and event.rejected_reason is None and event.is_state():
                state = {**state, (event.type, event.state_key): event.event_id}
            after.append(state)
        late = "".join(
            self.verdict(f"late {number}", self.allowed_by, self.built[at], before[by])
            for number, (at, by) in enumerate(task["late"])
        )
        probes = [self.probe(probe) for probe in task["probes"]]
        return {
            "ids": self.ids,
            **verdicts,
            "late": late,
            "merges": merges,
            "probes": probes,
            "raised": self.raised,
        }

    def probe(self, probe):
        marked = {at: self.event(at, True) for at in probe["rejected"]}
        cleared = {at: self.event(at, False) for at in probe["accepted"]}
        changed = {event.event_id: event for event in (marked | cleared).values()}
        store = Store(self.events | changed)
        return self.resolve(list(map(self.state_of, probe["sets"])), probe["unpersisted"], store)


def main():
    logging.disable(logging.CRITICAL)
    event_auth._check_size_limits = lambda event: None  # dear, and no event here is large
    for line in sys.stdin:
        answers = [Room(task).answer() for task in json.loads(line)]
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
