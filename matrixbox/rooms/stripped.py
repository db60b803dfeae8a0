"""What invited and knocking users of ours may know of a room.

Matrix v1.19, Client-Server API, "Stripped state" ([C8.19]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.client_format import stripped_state
from matrixbox.core.events import CREATE, JOIN_RULES, Event
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.rooms.state import CurrentState
from matrixbox.store import members
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


def remember(tx: Tx, room: RoomNid, user: UserNid, membership: Event) -> None:
    """Keep the room's face as it is when somebody is invited or knocks."""
    state = CurrentState(tx, room)
    found = [state[key] for key in SHOWN if key in state]
    sender = ("m.room.member", membership.sender)
    if membership.sender != membership.state_key and sender in state:
        found.append(state[sender])
    shown = [stripped_state(event) for event in (*found, membership)]
    members.set_stripped(tx, room, user, encode(shown))


def read(tx: Tx, room: RoomNid, user: UserNid) -> list[Mapping[str, Json]]:
    """What was kept, the membership event last."""
    stored = members.stripped(tx, room, user)
    found = [] if stored is None else decode_stored(stored)
    assert isinstance(found, list)
    return found
