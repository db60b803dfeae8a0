"""One transaction to another server: what goes into it, and how to find out what is wrong with it.

Matrix v1.19, Server-Server API, "Transactions", "EDUs" ([B5.01], [B5.02], [B7.01] to [B7.03], T083,
T130).  The identifier of a transaction is the hash of what it carries: sent again, also after a
crash, the same content has the same identifier, and other content never does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import define, evolve, field, frozen

from matrixbox.core.identifiers import EventId, ServerName, UserId, server_of
from matrixbox.core.json import Json, encode_canonical
from matrixbox.core.signing import encode_base64
from matrixbox.store import events, names, outbound, receipts, servers
from matrixbox.store.events import Status
from matrixbox.store.nids import RoomNid, ServerNid
from matrixbox.store.outbound import QueuedEvent
from matrixbox.store.receipts import Receipt
from matrixbox.store.transaction import Tx

MAX_PDUS = 50
MAX_EDUS = 100
MAX_EDU_BYTES = 4 * 1024 * 1024
"""Of the EDUs that must arrive, in one transaction; 50 PDUs add at most 3.2 MiB (T130)."""
CATCH_UP_OVER = 500
"""More events waiting: of each room only the newest is sent (T083)."""
PASSING = ("m.typing", "m.presence")
MAX_RECEIPTS = 500  # in one EDU
_MAX_RECEIPT_EDUS = 20


@frozen
class Edu:
    """An EDU; `seq` is its row, None for one that lives in memory only."""

    type: str
    content: Json
    seq: int | None = None


@frozen
class Transaction:
    """What is sent in one request, and what is done when it was taken."""

    server: ServerName
    txn_id: str
    events: tuple[QueuedEvent, ...]
    event_ids: tuple[EventId, ...]
    edus: tuple[Edu, ...]
    cursor: int
    skipped: bool = False  # there were events for which nothing need be sent

    @property
    def size(self) -> int:
        """How many things are in it."""
        return len(self.event_ids) + len(self.edus)

    @property
    def seqs(self) -> tuple[int, ...]:
        """The rows of its EDUs."""
        return tuple(edu.seq for edu in self.edus if edu.seq is not None)

    def lasting(self) -> Transaction:
        """Without what is not told late: typing, presence."""
        kept = tuple(edu for edu in self.edus if edu.type not in PASSING)
        if len(kept) == len(self.edus):
            return self
        return evolve(self, edus=kept, txn_id=identifier(self.event_ids, kept))

    def split(self) -> list[Transaction]:
        """The same in smaller pieces: PDUs, EDUs; halves of either; itself when it is single.

        What comes after a piece is still owed when that was taken: its cursor says so.
        """
        if self.event_ids and self.edus:
            pdus = self._piece(self.events, self.event_ids, ())
            return [pdus, self._piece((), (), self.edus)]
        if self.size <= 1:
            return [self]
        half = self.size // 2
        first = self._piece(self.events[:half], self.event_ids[:half], self.edus[:half])
        if self.event_ids:
            first = evolve(first, cursor=min(self.cursor, self.events[half].pos - 1))
        else:
            first = evolve(first, cursor=0)
        rest = self._piece(self.events[half:], self.event_ids[half:], self.edus[half:])
        return [first, rest]

    def _piece(
        self, some: tuple[QueuedEvent, ...], ids: tuple[EventId, ...], edus: tuple[Edu, ...]
    ) -> Transaction:
        return Transaction(self.server, identifier(ids, edus), some, ids, edus, self.cursor)


def identifier(ids: Sequence[EventId], edus: Sequence[Edu], salt: str = "") -> str:
    """The identifier of a transaction.

    ``salt`` is not repeated in any run, for EDUs that may come again with the same content.
    """
    content: list[Json] = [salt, [*ids], [[edu.type, edu.content, edu.seq] for edu in edus]]
    digest = hashlib.sha256(encode_canonical(content)).digest()
    return encode_base64(digest[:18]).replace("+", "-").replace("/", "_")


def body(tx: Tx, transaction: Transaction, own: ServerName, now_ms: int) -> dict[str, Json]:
    """The request's body."""
    pdus: list[Json] = []
    for queued in transaction.events:
        stored = events.by_nid(tx, queued.nid)
        pdus.append(dict(stored.event.json))
    edus: list[Json] = [{"edu_type": edu.type, "content": edu.content} for edu in transaction.edus]
    found: dict[str, Json] = {"origin": own, "origin_server_ts": now_ms, "pdus": pdus}
    if edus:
        found["edus"] = edus
    return found


