"""Following threads (MSC4306, MSC4308)."""

from __future__ import annotations

from collections.abc import Iterable

from matrixbox.core.identifiers import EventId
from matrixbox.core.json import Json
from matrixbox.errors import InvalidParam, MatrixError, NotFound
from matrixbox.rooms import push_rules, timeline
from matrixbox.rooms.reading import Reader
from matrixbox.rooms.receipts import thread_root
from matrixbox.store import names
from matrixbox.store import thread_subscriptions as store
from matrixbox.store.caches import StoredEvent
from matrixbox.store.thread_subscriptions import Kind, Subscription
from matrixbox.store.transaction import Tx

MAX_SUBSCRIPTIONS = 10_000
MAX_LISTED = 100
"""Choices in one answer."""


class NotInThread(MatrixError):
    """The event is in another thread, or in none (MSC4306)."""

    status, errcode = 400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"


class UnsubscribedSince(MatrixError):
    """The user stopped following the thread after the event that asks for it (MSC4306)."""

    status, errcode = 409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"


def subscribe(reader: Reader, root: EventId, cause: EventId | None) -> None:
    """Follow a thread: as the user decided, or because of an event in it (MSC4306).

    Raises NotFound, NotInThread, and UnsubscribedSince when the user stopped following the thread
    after that event.
    """
    thread = _root(reader, root)
    tx, user = reader.tx, reader.user
    before = store.get(tx, user, reader.room, thread.event.event_id)
    kind = Kind.MANUAL
    if cause is not None:
        kind = Kind.AUTOMATIC
        stored = timeline.event(reader, cause)
        if thread_root(tx, stored.event) != thread.event.event_id:
            raise NotInThread("That event is not in the thread.")
        if before is not None and before.kind is Kind.NONE and (stored.pos or 0) <= before.until:
            raise UnsubscribedSince("The thread was left after that event.")
    if before is not None and before.kind >= kind:
        return
    if before is None and store.count(tx, user) >= MAX_SUBSCRIPTIONS:
        raise InvalidParam(f"A user follows at most {MAX_SUBSCRIPTIONS} threads.")
    _put(reader, thread, kind, 0 if before is None else before.until)
    push_rules.begin_threads(tx, user)


def unsubscribe(reader: Reader, root: EventId) -> None:
    """Follow a thread no longer; what was said so far does not make the user follow it again."""
    thread = _root(reader, root)
    before = store.get(reader.tx, reader.user, reader.room, thread.event.event_id)
    if before is not None and before.kind is not Kind.NONE:
        _put(reader, thread, Kind.NONE, None)


def subscription(reader: Reader, root: EventId) -> dict[str, Json]:
    """Whether a thread is followed automatically.  Raises NotFound where it is not followed."""
    thread = _root(reader, root)
    found = store.get(reader.tx, reader.user, reader.room, thread.event.event_id)
    if found is None or found.kind is Kind.NONE:
        raise NotFound("You do not follow that thread.")
    return {"automatic": found.kind is Kind.AUTOMATIC}


def _root(reader: Reader, root: EventId) -> StoredEvent:
    timeline.require_reader(reader)
    return timeline.event(reader, root)


def _put(reader: Reader, thread: StoredEvent, kind: Kind, until: int | None) -> None:
    tx = reader.tx
    pos = tx.position()
    chosen = Subscription(
        reader.room, thread.event.event_id, pos, kind, pos if until is None else until
    )
    store.put(tx, reader.user, chosen)
    tx.changed(users=(reader.user,))


def listed(tx: Tx, found: Iterable[Subscription]) -> dict[str, Json]:
    """Choices as clients get them (MSC4308)."""
    subscribed: dict[str, dict[str, Json]] = {}
    unsubscribed: dict[str, dict[str, Json]] = {}
    for one in found:
        facts: dict[str, Json] = {"bump_stamp": one.pos}
        if one.kind is not Kind.NONE:
            facts["automatic"] = one.kind is Kind.AUTOMATIC
        into = unsubscribed if one.kind is Kind.NONE else subscribed
        into.setdefault(names.room_id(tx, one.room), {})[one.root] = facts
    answer: dict[str, Json] = {}
    if subscribed:
        answer["subscribed"] = {**subscribed}
    if unsubscribed:
        answer["unsubscribed"] = {**unsubscribed}
    return answer
