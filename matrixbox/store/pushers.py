"""Where notifications are sent, how far each pusher is, and what events notify somebody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NewType

from attrs import frozen

from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.store.nids import DeviceNid, EventNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx

PusherNid = NewType("PusherNid", int)

TOPIC = "push"
"""Rings when there may be something to push."""
CHANGED = "pushers"
"""Rings when a pusher was set or removed."""
MAIL_APP = "m.email"
"""The app of pushers that write to an e-mail address: their key."""


@frozen
class Pusher:
    """One app on one device, reached through a gateway."""

    nid: PusherNid
    user: UserNid
    app_id: str
    pushkey: str
    app_display_name: str
    device_display_name: str
    profile_tag: str | None
    lang: str
    data: Mapping[str, Json]
    set_ms: int

    @property
    def is_mail(self) -> bool:
        """Whether it writes e-mail; of such an app, others have the URL of a gateway."""
        return self.app_id == MAIL_APP and "url" not in self.data

    @property
    def url(self) -> str:
        """Where its gateway is."""
        return str(self.data.get("url", ""))

    @property
    def gateway(self) -> str:
        """The scheme, host and port of that, which pushers of one gateway share."""
        return "/".join(self.url.split("/", 3)[:3]).lower()


@frozen
class Progress:
    """How far a pusher is, and whether its gateway answers.

    Of one that writes e-mail, `failures` are mails in a row after which nothing was read.
    """

    cursor: int  # what happened up to this position has been sent, or was not worth it
    badge: int | None  # the number that the gateway was told last
    failures: int = 0  # in a row
    failing_since_ms: int | None = None
    retry_ms: int = 0


def everything(tx: Tx) -> list[tuple[Pusher, Progress]]:
    """All pushers, the oldest first."""
    rows = tx.run(
        "SELECT pusher_nid, user_nid, app_id, pushkey, app_display_name, device_display_name,"
        " profile_tag, lang, data, set_ms, cursor, badge, failures, failing_since_ms, retry_ms"
        " FROM pusher ORDER BY pusher_nid"
    )
    return [(_pusher(row[:10]), Progress(*row[10:])) for row in rows]


def of_user(tx: Tx, user: UserNid) -> list[Pusher]:
    """The pushers of a user, the oldest first."""
    rows = tx.run(
        "SELECT pusher_nid, user_nid, app_id, pushkey, app_display_name, device_display_name,"
        " profile_tag, lang, data, set_ms FROM pusher WHERE user_nid = ? ORDER BY pusher_nid",
        user,
    )
    return [_pusher(row) for row in rows]


def _pusher(row: tuple[object, ...]) -> Pusher:
    nid, user, app_id, pushkey, app_name, device_name, tag, lang, data, set_ms = row
    decoded = decode_stored(data)  # type: ignore[arg-type]
    assert isinstance(decoded, Mapping)
    return Pusher(
        PusherNid(nid),  # type: ignore[arg-type]
        UserNid(user),  # type: ignore[arg-type]
        str(app_id),
        str(pushkey),
        str(app_name),
        str(device_name),
        None if tag is None else str(tag),
        str(lang),
        decoded,
        set_ms,  # type: ignore[arg-type]
    )


def put(tx: Tx, pusher: Pusher, device: DeviceNid) -> None:
    """Make a pusher, or change the one of that app and key; its `nid` does not count.

    A new one is told of what happens from now on.  One that failed is tried again at once.
    """
    tx.run(
        "INSERT INTO pusher (user_nid, device_nid, app_id, pushkey, app_display_name,"
        " device_display_name, profile_tag, lang, data, set_ms, cursor, failures, retry_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)"
        " ON CONFLICT (app_id, pushkey, user_nid) DO UPDATE SET device_nid = excluded.device_nid,"
        " app_display_name = excluded.app_display_name,"
        " device_display_name = excluded.device_display_name,"
        " profile_tag = excluded.profile_tag, lang = excluded.lang, data = excluded.data,"
        " set_ms = excluded.set_ms, failures = 0, failing_since_ms = NULL, retry_ms = 0",
        pusher.user,
        device,
        pusher.app_id,
        pusher.pushkey,
        pusher.app_display_name,
        pusher.device_display_name,
        pusher.profile_tag,
        pusher.lang,
        encode(pusher.data),
        pusher.set_ms,
        tx.changed(topics=(CHANGED,)),
    )


def remove(tx: Tx, nid: PusherNid) -> None:
    """Remove a pusher."""
    tx.run("DELETE FROM pusher WHERE pusher_nid = ?", nid)
    _removed(tx)


def remove_of(tx: Tx, user: UserNid, app_id: str, pushkey: str) -> None:
    """Remove a user's pusher of an app and key."""
    tx.run(
        "DELETE FROM pusher WHERE app_id = ? AND pushkey = ? AND user_nid = ?",
        app_id,
        pushkey,
        user,
    )
    _removed(tx)


