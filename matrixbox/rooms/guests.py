"""Which rooms guests may be in.

Matrix v1.19, Client-Server API, "Guest Access" ([C11.07]).  Guests are accounts of ours that
anybody may have; other servers do not know which of our users are guests.
"""

from __future__ import annotations

from matrixbox.core.identifiers import RoomId
from matrixbox.errors import GuestAccessForbidden
from matrixbox.rooms import residence
from matrixbox.rooms.env import Env
from matrixbox.rooms.state import CurrentState
from matrixbox.store import accounts
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.rooms import GUEST_ACCESS
from matrixbox.store.transaction import Tx

TOPIC = GUEST_ACCESS[0]
"""Rings when a room may have closed to guests."""


def may_join(tx: Tx, room: RoomNid) -> bool:
    """Whether a room lets guests in."""
    access = CurrentState(tx, room).get(GUEST_ACCESS)
    return access is not None and access.content.get("guest_access") == "can_join"


def require_open(tx: Tx, room: RoomNid) -> None:
    """Raise GuestAccessForbidden unless a room lets guests in."""
    if not may_join(tx, room):
        raise GuestAccessForbidden("That room is not open to guests.")


def require_open_here(tx: Tx, env: Env, room_id: RoomId) -> None:
    """The same by the room's id; of rooms that this server is not in nothing is known."""
    room = residence.resident_room(tx, env, room_id)
    if room is None:
        raise GuestAccessForbidden("Guests can join only rooms that this server is in.")
    require_open(tx, room)


def to_put_out(tx: Tx) -> list[tuple[UserNid, RoomNid]]:
    """The guests who are in rooms that do not let guests in any more."""
    inside = accounts.guests_in_rooms(tx)
    closed = {room for room in {room for _, room in inside} if not may_join(tx, room)}
    return [(user, room) for user, room in inside if room in closed]
