"""What locked and suspended users may still do.

Matrix v1.19, Client-Server API, "Account locking", "Account suspension" ([C6.01], [C6.02], T042).
A suspended user reads, leaves, verifies devices and signs out, but says nothing to others.
"""

from __future__ import annotations

import re

from matrixbox.api.routes import Route
from matrixbox.errors import UserLocked, UserSuspended
from matrixbox.store.caches import Session

_WHEN_LOCKED = re.compile(r"/_matrix/client/v3/logout(/all)?")
_ROOM = r"/_matrix/client/v3/rooms/\{room_id\}/"
NOT_WHEN_SUSPENDED = tuple(
    re.compile(text)
    for text in (
        rf"POST {_ROOM}(join|invite|kick|ban|unban|upgrade)",
        r"POST /_matrix/client/v3/(join|knock)/\{room_id_or_alias\}",
        r"POST /_matrix/client/v3/createRoom",
        rf"PUT {_ROOM}state/.*",
        rf"PUT {_ROOM}send/.*",
        r"PUT /_matrix/client/\S*/rooms/\{room_id\}/delayed_event/.*",
        r"(PUT|DELETE|PATCH) /_matrix/client/\S*/profile/.*",
        r"(PUT|DELETE) /_matrix/client/v3/directory/.*",
        r"PUT /_matrix/client/v3/presence/.*",
    )
)
_REDACTION = "m.room.redaction"  # one's own messages only: see rooms.sending


def require_allowed(session: Session, route: Route, path: dict[str, str]) -> None:
    """Raise UserLocked or UserSuspended for what a user in that state may not do."""
    if session.locked and _WHEN_LOCKED.fullmatch(route.patterns[0]) is None:
        raise UserLocked
    if session.suspended and is_refused(route) and path.get("event_type") != _REDACTION:
        raise UserSuspended("You cannot do that while your account is suspended.")


def is_refused(route: Route) -> bool:
    """Whether suspended users may not call an endpoint."""
    name = f"{route.method} {route.patterns[0]}"
    return any(pattern.fullmatch(name) for pattern in NOT_WHEN_SUSPENDED)
