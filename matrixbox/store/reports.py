"""What users have reported as inappropriate."""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.identifiers import UserId
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx


@frozen
class Subject:
    """What is reported: an event with its sender and room, a room, or a user."""

    user_id: str = ""
    room_id: str = ""
    event_id: str = ""


@frozen
class Report:
    """One report."""

    nid: int
    reporter: UserId
    made_ms: int
    subject: Subject
    reason: str


def put(tx: Tx, reporter: UserNid, subject: Subject, reason: str, now_ms: int) -> None:
    """Store a report, over one that the same user made of the same."""
    tx.run(
        "INSERT INTO report (reporter, made_ms, user_id, room_id, event_id, reason)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET made_ms = excluded.made_ms, reason = excluded.reason",
        reporter,
        now_ms,
        subject.user_id,
        subject.room_id,
        subject.event_id,
        reason,
    )


def count(tx: Tx, reporter: UserNid) -> int:
    """How many reports of a user nobody has dealt with."""
    row = tx.one("SELECT COUNT(*) FROM report WHERE reporter = ?", reporter)
    assert row is not None
    return int(row[0])


def exists(tx: Tx, reporter: UserNid, subject: Subject) -> bool:
    """Whether a user has reported the same already."""
    row = tx.one(
        "SELECT 1 FROM report WHERE reporter = ? AND user_id = ? AND room_id = ? AND event_id = ?",
        reporter,
        subject.user_id,
        subject.room_id,
        subject.event_id,
    )
    return row is not None


def everything(tx: Tx) -> list[Report]:
    """All reports, the oldest first."""
    rows = tx.run(
        "SELECT nid, user.user_id, made_ms, report.user_id, room_id, event_id, reason"
        " FROM report JOIN user ON user_nid = reporter ORDER BY made_ms, nid"
    )
    return [
        Report(nid, UserId(reporter), made_ms, Subject(user, room, event), reason)
        for nid, reporter, made_ms, user, room, event, reason in rows
    ]


def remove(tx: Tx, nid: int) -> bool:
    """A report has been dealt with; whether there was one of that number."""
    tx.run("DELETE FROM report WHERE nid = ?", nid)
    return tx.rows_changed > 0
