"""Which servers take part in a room, and which may.

Matrix v1.19, Server-Server API, "Server Access Control Lists (ACLs)" ([B13.12] to [B13.17], T037).
"""

from __future__ import annotations

from collections.abc import Sequence

from matrixbox.core.acl import ServerAcl
from matrixbox.core.identifiers import ServerName, UserId, server_of
from matrixbox.rooms.state import CurrentState
from matrixbox.store import joins, members, names
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

ACL = ("m.room.server_acl", "")


def acl_of(tx: Tx, room: RoomNid) -> ServerAcl | None:
    """The room's access control list; None where it has none."""
    stored = CurrentState(tx, room).stored(ACL)
    if stored is None:
        return None
    known = tx.caches.acls.get(stored.nid)
    if known is not None and known[0] == stored.redacted_by:
        return known[1]
    acl = ServerAcl.from_content(stored.event.content)
    if not tx.writable:
        tx.caches.acls.put(stored.nid, (stored.redacted_by, acl))
    return acl


def is_allowed(tx: Tx, room: RoomNid, server: ServerName) -> bool:
    """Whether the room's access control list lets a server take part ([B13.14])."""
    acl = acl_of(tx, room)
    return acl is None or acl.allows(server)


def is_in_room(tx: Tx, room: RoomNid, server: ServerName) -> bool:
    """Whether a server has a user in the room now."""
    return server in members.servers(tx, room)


def others(tx: Tx, room: RoomNid, own: ServerName) -> Sequence[ServerName]:
    """The other servers in the room now, the longest standing first."""
    return [server for server in members.servers(tx, room) if server != own]


def may_have_joined(tx: Tx, room: RoomNid, user_id: UserId) -> bool:
    """Whether a user of another server is in a room, or may be while not all members are known."""
    user = names.user_nid(tx, user_id)
    present = None if user is None else members.get(tx, room, user)
    if present is not None:
        return present.membership is Membership.JOIN
    return joins.partial(tx, room) is not None and is_in_room(tx, room, server_of(user_id))
