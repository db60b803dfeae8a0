"""Who can be found by whom: members of rooms, and the accounts here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from matrixbox.core.identifiers import RoomId, UserId
from matrixbox.core.json import Json, decode_stored
from matrixbox.store import bodies
from matrixbox.store.nids import EventNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx


@frozen
class Findable:
    """Somebody in a room, with the membership event there; or an account, without one."""

    user: UserNid
    user_id: UserId
    event: EventNid | None


def sharing(tx: Tx, user: UserNid, limit: int) -> list[Findable]:
    """Others in the rooms that a user is in, each with the newest event."""
    rows = tx.run(
        "SELECT b.user_nid, user_id, MAX(b.event_nid) FROM member AS a"
        " JOIN member AS b USING (room_nid) JOIN user ON user.user_nid = b.user_nid"
        " WHERE a.user_nid = ? AND a.membership = 1 AND b.membership = 1 AND b.user_nid != ?"
        " GROUP BY b.user_nid LIMIT ?",
        user,
        user,
        limit,
    )
    return [Findable(UserNid(nid), UserId(name), EventNid(event)) for nid, name, event in rows]


def members_of(tx: Tx, rooms: Sequence[RoomNid], limit: int) -> list[Findable]:
    """Who is in any of some rooms, each with the newest event."""
    rows = tx.run(
        "SELECT user_nid, user_id, MAX(event_nid) FROM json_each(?) AS chosen"
        " CROSS JOIN member ON room_nid = chosen.value JOIN user USING (user_nid)"
        " WHERE membership = 1 GROUP BY user_nid LIMIT ?",
        _json_list(rooms),
        limit,
    )
    return [Findable(UserNid(nid), UserId(name), EventNid(event)) for nid, name, event in rows]


def household(tx: Tx, limit: int) -> list[Findable]:
    """The accounts that are in use; guests are not of the household."""
    rows = tx.run(
        "SELECT user_nid, user_id FROM account JOIN user USING (user_nid)"
        " WHERE state = 0 AND NOT guest LIMIT ?",
        limit,
    )
    return [Findable(UserNid(nid), UserId(name), None) for nid, name in rows]


def gone(tx: Tx) -> set[UserNid]:
    """The accounts that have ended, and those of guests: they are not found."""
    rows = tx.run("SELECT user_nid FROM account WHERE state != 0 OR guest")
    return {UserNid(row[0]) for row in rows}


def own_profiles(tx: Tx) -> dict[UserNid, dict[str, Json]]:
    """What accounts here call themselves, and look like."""
    rows = tx.run(
        "SELECT user_nid, key, json FROM account LEFT JOIN profile"
        " USING (user_nid) WHERE key IN ('displayname', 'avatar_url') OR key IS NULL"
    )
    found: dict[UserNid, dict[str, Json]] = {}
    for user, key, json in rows:
        fields = found.setdefault(UserNid(user), {})
        if key is not None:
            fields[key] = decode_stored(bytes(json))
    return found


def accounts_here(tx: Tx) -> set[UserNid]:
    """Everybody with an account, whether it has ended or not."""
    return {UserNid(row[0]) for row in tx.run("SELECT user_nid FROM account")}


def shown_in(tx: Tx, event: EventNid) -> Mapping[str, Json]:
    """What a membership event says of its user."""
    row = tx.one("SELECT json FROM event WHERE nid = ?", event)
    if row is None:
        return {}
    pdu = decode_stored(bodies.unpack(bytes(row[0])))
    content = pdu.get("content") if isinstance(pdu, dict) else None
    return content if isinstance(content, dict) else {}


def inhabited(tx: Tx) -> list[RoomNid]:
    """The rooms that users of ours are in, so that their state is known."""
    rows = tx.run("SELECT DISTINCT room_nid FROM member WHERE is_local = 1 AND membership = 1")
    return [RoomNid(row[0]) for row in rows]


def rooms_with(tx: Tx, user: UserNid, limit: int) -> list[RoomNid]:
    """The rooms that a user is in, of those that users of ours are in."""
    rows = tx.run(
        "SELECT room_nid FROM member AS a WHERE user_nid = ? AND membership = 1 AND EXISTS"
        " (SELECT 1 FROM member AS b"
        " WHERE b.room_nid = a.room_nid AND b.is_local = 1 AND b.membership = 1) LIMIT ?",
        user,
        limit,
    )
    return [RoomNid(row[0]) for row in rows]


def shared_rooms(
    tx: Tx, one: UserNid, other: UserNid, after: int, limit: int
) -> list[tuple[RoomNid, RoomId]]:
    """Rooms that two users are in, those after one."""
    rows = tx.run(
        "SELECT room_nid, room_id FROM member AS a JOIN member AS b USING (room_nid)"
        " JOIN room USING (room_nid) WHERE a.user_nid = ? AND a.membership = 1"
        " AND b.user_nid = ? AND b.membership = 1 AND room_nid > ? ORDER BY room_nid LIMIT ?",
        one,
        other,
        after,
        limit,
    )
    return [(RoomNid(room), RoomId(name)) for room, name in rows]


def shared_count(tx: Tx, one: UserNid, other: UserNid) -> int:
    """How many rooms two users are in."""
    row = tx.one(
        "SELECT COUNT(*) FROM member AS a JOIN member AS b USING (room_nid)"
        " WHERE a.user_nid = ? AND a.membership = 1 AND b.user_nid = ? AND b.membership = 1",
        one,
        other,
    )
    assert row is not None
    return int(row[0])


def _json_list(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"
