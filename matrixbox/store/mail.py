"""Mail that waits to be sent."""

from __future__ import annotations

from attrs import frozen

from matrixbox.store.transaction import Tx

TOPIC = "mail"
"""Rings when there is mail to send."""


@frozen
class Mail:
    """One message to one person; times in ms."""

    mail_id: int
    recipient: str
    subject: str
    text: str
    until_ms: int  # of no use any more
    attempts: int


def put(tx: Tx, recipient: str, subject: str, text: str, now_ms: int, until_ms: int) -> None:
    """Have a message sent."""
    tx.run(
        "INSERT INTO mail (recipient, subject, text, due_ms, until_ms) VALUES (?, ?, ?, ?, ?)",
        recipient,
        subject,
        text,
        now_ms,
        until_ms,
    )
    tx.changed(topics=(TOPIC,))


def count(tx: Tx) -> int:
    """How many messages wait."""
    row = tx.one("SELECT COUNT(*) FROM mail")
    assert row is not None
    return int(row[0])


def due(tx: Tx, now_ms: int) -> Mail | None:
    """The message that has been due for longest."""
    row = tx.one(
        "SELECT mail_id, recipient, subject, text, until_ms, attempts FROM mail"
        " WHERE due_ms <= ? ORDER BY due_ms, mail_id LIMIT 1",
        now_ms,
    )
    return None if row is None else Mail(*row)


def next_due_ms(tx: Tx) -> int | None:
    """When the next message is due; None: there is none."""
    row = tx.one("SELECT MIN(due_ms) FROM mail")
    return None if row is None else row[0]


def postpone(tx: Tx, mail_id: int, due_ms: int) -> None:
    """Try a message again later."""
    tx.run("UPDATE mail SET due_ms = ?, attempts = attempts + 1 WHERE mail_id = ?", due_ms, mail_id)


def remove(tx: Tx, mail_id: int) -> None:
    """Forget a message: it was sent, or will never be."""
    tx.run("DELETE FROM mail WHERE mail_id = ?", mail_id)
