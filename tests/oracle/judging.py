"""What a judge says about one event, and the reference (or a variant of it) as a judge.

Server-Server API, "Checks performed on receipt of a PDU": 2 (that the signatures are there), 4 and
5 (and 6, which is 5 with another state).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tests.reference import RoomVersion
from tests.reference.words import Reject, StateKey

StateIds = dict[StateKey, str]
STAGES = ("signatures", "auth_events", "by_auth_events", "by_state")


class Raises(Exception):
    """A judge fails instead of judging; the text is the name of its exception."""


class BadRequest(Raises):
    """Synapse's word for an event that it refuses; its state resolution fails on it."""

    def __init__(self) -> None:
        super().__init__("SynapseError")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """About one event: "+words", "-words", "!exception", or "" where not asked."""

    signatures: str
    auth_events: str
    by_auth_events: str
    by_state: str

    @property
    def stands_on_its_chain(self) -> bool:
        """Whether the event may appear in states at all, though not by the state before it."""
        return (
            self.signatures[:1] == "+"
            and self.auth_events[:1] == "+"
            and self.by_auth_events[:1] == "+"
        )

    @property
    def accepted(self) -> bool:
        return self.stands_on_its_chain and self.by_state[:1] == "+"


def judge(
    version: RoomVersion,
    event: Mapping[str, Any],
    before: StateIds | None,
    events: Mapping[str, Mapping[str, Any]],
    rejected: Collection[str],
) -> Verdicts:
    """Judge an event; `before` is None if it has no state because it is in no room."""
    return Verdicts(
        *(judge_stage(stage, version, event, before, events, rejected) for stage in STAGES)
    )


def judge_stage(
    stage: str,
    version: RoomVersion,
    event: Mapping[str, Any],
    before: StateIds | None,
    events: Mapping[str, Mapping[str, Any]],
    rejected: Collection[str],
) -> str:
    rules = version.rules
    if stage == "signatures":
        return words_of(lambda: rules.check_signatures(event))
    if stage == "by_state":
        return "" if before is None else judge_by_state(version, event, before, events)
    cited_well = words_of(lambda: rules.check_auth_events(event, events, rejected))
    if stage == "auth_events" or cited_well[0] != "+":
        return cited_well if stage == "auth_events" else ""
    state = rules.state_of_auth_events(event, events, without=())
    return words_of(lambda: rules.authorise(event, state, events))


def judge_by_state(
    version: RoomVersion,
    event: Mapping[str, Any],
    state: StateIds,
    events: Mapping[str, Mapping[str, Any]],
) -> str:
    room = {key: events[event_id] for key, event_id in state.items()}
    return words_of(lambda: version.rules.authorise(event, room, events))


def words_of(check: Callable[[], str]) -> str:
    try:
        return "+" + check()
    except Reject as reason:
        return "-" + str(reason)
    except BadRequest:
        return "-bad request"
    except Raises as name:
        return "!" + str(name)
