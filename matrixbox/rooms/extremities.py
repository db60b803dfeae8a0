"""Where a room's graph ends.

Matrix v1.19, Server-Server API, "Soft failure", "Rejection" (T011, T014): neither rejected nor
soft-failed events are forward extremities.  More extremities than an event of ours may cite are
joined by an event that clients do not see, as others do: the type is that of Synapse, whose users
do not see it either.
"""

from __future__ import annotations

from collections.abc import Sequence

from matrixbox.core.events import CREATE, POWER_LEVELS, PowerLevels, power_levels
from matrixbox.core.identifiers import UserId
from matrixbox.rooms.state import CurrentState
from matrixbox.store import events, members, names, rooms
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Status
from matrixbox.store.nids import EventNid, RoomNid
from matrixbox.store.transaction import Tx

DUMMY = "org.matrix.dummy_event"
MAX_WALK = 500  # events looked behind for one new event
_NEVER_AN_END = Status.REJECTED | Status.SOFT_FAILED | Status.PAST


def superseded(tx: Tx, prev: Sequence[StoredEvent]) -> set[EventNid]:
    """The events that are extremities no more once there is an event with these parents.

    A parent that failed, or came late, was no extremity itself, but what it cites may be one.
    """
    found = {parent.nid for parent in prev}
    ahead = [parent for parent in prev if parent.status & _NEVER_AN_END]
    while ahead and len(found) < MAX_WALK:
        for event_id in ahead.pop().event.prev_event_ids:
            parent = events.by_id(tx, event_id)
            if parent is not None and parent.nid not in found:
                found.add(parent.nid)
                if parent.status & _NEVER_AN_END:
                    ahead.append(parent)
    return found


def joiner(tx: Tx, room: RoomNid) -> UserId | None:
    """A user of ours who may send the event that joins extremities; None: nobody may."""
    rules, state = rooms.rules(tx, room), CurrentState(tx, room)
    create = state.get(CREATE)
    if create is None:
        return None
    levels: PowerLevels = power_levels(rules, create, state.get(POWER_LEVELS))
    needed = levels.required_for(DUMMY, is_state=False)
    for user in members.local_joined(tx, room):
        user_id = names.user_id(tx, user)
        if levels.user(user_id) >= needed:
            return user_id
    return None
