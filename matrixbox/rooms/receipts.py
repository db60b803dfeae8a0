"""Read receipts and the fully-read marker.

Matrix v1.19, Client-Server API, "Receipts", "Fully read markers" ([C13.01] to [C13.06]).
"""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.events import Event
from matrixbox.core.identifiers import EventId
from matrixbox.core.json import encode
from matrixbox.core.relations import relation_of, thread_of
from matrixbox.errors import Forbidden, InvalidParam, NotFound
from matrixbox.rooms.env import Env
from matrixbox.store import account_data, events, members, outbound, receipts, servers
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


def thread_root(tx: Tx, event: Event) -> EventId | None:
    """The root of the thread an event is in; None for the main timeline."""

    def parent(event_id: EventId) -> Event | None:
        found = events.by_id(tx, event_id)
        return None if found is None else found.event

    return None if relation_of(event) is None else thread_of(event, parent)


def _check_thread(tx: Tx, stored: StoredEvent, thread: str | None) -> None:
    if thread is None:
        return
    root = thread_root(tx, stored.event)
    if thread not in (MAIN if root is None else root, stored.event.event_id):
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
    tx.changed(receipts=(room,))
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


def _set_fully_read(tx: Tx, who: Session, room: RoomNid, event_id: EventId) -> None:
    content = encode({"event_id": event_id})
    account_data.put(tx, who.user, Entry(room, FULLY_READ, content, tx.position()))
    tx.changed(users=(who.user,))
