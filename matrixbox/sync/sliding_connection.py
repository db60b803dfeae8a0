"""Connections of sliding sync: what a client knows, in memory and stored.

MSC4186, "Connections" (T082, T105, T128).  What an answer told counts once the client comes back
with the position of that answer.  Until then a connection stands between two points, and takes the
positions of both: an answer may have been lost.  Older positions are gone.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio
from attrs import define, field

from matrixbox.errors import MatrixError
from matrixbox.rooms.tokens import SlidingToken
from matrixbox.store import sliding
from matrixbox.store.database import Store
from matrixbox.store.nids import DeviceNid, RoomNid
from matrixbox.store.sliding import Head
from matrixbox.sync.pacing import LONG_AGO
from matrixbox.sync.sliding_entries import (
    Entry,
    Knowledge,
    Wide,
    decode_configs,
    decode_entry,
    encode_configs,
    encode_entry,
)
from matrixbox.sync.sliding_request import Wanted

MAX_PER_DEVICE = 8
MAX_CONFIGS = 64
"""Different sets of required state on one connection; then it ends, and the client begins anew."""
MAX_IN_MEMORY = 200
MAX_MEMBERS = 20_000
"""Memberships remembered as sent, on one connection; then they are sent again."""

BEGUN_ANEW = "The connection is unknown or has ended: begin without `pos`."


class UnknownPos(MatrixError):
    """The position is none of this connection, or one that is forgotten: the client begins anew."""

    status, errcode = 400, "M_UNKNOWN_POS"


@define(eq=False)
class Connection:
    """One connection of a device."""

    device: DeviceNid
    conn_id: str
    nid: int = 0  # 0: not stored yet
    known: int = 0  # the number of what the client has shown to know
    last: int = 0  # the last number that was given
    entries: dict[RoomNid, Entry] = field(factory=dict)
    wide: Wide = field(factory=Wide)
    pending: Knowledge | None = None
    configs: list[Wanted] = field(factory=list)
    lock: trio.Lock = field(factory=trio.Lock)
    answered: object = None  # the last request, with the position that it was given
    answered_at: float = LONG_AGO  # in Trio's time
    _turn: object = None
    _scope: trio.CancelScope | None = None
    _unsaved: dict[RoomNid, Entry | None] = field(factory=dict)
    _members: dict[tuple[RoomNid, str], tuple[int, int]] = field(factory=dict)

    # --- whose turn it is

    def take_over(self) -> object:
        """A new request comes: an older one that waits for news gives up.  Returns its turn."""
        if self._scope is not None:
            self._scope.cancel()
        self._turn = object()
        return self._turn

    def is_turn(self, turn: object) -> bool:
        """Whether no newer request has come."""
        return self._turn is turn

    def waits_in(self, scope: trio.CancelScope) -> None:
        """The request whose turn it is waits for news."""
        self._scope = scope

    # --- points

    def reach(self, token: SlidingToken) -> None:
        """The client has the answer with this position, and no later one.  Raises UnknownPos."""
        if token.connection != self.nid or not self.nid:
            raise UnknownPos(BEGUN_ANEW)
        if token.known == self.known:
            self._forget_pending()
        elif self.pending is not None and token.known == self.last:
            self._keep_pending(self.pending)
        else:
            raise UnknownPos(BEGUN_ANEW)

    def _forget_pending(self) -> None:
        if self.pending is not None:
            lost = self.last
            self.pending = None
            self._members = {key: at for key, at in self._members.items() if at[0] != lost}

    def _keep_pending(self, pending: Knowledge) -> None:
        for room, entry in pending.rooms.items():
            if entry is None:
                self.entries.pop(room, None)
            else:
                self.entries[room] = entry
        self._unsaved.update(pending.rooms)
        self.wide = pending.wide
        self.known = self.last
        self.pending = None

    async def remember(self, store: Store, knowledge: Knowledge, now_ms: int) -> list[str]:
        """Store what the client will know when it has the answer.

        Returns the names of connections of the device that had to go for this one.  Raises
        UnknownPos when this one is gone itself.
        """
        head = Head(
            self.known,
            self.last + 1,
            Knowledge({}, self.wide).encode(),
            knowledge.encode(),
            encode_configs(self.configs),
        )
        gone: list[str] = []
        if self.nid:
            rooms = [(room, encode_entry(entry)) for room, entry in self._unsaved.items()]
            if not await store.write(sliding.put, self.nid, now_ms, head, rooms):
                raise UnknownPos(BEGUN_ANEW)
        else:
            self.nid, gone = await store.write(
                sliding.begin, self.device, self.conn_id, now_ms, head, MAX_PER_DEVICE
            )
        self._unsaved.clear()
        self.last += 1
        self.pending = knowledge
        return gone

    # --- what is remembered besides

    def config_number(self, wanted: Wanted) -> int:
        """The number of a set of required state; raises UnknownPos for too many of them."""
        if wanted in self.configs:
            return self.configs.index(wanted) + 1
        if len(self.configs) >= MAX_CONFIGS:
            raise UnknownPos(BEGUN_ANEW)
        self.configs.append(wanted)
        return len(self.configs)

    def config(self, number: int) -> Wanted:
        """The set of required state that has a number; 0: none."""
        return self.configs[number - 1] if number else ()

    def has_member(self, room: RoomNid, user_id: str, base: SlidingToken) -> bool:
        """Whether somebody's membership was sent because the timeline needed it."""
        at = self._members.get((room, user_id))
        return at is not None and at[0] <= base.known and at[1] <= base.pos

    def members_sent(self, sent: Iterable[tuple[RoomNid, str]], token: SlidingToken) -> None:
        """An answer with this position holds these memberships."""
        if len(self._members) > MAX_MEMBERS:
            self._members.clear()
        for key in sent:
            self._members[key] = (token.known, token.pos)


