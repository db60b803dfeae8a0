"""Read receipts and the fully-read marker.

Matrix v1.19, Client-Server API, "Receipts", "Fully read markers" ([C13.01] to [C13.06]).
"""

from __future__ import annotations

from functools import partial

from attrs import frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId, RoomId, ServerName, UserId, server_of
from matrixbox.core.json import encode
from matrixbox.core.relations import leads_to, relation_of, thread_of
from matrixbox.errors import Forbidden, InvalidParam, NotFound
from matrixbox.rooms.env import Env
from matrixbox.rooms.servers import is_allowed, may_have_joined
from matrixbox.store import (
    account_data,
    events,
    members,
    names,
    outbound,
    pushers,
    receipts,
    servers,
)
from matrixbox.store.account_data import Entry
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.receipts import Kind, Receipt
from matrixbox.store.transaction import Tx

FULLY_READ = "m.fully_read"
KINDS = {"m.read": Kind.READ, "m.read.private": Kind.READ_PRIVATE}
MAIN = "main"


@frozen
class Marks:
    """How far a user says to have read, by the type of receipt."""

    events: dict[str, EventId]
    thread: str | None = None  # None: unthreaded


def mark(tx: Tx, env: Env, who: Session, room: RoomNid, marks: Marks) -> None:
    """Set receipts and the fully-read marker.

    A receipt never moves backwards.  Raises Forbidden outside of joined rooms (T038), NotFound for
    an event that is not in the room, InvalidParam for a thread that the event is not in.
    """
    present = members.get(tx, room, who.user)
    if present is None or present.membership is not Membership.JOIN:
        raise Forbidden("You are not in that room.")
    for kind, event_id in marks.events.items():
        stored = events.by_id(tx, event_id)
        if stored is None or stored.room != room or stored.pos is None:
            raise NotFound("There is no such event in that room.")
        if kind == FULLY_READ:
            _set_fully_read(tx, who, room, event_id)
        else:
            _check_thread(tx, stored, marks.thread)
            _set_receipt(tx, env, who, room, KINDS[kind], stored, marks.thread or "")
    if env.presence is not None:
        tx.after_commit(env.presence.active, who.user_id)


def thread_root(tx: Tx, event: Event) -> EventId | None:
    """The root of the thread an event is in; None for the main timeline."""
    return None if relation_of(event) is None else thread_of(event, partial(_event, tx))


def _event(tx: Tx, event_id: EventId) -> Event | None:
    found = events.by_id(tx, event_id)
    return None if found is None else found.event


def _check_thread(tx: Tx, stored: StoredEvent, thread: str | None) -> None:
    """Raise InvalidParam unless an event is in a thread, or relates to its root in any way.

    What relates to a root is in the main timeline, but some clients show it with the thread.
    """
    if thread is None:
        return
    root = thread_root(tx, stored.event)
    if thread in (MAIN if root is None else root, stored.event.event_id):
        return
    if thread == MAIN or not leads_to(stored.event, thread, partial(_event, tx)):
        raise InvalidParam("That event is not in that thread.")


def _set_receipt(
    tx: Tx,
    env: Env,
    who: Session,
    room: RoomNid,
    kind: Kind,
    stored: StoredEvent,
    thread: str,
) -> None:
    if not _move(tx, who.user, room, kind, stored, thread, env.clock.now_ms()):
        return
    tx.changed(receipts=(room,), topics=(pushers.TOPIC,))
    if kind is Kind.READ and servers.has_others(tx, room, env.server_name):
        tx.changed(topics=(outbound.TOPIC,))


def _move(
    tx: Tx, user: UserNid, room: RoomNid, kind: Kind, stored: StoredEvent, thread: str, ts: int
) -> bool:
    """Set a receipt, unless one that is not further back stands; whether it was set."""
    assert stored.pos is not None
    point = (stored.pos, stored.sub)
    for receipt in receipts.of_user(tx, room, user):
        if receipt.kind is kind and receipt.thread == thread and receipt.point >= point:
            return False
    event_id = stored.event.event_id
    receipts.put(tx, room, Receipt(user, kind, thread, event_id, point, ts, tx.position()))
    return True


@frozen
class FarReceipt:
    """How far a user of another server says to have read."""

    room_id: RoomId
    user_id: UserId
    event_id: EventId
    ts: int
    thread: str | None


def receive(tx: Tx, env: Env, origin: ServerName, far: FarReceipt) -> bool:
    """Take a receipt of another server's user ([B7.03], T038).

    Dropped unless the user is the origin's and in the room, the room is one of ours, and its access
    control list lets the origin take part.  False: the event is not here yet.
    """
    room = names.room_nid(tx, far.room_id)
    if room is None or server_of(far.user_id) != origin:
        return True
    if not may_have_joined(tx, room, far.user_id):
        return True
    if not members.local_joined(tx, room) or not is_allowed(tx, room, origin):
        return True
    stored = events.by_id(tx, far.event_id)
    if stored is None:
        return False
    if stored.room != room or stored.pos is None:
        return True
    try:
        _check_thread(tx, stored, far.thread)
    except InvalidParam:
        return True
    now_ms = env.clock.now_ms()
    ts = far.ts if 0 <= far.ts <= now_ms else now_ms
    user = names.add_user(tx, far.user_id)
    if _move(tx, user, room, Kind.READ, stored, far.thread or "", ts):
        tx.changed(receipts=(room,))
    return True


def _set_fully_read(tx: Tx, who: Session, room: RoomNid, event_id: EventId) -> None:
    content = encode({"event_id": event_id})
    account_data.put(tx, who.user, Entry(room, FULLY_READ, content, tx.position()))
    tx.changed(users=(who.user,))
