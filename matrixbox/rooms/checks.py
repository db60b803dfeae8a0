"""The verdict on an event whose surroundings are known.

Matrix v1.19, Server-Server API, "Checks performed on receipt of a PDU", steps 4 to 6.  Each step's
outcome is kept as a fact of its own: a rejection against the event's own auth events bars it from
state resolution, one against the state before it does not ([A6.11]).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from matrixbox.core.auth import NotAllowed, check_auth, check_auth_events
from matrixbox.core.events import Event, StateMap
from matrixbox.core.identifiers import EventId
from matrixbox.core.room_versions import RoomRules
from matrixbox.store.events import Status


@frozen
class Surroundings:
    """What an event is judged by."""

    auth_events: Sequence[Event]
    is_rejected: Callable[[EventId], bool]
    create: Event | None
    before: StateMap
    current: StateMap


@frozen
class Finding:
    """The outcome of the checks, with the reason for the log."""

    status: Status
    reason: str = ""


def judge(rules: RoomRules, event: Event, around: Surroundings) -> Finding:
    """Steps 4, 5 and 6."""
    finding = judge_by_auth_events(
        rules, event, around.auth_events, around.is_rejected, around.create
    )
    if finding.status:
        return finding
    finding = judge_by_state(rules, event, around.before, Status.REJECTED)
    if finding.status or around.current is around.before:
        return finding
    return judge_by_state(rules, event, around.current, Status.SOFT_FAILED)


def judge_by_auth_events(
    rules: RoomRules,
    event: Event,
    auth_events: Sequence[Event],
    is_rejected: Callable[[EventId], bool],
    create: Event | None,
) -> Finding:
    """Step 4: the event against the auth events that it cites, all of which are here."""
    own_state = {(e.type, e.state_key or ""): e for e in auth_events}
    if rules.room_id_is_create_hash and create is not None:
        own_state.setdefault(("m.room.create", ""), create)
    try:
        check_auth_events(rules, event, auth_events, is_rejected, create)
        check_auth(rules, event, own_state)
    except NotAllowed as error:
        return Finding(Status.REJECTED | Status.REJECTED_BY_AUTH, str(error))
    return Finding(Status.ACCEPTED)


def judge_by_state(rules: RoomRules, event: Event, state: StateMap, failed: Status) -> Finding:
    """Step 5 with the state before the event, step 6 with the current state."""
    try:
        check_auth(rules, event, state)
    except NotAllowed as error:
        return Finding(failed, str(error))
    return Finding(Status.ACCEPTED)