@define(eq=False)
class Connections:
    """The connections in use."""

    store: Store
    _known: dict[tuple[DeviceNid, str], Connection] = field(factory=dict)

    def begin(self, device: DeviceNid, conn_id: str) -> Connection:
        """A new connection, in the place of any that the device has under this name."""
        earlier = self._known.get((device, conn_id))
        if earlier is not None:
            earlier.take_over()
        return self._keep(Connection(device, conn_id))

    def find(self, device: DeviceNid, conn_id: str) -> Connection:
        """The connection that a device has under a name.  Raises UnknownPos."""
        found = self._known.pop((device, conn_id), None)
        if found is None:
            stored = self.store.read(sliding.find, device, conn_id)
            if stored is None:
                raise UnknownPos(BEGUN_ANEW)
            found = _loaded(device, conn_id, stored)
        return self._keep(found)

    def forget(self, device: DeviceNid, conn_id: str) -> None:
        """A connection is not stored any more."""
        self._known.pop((device, conn_id), None)

    def is_known(self, connection: Connection) -> bool:
        """Whether this is still the connection of that name."""
        return self._known.get((connection.device, connection.conn_id)) is connection

    def _keep(self, connection: Connection) -> Connection:
        self._known[connection.device, connection.conn_id] = connection
        while len(self._known) > MAX_IN_MEMORY:
            self._known.pop(next(iter(self._known))).take_over()
        return connection


def _loaded(device: DeviceNid, conn_id: str, stored: sliding.Stored) -> Connection:
    head = stored.head
    return Connection(
        device,
        conn_id,
        nid=stored.nid,
        known=head.serial,
        last=head.pending_serial,
        entries={room: decode_entry(entry) for room, entry in stored.rooms.items()},
        wide=Knowledge.decode(head.wide).wide,
        pending=Knowledge.decode(head.pending),
        configs=decode_configs(head.configs),
    )
