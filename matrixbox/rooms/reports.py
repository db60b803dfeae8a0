"""Reporting events, rooms and users to those who administer the server.

Matrix v1.19, Client-Server API, "Reporting content" ([C18.05], T081, T107).  An event can be
reported by who may see it, a room and a user by everybody; whether this server knows them is not
told.
"""

from __future__ import annotations

from matrixbox.core.identifiers import EventId, RoomId, UserId
from matrixbox.errors import InvalidParam, LimitExceeded, NotFound
from matrixbox.observe import log
from matrixbox.rooms import timeline
from matrixbox.rooms.env import Env
from matrixbox.rooms.reading import Reader
from matrixbox.store import names, reports
from matrixbox.store.caches import Session
from matrixbox.store.reports import Subject
from matrixbox.store.transaction import Tx

MAX_REPORTS = 100
"""Reports of one user that wait to be dealt with."""
MAX_REASON = 2_000
TRY_AGAIN_MS = 24 * 3_600_000


def report_event(
    tx: Tx, env: Env, who: Session, room_id: RoomId, event_id: EventId, reason: str
) -> None:
    """Report an event in a room that the user is in.  Raises NotFound where it cannot be seen."""
    room = names.room_nid(tx, room_id)
    reader = None if room is None else Reader(tx, room, who.user, env.clock.now_ms())
    if reader is None or not reader.joined:
        raise NotFound(timeline.NO_EVENT)
    stored = timeline.event(reader, event_id)
    _store(tx, env, who, Subject(stored.event.sender, room_id, event_id), reason)


def report_room(tx: Tx, env: Env, who: Session, room_id: RoomId, reason: str) -> None:
    """Report a room; one that nobody here knows is nothing to report."""
    _check(reason)
    if names.room_nid(tx, room_id) is not None:
        _store(tx, env, who, Subject(room_id=room_id), reason)


def report_user(tx: Tx, env: Env, who: Session, user_id: UserId, reason: str) -> None:
    """Report a user; one whom nobody here knows is nobody to report."""
    _check(reason)
    if names.user_nid(tx, user_id) is not None:
        _store(tx, env, who, Subject(user_id), reason)


def _check(reason: str) -> None:
    if len(reason) > MAX_REASON:
        raise InvalidParam(f"A reason has at most {MAX_REASON} characters.")


def _store(tx: Tx, env: Env, who: Session, subject: Subject, reason: str) -> None:
    _check(reason)
    if reports.count(tx, who.user) >= MAX_REPORTS and not reports.exists(tx, who.user, subject):
        raise LimitExceeded(TRY_AGAIN_MS, "Your earlier reports have to be dealt with first.")
    reports.put(tx, who.user, subject, reason, env.clock.now_ms())
    log.info(
        "something was reported",
        by=who.user_id,
        user_id=subject.user_id,
        room_id=subject.room_id,
        event_id=subject.event_id,
    )
