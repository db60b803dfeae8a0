"""Room keys that clients keep at the server, encrypted, in versions."""

from __future__ import annotations

from attrs import frozen

from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx


@frozen
class Version:
    """A backup; ``etag`` is another one whenever its keys are others."""

    version: int
    algorithm: str
    auth_data: bytes
    etag: int
    count: int


@frozen
class Quality:
    """What decides which of two copies of a session is better."""

    is_verified: bool
    first_index: int
    forwarded: int

    def is_better_than(self, other: Quality) -> bool:
        """Verified ones, then those that begin earlier, then those forwarded less often win."""
        mine = (not self.is_verified, self.first_index, self.forwarded)
        return mine < (not other.is_verified, other.first_index, other.forwarded)


@frozen
class Session:
    """The keys of one session of a room; ``json`` is its encrypted part."""

    room_id: str
    session_id: str
    quality: Quality
    json: bytes


def add_version(tx: Tx, user: UserNid, algorithm: str, auth_data: bytes) -> int:
    """Begin a new backup; its number."""
    row = tx.one(
        "SELECT COALESCE(MAX(version), 0) + 1 FROM backup_version WHERE user_nid = ?", user
    )
    assert row is not None
    tx.run(
        "INSERT INTO backup_version (user_nid, version, algorithm, etag, count, auth_data)"
        " VALUES (?, ?, ?, 0, 0, ?)",
        user,
        row[0],
        algorithm,
        auth_data,
    )
    return int(row[0])


def newest(tx: Tx, user: UserNid) -> Version | None:
    """The backup that can be written to."""
    row = tx.one(
        "SELECT version, algorithm, auth_data, etag, count FROM backup_version"
        " WHERE user_nid = ? AND deleted = 0 ORDER BY version DESC LIMIT 1",
        user,
    )
    return None if row is None else Version(row[0], row[1], bytes(row[2]), row[3], row[4])


def get(tx: Tx, user: UserNid, version: int) -> Version | None:
    """A backup that was not deleted."""
    row = tx.one(
        "SELECT version, algorithm, auth_data, etag, count FROM backup_version"
        " WHERE user_nid = ? AND version = ? AND deleted = 0",
        user,
        version,
    )
    return None if row is None else Version(row[0], row[1], bytes(row[2]), row[3], row[4])


def existed(tx: Tx, user: UserNid, version: int) -> bool:
    """Whether there is or was a backup of that number."""
    row = tx.one("SELECT 1 FROM backup_version WHERE user_nid = ? AND version = ?", user, version)
    return row is not None


def count_versions(tx: Tx, user: UserNid) -> int:
    """How many backups a user has."""
    row = tx.one("SELECT COUNT(*) FROM backup_version WHERE user_nid = ? AND deleted = 0", user)
    assert row is not None
    return int(row[0])


def set_auth_data(tx: Tx, user: UserNid, version: int, auth_data: bytes) -> None:
    """Change what a backup is encrypted with or signed by."""
    tx.run(
        "UPDATE backup_version SET auth_data = ? WHERE user_nid = ? AND version = ?",
        auth_data,
        user,
        version,
    )


def remove_version(tx: Tx, user: UserNid, version: int) -> None:
    """Delete a backup with its keys."""
    tx.run(
        "UPDATE backup_version SET deleted = 1, count = 0, auth_data = x''"
        " WHERE user_nid = ? AND version = ?",
        user,
        version,
    )
    tx.run("DELETE FROM backup_key WHERE user_nid = ? AND version = ?", user, version)


def forget_user(tx: Tx, user: UserNid) -> None:
    """Remove all backups of a user."""
    tx.run("DELETE FROM backup_version WHERE user_nid = ?", user)
    tx.run("DELETE FROM backup_key WHERE user_nid = ?", user)


def quality(tx: Tx, user: UserNid, version: int, room_id: str, session_id: str) -> Quality | None:
    """How good the stored copy of a session is."""
    row = tx.one(
        "SELECT is_verified, first_index, forwarded FROM backup_key"
        " WHERE user_nid = ? AND version = ? AND room_id = ? AND session_id = ?",
        user,
        version,
        room_id,
        session_id,
    )
    return None if row is None else Quality(bool(row[0]), row[1], row[2])


def put(tx: Tx, user: UserNid, version: int, session: Session) -> None:
    """Store a session over the one it replaces."""
    tx.run(
        "INSERT INTO backup_key (user_nid, version, room_id, session_id, is_verified,"
        " first_index, forwarded, json) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (user_nid, version, room_id, session_id) DO UPDATE"
        " SET is_verified = excluded.is_verified, first_index = excluded.first_index,"
        " forwarded = excluded.forwarded, json = excluded.json",
        user,
        version,
        session.room_id,
        session.session_id,
        int(session.quality.is_verified),
        session.quality.first_index,
        session.quality.forwarded,
        session.json,
    )


def sessions(
    tx: Tx, user: UserNid, version: int, room_id: str | None, session_id: str | None
) -> list[Session]:
    """The sessions of a backup: all, those of a room, or one."""
    if room_id is None:
        rows = tx.run(
            "SELECT room_id, session_id, is_verified, first_index, forwarded, json"
            " FROM backup_key WHERE user_nid = ? AND version = ?",
            user,
            version,
        )
    elif session_id is None:
        rows = tx.run(
            "SELECT room_id, session_id, is_verified, first_index, forwarded, json"
            " FROM backup_key WHERE user_nid = ? AND version = ? AND room_id = ?",
            user,
            version,
            room_id,
        )
    else:
        rows = tx.run(
            "SELECT room_id, session_id, is_verified, first_index, forwarded, json"
            " FROM backup_key WHERE user_nid = ? AND version = ? AND room_id = ?"
            " AND session_id = ?",
            user,
            version,
            room_id,
            session_id,
        )
    return [
        Session(room, session, Quality(bool(verified), first, forwarded), bytes(json))
        for room, session, verified, first, forwarded, json in rows
    ]


def remove(tx: Tx, user: UserNid, version: int, room_id: str | None, session_id: str | None) -> int:
    """Remove sessions: all, those of a room, or one; how many there were."""
    tx.run(
        "DELETE FROM backup_key WHERE user_nid = ?1 AND version = ?2"
        " AND (?3 IS NULL OR room_id = ?3) AND (?4 IS NULL OR session_id = ?4)",
        user,
        version,
        room_id,
        session_id,
    )
    return tx.rows_changed


def keys_changed(tx: Tx, user: UserNid, version: int, added: int) -> None:
    """Note that the keys of a backup are others now, and that it has more (or fewer) of them."""
    tx.run(
        "UPDATE backup_version SET etag = etag + 1, count = count + ?"
        " WHERE user_nid = ? AND version = ?",
        added,
        user,
        version,
    )
