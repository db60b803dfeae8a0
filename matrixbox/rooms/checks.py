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
    own_state = {(e.type, e.state_key or ""): e for e in around.auth_events}
    if rules.room_id_is_create_hash and around.create is not None:
        own_state.setdefault(("m.room.create", ""), around.create)
    try:
        check_auth_events(rules, event, around.auth_events, around.is_rejected, around.create)
        check_auth(rules, event, own_state)
    except NotAllowed as error:
        return Finding(Status.REJECTED | Status.REJECTED_BY_AUTH, str(error))
    try:
        check_auth(rules, event, around.before)
    except NotAllowed as error:
        return Finding(Status.REJECTED, str(error))
    if around.current is not around.before:
        try:
            check_auth(rules, event, around.current)
        except NotAllowed as error:
            return Finding(Status.SOFT_FAILED, str(error))
    return Finding(Status.ACCEPTED)