@define(eq=False)
class Queue:
    """What is known in memory of what one destination is owed.

    ``rooms`` may hold events beyond ``cursor``, ``read_in`` receipts.  ``unknown``: only the
    database knows.
    """

    server: ServerName
    cursor: int = 0
    unknown: bool = True
    rooms: dict[RoomNid, None] = field(factory=dict)
    read_in: dict[RoomNid, None] = field(factory=dict)
    direct: bool = False
    edus: bool = False
    edus_after: int = 0
    newest: list[QueuedEvent] = field(factory=list)  # while catching up
    newest_until: int = 0
    typing: dict[tuple[RoomNid, UserId], bool] = field(factory=dict)
    presence: dict[UserId, None] = field(factory=dict)
    pending: list[Transaction] = field(factory=list)  # made, and not taken yet
    suspicious: bool = False  # the server refuses what is pending, and takes other things
    refusals: int = 0  # of what is pending, one after the other

    @property
    def is_urgent(self) -> bool:
        """Whether there is more than what nobody waits for."""
        return (
            self.unknown
            or self.direct
            or self.edus
            or bool(self.rooms or self.pending or self.newest)
        )

    @property
    def has_work(self) -> bool:
        """Whether there may be something to send."""
        return self.is_urgent or bool(self.typing or self.presence or self.read_in)

    def load(self, tx: Tx, until: int) -> None:
        """Find out from the database what the destination is owed, up to a position."""
        nid = outbound.server_of(tx, self.server)
        self.unknown = False
        if nid is None:
            self.cursor = until
            return
        self.cursor = max(self.cursor, outbound.cursor(tx, nid))
        owed = outbound.rooms_owed(tx, nid, self.cursor)
        self.rooms = dict.fromkeys(owed)
        self.read_in = dict.fromkeys(receipts.rooms_owed(tx, nid, self.cursor))
        self.direct = self.edus = True
        left = CATCH_UP_OVER
        for room in owed:
            left -= len(outbound.events_in(tx, nid, room, self.cursor, until, left + 1))
            if left < 0:
                found = (outbound.newest_in(tx, nid, one, self.cursor, until) for one in owed)
                self.newest = sorted(
                    (event for event in found if event is not None),
                    key=lambda event: (event.pos, event.nid),
                )
                self.newest_until = until
                return

    def build(
        self,
        tx: Tx,
        until: int,
        salt: str,
        presence: Callable[[Sequence[UserId]], list[Json]],
    ) -> Transaction:
        """The next transaction, with what is owed up to a position.

        It stays in ``pending``, unless there is nothing in it.  ``presence`` tells what is said
        of users.
        """
        nid = outbound.server_of(tx, self.server)
        if nid is None:  # in no room, ever
            return Transaction(self.server, "", (), (), (), until)
        if self.newest:
            until = self.newest_until
        chosen, rest = self._events(tx, nid, until)
        cursor = until
        if rest:  # two may have one position
            cursor = max(self.cursor, min(chosen[-1].pos, rest[0].pos - 1))
        durable = [*self._durable(tx, nid)]
        edus = [*durable, *self._receipts(tx, cursor)][:MAX_EDUS]
        ephemeral = [*self._typing(tx, MAX_EDUS - len(edus))]
        if len(edus) + len(ephemeral) < MAX_EDUS:
            ephemeral += self._presence(presence)
        sent, ids = _sendable(tx, chosen, self.server)
        all_edus = (*edus, *ephemeral)
        txn_id = identifier(ids, all_edus, salt if ephemeral else "")
        skipped = len(sent) < len(chosen)
        found = Transaction(self.server, txn_id, sent, ids, all_edus, cursor, skipped)
        if self.newest:
            self.newest = [event for event in self.newest if event in rest]
        elif not rest:
            self.rooms.clear()
            self.read_in.clear()
            self.direct = False
        self.edus = bool(durable)
        if durable:
            assert durable[-1].seq is not None
            self.edus_after = durable[-1].seq
        self.cursor = cursor
        self.pending = [found] if found.size else []
        return found

    def _events(
        self, tx: Tx, nid: ServerNid, until: int
    ) -> tuple[list[QueuedEvent], list[QueuedEvent]]:
        """The events of the next transaction, and what is known to remain; in order."""
        most = MAX_PDUS + 1
        found = outbound.direct(tx, nid, self.cursor, until, most) if self.direct else []
        found += self.newest or [
            event
            for room in self.rooms
            for event in outbound.events_in(tx, nid, room, self.cursor, until, most)
        ]
        owed = sorted(
            {event.nid: event for event in found}.values(), key=lambda one: (one.pos, one.nid)
        )
        return owed[:MAX_PDUS], owed[MAX_PDUS:]

    # --- EDUs

    def _durable(self, tx: Tx, nid: ServerNid) -> Iterator[Edu]:
        if not self.edus:
            return
        left = MAX_EDU_BYTES
        for number, queued in enumerate(outbound.edus(tx, nid, self.edus_after, MAX_EDUS)):
            left -= len(queued.content)
            if number and left < 0:
                return
            yield Edu(queued.type, queued.decoded(), queued.seq)

    def _receipts(self, tx: Tx, until: int) -> list[Edu]:
        """What users of ours have read in the rooms with news: each in the newest place only."""
        layers: list[list[tuple[RoomNid, Receipt]]] = []
        for room in self.read_in:
            if not servers.is_in_room(tx, room, self.server):
                continue
            depth: dict[int, int] = {}
            for receipt in receipts.public_of_locals(tx, room, self.cursor, until):
                level = depth.get(receipt.user, 0)  # an EDU has one thread of a user and room
                depth[receipt.user] = level + 1
                if level == len(layers):
                    layers.append([])
                layers[level].append((room, receipt))
        edus = []
        for layer in layers:
            for start in range(0, len(layer), MAX_RECEIPTS):
                edus.append(_receipt_edu(tx, layer[start : start + MAX_RECEIPTS]))
        return edus[:_MAX_RECEIPT_EDUS]

    def _typing(self, tx: Tx, limit: int) -> Iterator[Edu]:
        for room, user in [*self.typing][:limit]:
            content: Json = {
                "room_id": names.room_id(tx, room),
                "user_id": user,
                "typing": self.typing.pop((room, user)),
            }
            yield Edu("m.typing", content)

    def _presence(self, tell: Callable[[Sequence[UserId]], list[Json]]) -> list[Edu]:
        users = [*self.presence][:MAX_PDUS]
        for user in users:
            del self.presence[user]
        told = tell(users) if users else []
        return [Edu("m.presence", {"push": told})] if told else []


def _sendable(
    tx: Tx, chosen: Sequence[QueuedEvent], server: ServerName
) -> tuple[tuple[QueuedEvent, ...], tuple[EventId, ...]]:
    """Without what the destination sent itself."""
    found = []
    for queued in chosen:
        stored = events.by_nid(tx, queued.nid)
        if server_of(stored.event.sender) != server and not stored.status & Status.REJECTED:
            found.append((queued, stored.event.event_id))
    return tuple(queued for queued, _ in found), tuple(event_id for _, event_id in found)


def _receipt_edu(tx: Tx, found: Sequence[tuple[RoomNid, Receipt]]) -> Edu:
    content: dict[str, dict[str, dict[str, Json]]] = {}
    for room, receipt in found:
        data: dict[str, Json] = {"ts": receipt.ts}
        if receipt.thread:
            data["thread_id"] = receipt.thread
        users = content.setdefault(names.room_id(tx, room), {}).setdefault("m.read", {})
        users[names.user_id(tx, receipt.user)] = {"event_ids": [receipt.event_id], "data": data}
    wire: Mapping[str, Json] = {room: dict(kinds) for room, kinds in content.items()}
    return Edu("m.receipt", wire)
