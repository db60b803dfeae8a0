"""Events of a room's state whose signatures could not be checked when the room was joined.

Matrix v1.19, Server-Server API, "Retrieving server keys".  Their signers' keys could not be had at
that moment.  Nothing is concluded from that (T027): they are kept, ``federation.undecided`` looks
for the keys, and ``partial.settle`` puts the room on the whole state when they are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matrixbox.core.identifiers import (
    InvalidIdentifier,
    ServerName,
    UserId,
    parse_server_name,
    server_of,
)
from matrixbox.store import joins, servers, undecided
from matrixbox.store.nids import EventNid, RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import Kept


def keep(tx: Tx, room: RoomNid, join: EventNid, kept: Sequence[Kept]) -> None:
    """Keep the events of the state before our join that could not be checked.

    Servers that would be in the room by these are taken to be in it, and hear what we say.
    """
    undecided.keep(tx, room, join, kept)
    found = {server for one in kept if one.is_state and (server := _joined(one)) is not None}
    if found:
        servers.assume(tx, room, sorted(found), tx.position())


def _joined(kept: Kept) -> ServerName | None:
    """The server of the user who is in the room by an event."""
    pdu = kept.pdu
    user, content = pdu.get("state_key"), pdu.get("content")
    is_join = (
        pdu.get("type") == "m.room.member"
        and isinstance(content, Mapping)
        and content.get("membership") == "join"
    )
    if not is_join or not isinstance(user, str):
        return None
    try:
        return parse_server_name(server_of(UserId(user)))
    except InvalidIdentifier:
        return None


def forget(tx: Tx, room: RoomNid) -> None:
    """Wait no more for what is undecided in a room."""
    undecided.drop_room(tx, room)
    if joins.partial(tx, room) is None:
        servers.settle(tx, room, tx.position())
    tx.changed(rooms=(room,))
