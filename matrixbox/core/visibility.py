"""Whether an event may be seen: the one decision for users and for servers.

Matrix v1.19, Client-Server API, "Room History Visibility", server behaviour [C9.01], [C9.02]
(T104-T106).  The facts are those of the state at the event; looking them up is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from attrs import frozen

from matrixbox.core.events import Event


class HistoryVisibility(Enum):
    """Who may read what is sent while this is the room's setting."""

    WORLD_READABLE = "world_readable"
    SHARED = "shared"
    INVITED = "invited"
    JOINED = "joined"

    @classmethod
    def of(cls, event: Event | None) -> HistoryVisibility:
        """The setting an `m.room.history_visibility` event makes; shared if there is none or it
        is not understood."""
        value = None if event is None else event.content.get("history_visibility")
        if isinstance(value, str):
            for setting in cls:
                if setting.value == value:
                    return setting
        return cls.SHARED


@frozen
class Standing:
    """One user's standing towards one event.

    `before` and `after` are the memberships just before and just after it (None: never a member);
    they differ only if it is the user's own member event.  `joined_later`: the user has joined,
    or was joined, at some point after it.
    """

    before: str | None
    after: str | None
    joined_later: bool = False

    @classmethod
    def at(cls, membership: str | None, *, joined_later: bool = False) -> Standing:
        """The standing towards an event that is not the user's own member event."""
        return cls(membership, membership, joined_later)


def may_see(
    before: HistoryVisibility, after: HistoryVisibility, readers: Iterable[Standing]
) -> bool:
    """Whether one of the readers may see the event.

    `before` and `after` are the settings just before and just after it; they differ only if it is
    an `m.room.history_visibility` event.  A user is one reader, a server the set of its users; a
    world-readable event needs none.
    """
    settings = {before, after}
    # 1.
    if HistoryVisibility.WORLD_READABLE in settings:
        return True
    return any(_may_read(settings, reader) for reader in readers)


def _may_read(settings: set[HistoryVisibility], reader: Standing) -> bool:
    memberships = {reader.before, reader.after}
    return (
        # 2.
        "join" in memberships
        # 3.
        or (HistoryVisibility.SHARED in settings and reader.joined_later)
        # 4.
        or (HistoryVisibility.INVITED in settings and "invite" in memberships)
        # 5. Otherwise, deny.
    )
