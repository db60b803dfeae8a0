"""Backups of room keys, which clients encrypt before they get here.

Matrix v1.19, Client-Server API, "Server-side key backups" ([C17.11] to [C17.14], T129).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.errors import BadJson, InvalidParam, NotFound, TooLarge, WrongRoomKeysVersion
from matrixbox.store import key_backup
from matrixbox.store.key_backup import Quality, Session, Version
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

MAX_SESSION = 256 * 1024
MAX_AUTH_DATA = 64 * 1024
MAX_VERSIONS = 50
MAX_NAME = 255
BATCH = 200
"""Sessions that are written in one transaction."""


@frozen
class Result:
    """What a client learns after it has changed a backup."""

    etag: int
    count: int

    def answer(self) -> dict[str, Json]:
        """As the endpoints show it."""
        return {"etag": str(self.etag), "count": self.count}


# --- versions


def create(tx: Tx, user: UserNid, algorithm: str, auth_data: Mapping[str, Json]) -> str:
    """Begin a new backup; what was there before cannot be written to any more."""
    if key_backup.count_versions(tx, user) >= MAX_VERSIONS:
        raise InvalidParam(f"A user has at most {MAX_VERSIONS} backups; delete some first.")
    return str(key_backup.add_version(tx, user, algorithm, _encoded(auth_data)))


def _encoded(auth_data: Mapping[str, Json]) -> bytes:
    json = encode(auth_data)
    if len(json) > MAX_AUTH_DATA:
        raise TooLarge(f"`auth_data` has at most {MAX_AUTH_DATA} bytes.")
    return json


def version(tx: Tx, user: UserNid, named: str | None) -> Version:
    """A backup, the newest unless named; raises NotFound."""
    number = None if named is None else _number(named)
    found = (
        key_backup.newest(tx, user)
        if named is None
        else None
        if number is None
        else key_backup.get(tx, user, number)
    )
    if found is None:
        raise NotFound("There is no such backup.")
    return found


def _number(named: str) -> int | None:
    """The number behind a version's name, which is opaque to clients."""
    plain = named.isascii() and named.isdigit() and len(named) < 16
    return int(named) if plain and str(int(named)) == named else None


def shown(found: Version) -> dict[str, Json]:
    """A backup as clients get it."""
    return {
        "version": str(found.version),
        "algorithm": found.algorithm,
        "auth_data": decode_stored(found.auth_data),
        "etag": str(found.etag),
        "count": found.count,
    }


def update(
    tx: Tx, user: UserNid, named: str, algorithm: str, auth_data: Mapping[str, Json]
) -> None:
    """Change the `auth_data` of a backup, and nothing else ([C17.11])."""
    found = version(tx, user, named)
    if found.algorithm != algorithm:
        raise InvalidParam("The algorithm of a backup does not change.")
    key_backup.set_auth_data(tx, user, found.version, _encoded(auth_data))


def delete(tx: Tx, user: UserNid, named: str) -> None:
    """Delete a backup; raises NotFound for one that never was ([C17.12])."""
    number = _number(named)
    if number is None or not key_backup.existed(tx, user, number):
        raise NotFound("There is no such backup.")
    key_backup.remove_version(tx, user, number)


# --- keys


def parse_room(room_id: str, value: Json) -> list[Session]:
    """The sessions of one room; raises BadJson, InvalidParam, TooLarge."""
    sessions = value.get("sessions") if isinstance(value, Mapping) else None
    if not isinstance(sessions, Mapping):
        raise BadJson("A room has `sessions`, an object.")
    return [parse_session(room_id, name, session) for name, session in sessions.items()]


def parse_session(room_id: str, session_id: str, value: Json) -> Session:
    """One session; raises BadJson, InvalidParam, TooLarge."""
    if not isinstance(value, Mapping):
        raise BadJson("A session is an object.")
    data = value.get("session_data")
    if not isinstance(data, Mapping):
        raise BadJson("A session has `session_data`, an object.")
    verified = value.get("is_verified")
    if not isinstance(verified, bool):
        raise BadJson("`is_verified` is true or false.")
    if not 0 < len(room_id) <= MAX_NAME or not 0 < len(session_id) <= MAX_NAME:
        raise InvalidParam("A room id or session id is empty or too long.")
    first, forwarded = _count(value, "first_message_index"), _count(value, "forwarded_count")
    json = encode(data)
    if len(json) > MAX_SESSION:
        raise TooLarge(f"A session has at most {MAX_SESSION} bytes.")
    return Session(room_id, session_id, Quality(verified, first, forwarded), json)


def _count(value: Mapping[str, Json], name: str) -> int:
    found = value.get(name)
    if type(found) is not int or found < 0:
        raise BadJson(f"`{name}` is an integer of at least 0.")
    return found


def put(tx: Tx, user: UserNid, named: str, sessions: Sequence[Session]) -> Result:
    """Store those sessions that are better than what is there ([C17.14]).

    Raises NotFound, WrongRoomKeysVersion.
    """
    found = _writable(tx, user, named)
    added = changed = 0
    for session in sessions:
        present = key_backup.quality(tx, user, found.version, session.room_id, session.session_id)
        if present is None or session.quality.is_better_than(present):
            key_backup.put(tx, user, found.version, session)
            changed += 1
            added += present is None
    return _result(tx, user, found, changed, added)


def _writable(tx: Tx, user: UserNid, named: str) -> Version:
    newest = key_backup.newest(tx, user)
    if newest is None:
        raise NotFound("There is no backup.")
    if named != str(newest.version):
        raise WrongRoomKeysVersion(
            "That is not the newest backup.", current_version=str(newest.version)
        )
    return newest


def _result(tx: Tx, user: UserNid, found: Version, changed: int, added: int) -> Result:
    if changed:
        key_backup.keys_changed(tx, user, found.version, added)
    return Result(found.etag + (changed > 0), found.count + added)


def remove(
    tx: Tx, user: UserNid, named: str, room_id: str | None, session_id: str | None
) -> Result:
    """Remove keys: all, those of a room, or one."""
    found = version(tx, user, named)
    gone = key_backup.remove(tx, user, found.version, room_id, session_id)
    return _result(tx, user, found, gone, -gone)


def read(
    tx: Tx, user: UserNid, named: str, room_id: str | None, session_id: str | None
) -> list[Session]:
    """Keys: all, those of a room, or one; raises NotFound without that backup, or that one."""
    found = key_backup.sessions(tx, user, version(tx, user, named).version, room_id, session_id)
    if session_id is not None and not found:
        raise NotFound("That session is not in the backup.")
    return found


def shown_session(session: Session) -> dict[str, Json]:
    """One session as clients get it."""
    return {
        "first_message_index": session.quality.first_index,
        "forwarded_count": session.quality.forwarded,
        "is_verified": session.quality.is_verified,
        "session_data": decode_stored(session.json),
    }


def shown_sessions(sessions: Iterable[Session]) -> dict[str, Json]:
    """The sessions of one room."""
    return {"sessions": {one.session_id: shown_session(one) for one in sessions}}


def shown_rooms(sessions: Iterable[Session]) -> dict[str, Json]:
    """The sessions of all rooms."""
    rooms: dict[str, list[Session]] = {}
    for session in sessions:
        rooms.setdefault(session.room_id, []).append(session)
    return {"rooms": {room: shown_sessions(those) for room, those in rooms.items()}}
