"""Leaves of our users that other servers have not heard of.

Matrix v1.19, Server-Server API, "Leaving Rooms".  A leave goes to the servers that are in the room
when it happens.  One that comes back to the room later may still count us in, and sends its events
to us, who have no place for them.  Our users leave once more then, by way of that server, at the
end of the graph as it knows it: so nothing has to be told of what happened in the room meanwhile.
A server that does not take it is asked again when it sends more, after longer and longer pauses.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from attrs import define, field, frozen

from matrixbox.core.identifiers import ServerName
from matrixbox.errors import RemoteError
from matrixbox.federation.agenda import Agenda
from matrixbox.federation.joins import Joins
from matrixbox.federation.templates import Change
from matrixbox.observe import log
from matrixbox.rooms import residence
from matrixbox.rooms.env import Env
from matrixbox.rooms.outside import GONE
from matrixbox.store import members, names, undecided
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx

PAUSE_S = 60.0  # in which our leave may arrive; if then more comes the server is told, and again
# after twice as long each time.
LONGEST_PAUSE_S = 24 * 3600.0
MAX_KNOWN = 5_000
AT_ONCE = 4

Key = tuple[ServerName, RoomNid, UserNid]


@frozen
class _Said:
    """When a server may be told again."""

    again_at: float
    pause_s: float


@define(eq=False)
class Farewells:
    """Leaves rooms once more."""

    store: Store
    env: Env
    joins: Joins
    _agenda: Agenda[Key] = field(factory=lambda: Agenda(AT_ONCE), repr=False)
    _said: dict[Key, _Said] = field(factory=dict, repr=False)

    async def run(self) -> None:
        """Leave, for as long as the server runs."""
        await self._agenda.run(self._leave)

    def say(self, server: ServerName, room: RoomNid, left: Sequence[UserNid]) -> None:
        """A server does not seem to know that users of ours have left a room."""
        now = trio.current_time()
        for user in left:
            key = (server, room, user)
            said = self._said.pop(key, None)
            if said is None:
                said = _Said(now + PAUSE_S, PAUSE_S)
            elif said.again_at <= now:
                self._agenda.put_off(key, 0.0)
                longer_s = min(2 * said.pause_s, LONGEST_PAUSE_S)
                said = _Said(now + longer_s, longer_s)
            self._said[key] = said
        while len(self._said) > MAX_KNOWN:
            del self._said[next(iter(self._said))]

    async def _leave(self, key: Key) -> None:
        server, room, user = key
        room_id, user_id = (
            self.store.read(names.room_id, room),
            self.store.read(names.user_id, user),
        )
        async with self.joins.taking_back(room_id, user_id) as is_free:
            if not is_free or not self.store.read(_has_left, self.env, room, user):
                return
            try:
                await self.joins.leave(server, Change(room_id, user_id, "leave", {}))
            except RemoteError as error:
                log.info("a server was not told of a leave", room=room_id, reason=str(error))
                return
            await self.store.write(undecided.drop_join, room, user)


def _has_left(tx: Tx, env: Env, room: RoomNid, user: UserNid) -> bool:
    if residence.is_resident(tx, env, room):
        return False
    present, owed = members.get(tx, room, user), undecided.join_of(tx, room, user)
    if present is not None and present.membership not in GONE:
        return False
    return present is not None if owed is None else not owed.goes_on
