"""The events of a room that other servers tell us all at once, on their way into the database.

Matrix v1.19, Server-Server API, `send_join`, `state` ([B8.04], [B8.06], [B11.03], T036).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import define

from matrixbox.core.identifiers import EventId
from matrixbox.core.room_versions import RoomRules
from matrixbox.federation import join_spool
from matrixbox.federation.join_spool import Index, Spool
from matrixbox.observe import log
from matrixbox.rooms import arrival
from matrixbox.rooms.arrival import State
from matrixbox.rooms.env import Env
from matrixbox.store import names
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.undecided import Kept
from matrixbox.tasks import Offload, in_thread

ADMITTED_AT_ONCE = 100  # events in one transaction: some 10 ms
PREPARED_AT_ONCE = 200


@define(eq=False)
class Arrivals:
    """Stores large answers, so much at a time that nobody has to wait."""

    store: Store
    env: Env
    folder: Path | None = None
    offload: Offload = in_thread

    def spool(self) -> Spool:
        """A place for one answer."""
        return Spool(self.folder, self.offload)

    async def admit(
        self,
        room: RoomNid,
        rules: RoomRules,
        spool: Spool,
        index: Index,
        further: Iterable[EventId] = (),
    ) -> None:
        """Store the events of an answer's state, and some further ones, with their auth chains."""
        room_id = self.store.read(names.room_id, room)
        entries = index.entries
        # First the create event: from room version 12 on nothing cites it.
        create = [] if index.create is None else [index.create.event_id]
        order = join_spool.in_order(entries, [*create, *further, *index.state])
        for start in range(0, len(order), ADMITTED_AT_ONCE):
            some = [entries[event_id] for event_id in order[start : start + ADMITTED_AT_ONCE]]
            loaded, pruned = await self.offload(join_spool.load, spool, rules, room_id, some)
            await self.store.write(arrival.admit, self.env, room, rules, loaded, frozenset(pruned))
        if index.dropped or index.undecided:
            log.info(
                "events of a room left out",
                room=room_id,
                wrong=index.dropped,
                without_keys=len(index.undecided),
            )

    async def undecided(self, spool: Spool, index: Index) -> list[Kept]:
        """What is to be kept of an answer until the keys of its signers can be had."""
        return await self.offload(join_spool.kept, spool, index) if index.undecided else []

    async def state(self, room: RoomNid, event_ids: Sequence[EventId]) -> State:
        """The state that stored events make, its far members put in place already.

        Raises arrival.Unusable.
        """
        state = await self.store.read_long(arrival.state_of, room, event_ids)
        entries = [*state.items()]
        for start in range(0, len(entries), PREPARED_AT_ONCE):
            some = entries[start : start + PREPARED_AT_ONCE]
            await self.store.write(arrival.prepare, self.env, room, some)
        return state
