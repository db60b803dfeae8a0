"""What invited and knocking users of ours may know of a room.

Matrix v1.19, Client-Server API, "Stripped state" ([C8.19]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.client_format import stripped_state
from matrixbox.core.events import CREATE, JOIN_RULES, Event
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.rooms.state import CurrentState
from matrixbox.store import events, members
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

SHOWN = (
    CREATE,
    JOIN_RULES,
    ("m.room.canonical_alias", ""),
    ("m.room.avatar", ""),
    ("m.room.name", ""),
    ("m.room.topic", ""),
    ("m.room.encryption", ""),
)


def remember(tx: Tx, room: RoomNid, user: UserNid, membership: Event) -> bool:
    """Keep the room's face as it is when somebody is invited or knocks.

    Returns whether that is news to what was kept before.
    """
    state = CurrentState(tx, room)
    found = [state[key] for key in SHOWN if key in state]
    sender = ("m.room.member", membership.sender)
    if membership.sender != membership.state_key and sender in state:
        found.append(state[sender])
    shown = encode([stripped_state(event) for event in (*found, membership)])
    if shown == members.stripped(tx, room, user):
        return False
    members.set_stripped(tx, room, user, shown)
    return True


def renew(tx: Tx, room: RoomNid) -> None:
    """Show those who wait at the door the room's face of now: something of it was redacted."""
    for user in members.with_stripped(tx, room):
        present = members.get(tx, room, user)
        if present is None or not present.event:
            continue
        if remember(tx, room, user, events.by_nid(tx, present.event).event):
            members.put(tx, room, user, present.membership, present.event, tx.position())
            tx.changed(users=(user,))


def read(tx: Tx, room: RoomNid, user: UserNid) -> list[Mapping[str, Json]]:
    """What was kept, the membership event last.

    Of somebody who left without having been in, the leave alone, in client format: it is in no
    graph here if this server was not in the room either.
    """
    stored = members.stripped(tx, room, user)
    found = [] if stored is None else decode_stored(stored)
    assert isinstance(found, list)
    return found
