"""Setting pushers, and the list of past notifications.

Matrix v1.19, Client-Server API, "Push Notifications", "Listing Notifications" ([C14.16], [E.06];
T103, T131).
"""

from __future__ import annotations

from attrs import frozen

from matrixbox.core.json import Json, encode
from matrixbox.errors import InvalidParam
from matrixbox.net.guard import AddressGuard
from matrixbox.push.gateway import UnfitUrl, gateway_url
from matrixbox.rooms import counts
from matrixbox.rooms.formatting import Formatter, Fragment
from matrixbox.rooms.reading import Reader
from matrixbox.store import events, names, pushers
from matrixbox.store.caches import Session
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.pushers import Notifying, Pusher
from matrixbox.store.transaction import Tx

MAX_PUSHERS = 200  # of one user; as many as devices
MAX_PUSHKEY = 512  # bytes
MAX_APP_ID = 64  # characters
MAX_TEXT = 255  # characters
MAX_DATA = 16 * 1024  # bytes
MAX_SCANNED = 2_000  # notifying events looked at for one page


def check(pusher: Pusher, guard: AddressGuard) -> None:
    """Raise InvalidParam unless a pusher can be used as it is ([E.01], [E.06], T131)."""
    if not 0 < len(pusher.pushkey.encode()) <= MAX_PUSHKEY:
        raise InvalidParam(f"`pushkey` has 1 to {MAX_PUSHKEY} bytes.")
    if not 0 < len(pusher.app_id) <= MAX_APP_ID:
        raise InvalidParam(f"`app_id` has 1 to {MAX_APP_ID} characters.")
    texts = (pusher.app_display_name, pusher.device_display_name, pusher.lang, pusher.profile_tag)
    if any(len(text or "") > MAX_TEXT for text in texts):
        raise InvalidParam(f"Names of a pusher have at most {MAX_TEXT} characters.")
    if len(encode(dict(pusher.data))) > MAX_DATA:
        raise InvalidParam(f"`data` has at most {MAX_DATA} bytes.")
    if pusher.is_mail:
        return
    url = pusher.data.get("url")
    if not isinstance(url, str):
        raise InvalidParam("`data` holds the `url` of a push gateway.")
    try:
        gateway_url(url, guard)
    except UnfitUrl as error:
        raise InvalidParam(f"That is not the URL of a push gateway: {error}.") from error


def put(tx: Tx, who: Session, pusher: Pusher, *, append: bool) -> None:
    """Make or change a pusher; without `append` it is taken from all other users.

    Raises InvalidParam when there are too many.
    """
    if not append:
        pushers.remove_of_others(tx, who.user, pusher.app_id, pusher.pushkey)
    present = pushers.of_user(tx, who.user)
    is_new = (pusher.app_id, pusher.pushkey) not in [(one.app_id, one.pushkey) for one in present]
    if is_new and len(present) >= MAX_PUSHERS:
        raise InvalidParam(f"An account has at most {MAX_PUSHERS} pushers.")
    pushers.put(tx, pusher, who.device)


def shown(pusher: Pusher) -> dict[str, Json]:
    """A pusher as clients see it."""
    found: dict[str, Json] = {
        "kind": "email" if pusher.is_mail else "http",
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "app_display_name": pusher.app_display_name,
        "device_display_name": pusher.device_display_name,
        "lang": pusher.lang,
        "data": pusher.data,
    }
    if pusher.profile_tag is not None:
        found["profile_tag"] = pusher.profile_tag
    return found


# --- what there was


@frozen
class Page:
    """Notifications, newest first, and where the next page begins; None: there is none."""

    notifications: list[dict[str, Json]]
    following: str | None


def notifications(
    tx: Tx, user: UserNid, start: str | None, limit: int, now_ms: int, *, only_highlights: bool
) -> Page:
    """What a user was notified of in the rooms that the user is in ([C14.16]).

    Raises InvalidParam for a `start` that no page had.
    """
    place = (2**62, 0) if start is None else _place(start)
    page: list[dict[str, Json]] = []
    readers: dict[RoomNid, Reader] = {}
    scanned = pushers.notifying_before(tx, place, MAX_SCANNED)
    for one in scanned:
        if len(page) == limit:
            return Page(page, _token(place))
        place = one.point
        if only_highlights and not counts.is_highlight(one.notify, user):
            continue
        found = _notification(tx, user, one, readers, now_ms)
        if found is not None:
            page.append(found)
    return Page(page, _token(place) if len(scanned) == MAX_SCANNED else None)


def _notification(
    tx: Tx, user: UserNid, one: Notifying, readers: dict[RoomNid, Reader], now_ms: int
) -> dict[str, Json] | None:
    actions = counts.actions_for(tx, one.notify, user)
    if actions is None:
        return None
    if one.room not in readers:
        readers[one.room] = Reader(tx, one.room, user, now_ms)
    reader = readers[one.room]
    stored = events.by_nid(tx, one.nid)
    if not reader.joined or stored.redacted_by is not None or not reader.may_see(stored):
        return None
    shown_event: Fragment = Formatter(reader, with_room_id=False).event(stored)
    return {
        "actions": actions,
        "event": shown_event,
        "read": counts.is_read(tx, stored, counts.marks(tx, user, one.room)),
        "room_id": names.room_id(tx, one.room),
        "ts": stored.event.origin_server_ts,
    }


def _token(place: tuple[int, int]) -> str:
    return f"{place[0]}_{-place[1]}"


def _place(token: str) -> tuple[int, int]:
    pos, _, sub = token.partition("_")
    if not all(part.isascii() and part.isdigit() and len(part) <= 16 for part in (pos, sub)):
        raise InvalidParam("`from` is a `next_token` of an earlier answer.")
    return int(pos), -int(sub)