def remove_of_others(tx: Tx, user: UserNid, app_id: str, pushkey: str) -> None:
    """Remove the pushers of an app and key of all other users."""
    tx.run(
        "DELETE FROM pusher WHERE app_id = ? AND pushkey = ? AND user_nid != ?",
        app_id,
        pushkey,
        user,
    )
    _removed(tx)


def remove_of_device(tx: Tx, device: DeviceNid) -> None:
    """Remove the pushers that a device has set."""
    tx.run("DELETE FROM pusher WHERE device_nid = ?", device)
    _removed(tx)


def remove_of_user(tx: Tx, user: UserNid) -> None:
    """Remove all pushers of a user."""
    tx.run("DELETE FROM pusher WHERE user_nid = ?", user)
    _removed(tx)


def _removed(tx: Tx) -> None:
    if tx.rows_changed:
        tx.changed(topics=(CHANGED,))


def note(tx: Tx, progress: Iterable[tuple[PusherNid, Progress]]) -> None:
    """Write down how far pushers are."""
    tx.many(
        "UPDATE pusher SET cursor = ?, badge = ?, failures = ?, failing_since_ms = ?,"
        " retry_ms = ? WHERE pusher_nid = ?",
        [
            (one.cursor, one.badge, one.failures, one.failing_since_ms, one.retry_ms, nid)
            for nid, one in progress
        ],
    )


# --- what notifies


@frozen
class Notifying:
    """An event that notifies somebody; whom, see ``rooms.counts``."""

    nid: EventNid
    room: RoomNid
    point: tuple[int, int]
    notify: bytes


def notifying(tx: Tx, after: int, until: int, limit: int) -> list[Notifying]:
    """Events at positions in (after, until] that notify somebody, oldest first."""
    rows = tx.run(
        "SELECT nid, room_nid, pos, sub, notify FROM event WHERE notify IS NOT NULL"
        " AND pos > ? AND pos <= ? ORDER BY pos, sub LIMIT ?",
        after,
        until,
        limit,
    )
    return [_notifying(row) for row in rows]


def notifying_before(tx: Tx, before: tuple[int, int], limit: int) -> list[Notifying]:
    """The last events before a place that notify somebody, newest first."""
    rows = tx.run(
        "SELECT nid, room_nid, pos, sub, notify FROM event WHERE notify IS NOT NULL"
        " AND (pos, sub) < (?, ?) ORDER BY pos DESC, sub DESC LIMIT ?",
        *before,
        limit,
    )
    return [_notifying(row) for row in rows]


def _notifying(row: tuple[object, ...]) -> Notifying:
    nid, room, pos, sub, notify = row
    return Notifying(
        EventNid(nid),  # type: ignore[arg-type]
        RoomNid(room),  # type: ignore[arg-type]
        (pos, sub),  # type: ignore[arg-type]
        bytes(notify),  # type: ignore[call-overload]
    )


# --- lists of actions, each of which has a number


def actions_nid(tx: Tx, json: str) -> int:
    """The number of a list of actions, which gets one when needed."""
    cache = tx.caches.push_actions
    nid = cache.numbers.get(json)
    if nid is None:
        row = tx.one("SELECT actions_nid FROM push_actions WHERE json = ?", json)
        if row is None:
            tx.run("INSERT INTO push_actions (json) VALUES (?)", json)
        nid = tx.last_rowid if row is None else int(row[0])
        if tx.writable:
            tx.after_commit(cache.put, json, nid)
    return nid


def actions(tx: Tx, nid: int) -> str:
    """The list of actions behind a number."""
    cache = tx.caches.push_actions
    json = cache.names.get(nid)
    if json is None:
        row = tx.one("SELECT json FROM push_actions WHERE actions_nid = ?", nid)
        assert row is not None, f"actions {nid} are not stored"
        json = str(row[0])
        if not tx.writable:
            cache.put(json, nid)
    return json
