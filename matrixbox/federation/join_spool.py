"""The answer to `send_join`, which may be of any size: kept in a file, read piece by piece.

Matrix v1.19, Server-Server API, `send_join` ([B8.04], [B8.06]; T036; limits of the threat page,
section 3).  In memory are an index of the events, some hundred bytes for each, and one batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO

from attrs import define, field, frozen

from matrixbox.core.events import CREATE, Event
from matrixbox.core.identifiers import (
    EventId,
    InvalidIdentifier,
    RoomId,
    ServerName,
    parse_server_name,
    server_of,
)
from matrixbox.core.json import FEDERATION, Json, JsonError, decode
from matrixbox.core.json_split import Piece, split_object
from matrixbox.core.room_versions import RoomRules
from matrixbox.errors import RemoteInvalid
from matrixbox.federation.transport import Limits, StreamedAnswer
from matrixbox.rooms import receipt
from matrixbox.rooms.receipt import Checked
from matrixbox.rooms.remote import Verifier
from matrixbox.store.undecided import Kept
from matrixbox.tasks import Offload

MIB = 1024 * 1024
LIMITS = Limits(total_s=600, idle_s=60, max_bytes=256 * MIB)
IN_MEMORY = 2 * MIB
WRITE_OVER = 256 * 1024
READ = 128 * 1024
MAX_PIECE = 256 * 1024  # bytes of one event with its spaces and escapes
MAX_EVENTS = 200_000
MAX_SERVERS = 50_000
MAX_UNDECIDED = 5_000  # events that are kept until their signers' keys can be had
BATCH = 200  # events that are checked, or stored, in one go


@define(eq=False)
class Spool:
    """The bytes of one answer, on disk when there are many."""

    folder: Path | None
    offload: Offload
    _file: IO[bytes] = field(init=False)
    _waiting: list[bytes] = field(factory=list)
    _size: int = 0

    def __enter__(self) -> Spool:
        folder = None if self.folder is None else str(self.folder)
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    async def fill(self, answer: StreamedAnswer) -> None:
        """Take the whole answer.  Raises RemoteError, and OSError when the disk is full."""
        async for piece in answer:
            self._waiting.append(piece)
            self._size += len(piece)
            if self._size >= WRITE_OVER:
                await self._write()
        await self._write()

    async def _write(self) -> None:
        waiting, self._waiting, self._size = self._waiting, [], 0
        await self.offload(self._file.writelines, waiting)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from an offset on."""
        self._file.seek(start)
        return iter(lambda: self._file.read(READ), b"")

    def slice(self, start: int, length: int) -> bytes:
        """Some of the bytes."""
        self._file.seek(start)
        return self._file.read(length)


@frozen
class Entry:
    """An event that passed the first three checks, by where it stands."""

    start: int
    length: int
    auth: tuple[EventId, ...]
    pruned: bool


@define(eq=False)
class Index:
    """What an answer holds."""

    entries: dict[EventId, Entry] = field(factory=dict)
    undecided: dict[EventId, Entry] = field(factory=dict)  # whose signers' keys are missing
    keyless: set[ServerName] = field(factory=set)  # these signers
    state: list[EventId] = field(factory=list)
    create: Event | None = None
    event: Mapping[str, Json] | None = None
    members_omitted: bool = False
    servers: list[ServerName] = field(factory=list)
    dropped: int = 0


async def read(
    server: ServerName,
    spool: Spool,
    rules: RoomRules,
    room_id: RoomId,
    verifier: Verifier,
    state_key: str = "state",
) -> Index:
    """Check the events of an answer and say where they are.  Raises RemoteInvalid.

    Events that fail a check are left out: others can do without them, or the join fails later.
    ``state_key`` is the name of the list that is the state: another one in answers to `state`.
    """
    index = Index()
    arrays = (state_key, "auth_chain", "servers_in_room")
    pieces = split_object(
        spool.chunks(), arrays, max_piece=MAX_PIECE, max_pieces=2 * MAX_EVENTS + MAX_SERVERS
    )
    reading = _Reading(rules, room_id, pieces, index, state_key)
    try:
        while (batch := await spool.offload(reading.next_batch)) is not None:
            receipts = await receipt.verify(verifier, rules, [one.event for one in batch])
            for found, checked in zip(batch, receipts, strict=True):
                reading.take(found, checked)
    except JsonError as error:
        raise RemoteInvalid(server, f"its answer to our join is no such answer: {error}") from error
    return index


@frozen
class _Found:
    """A well-formed event and where it stands."""

    event: Event
    start: int
    length: int
    is_state: bool


@define(eq=False)
class _Reading:
    rules: RoomRules
    room_id: RoomId
    pieces: Iterator[Piece]
    index: Index
    state_key: str
    _waiting: set[EventId] = field(factory=set)

    def next_batch(self) -> list[_Found] | None:
        """The next events whose signatures are to be checked; None at the end.

        Runs in a thread, and nothing else of this object does meanwhile.
        """
        batch: list[_Found] = []
        self._waiting.clear()
        pieces = [*islice(self.pieces, BATCH)]
        for piece in pieces:
            if piece.key in (self.state_key, "auth_chain"):
                found = self._event(piece)
                if found is not None:
                    batch.append(found)
            else:
                self._other(piece)
        return batch if pieces else None

    def _event(self, piece: Piece) -> _Found | None:
        try:
            value = decode(piece.data, FEDERATION)
        except JsonError:
            value = None
        if not isinstance(value, dict):
            self.index.dropped += 1
            return None
        event = receipt.read(self.rules, self.room_id, value, backfilled=False)
        if not isinstance(event, Event):
            self.index.dropped += 1
            return None
        is_state = piece.key == self.state_key
        name = event.event_id
        if name in self.index.entries or name in self.index.undecided or name in self._waiting:
            if is_state:
                self.index.state.append(event.event_id)
            return None
        if len(self.index.entries) >= MAX_EVENTS:
            raise _TooMany("too many events")
        self._waiting.add(event.event_id)
        return _Found(event, piece.start, len(piece.data), is_state)

    def take(self, found: _Found, checked: receipt.Receipt) -> None:
        """Note an event with the outcome of its checks."""
        if found.is_state:
            self.index.state.append(found.event.event_id)
        if isinstance(checked, receipt.Undecided):
            self._wait(found)
        elif not isinstance(checked, Checked):
            self.index.dropped += 1
        else:
            event = checked.event
            auth = tuple(event.auth_event_ids)
            entry = Entry(found.start, found.length, auth, checked.pruned)
            self.index.entries[event.event_id] = entry
            if found.is_state and (event.type, event.state_key) == CREATE:
                self.index.create = event

    def _wait(self, found: _Found) -> None:
        """Note an event about which nothing is known."""
        index, event = self.index, found.event
        index.keyless.add(server_of(event.sender))
        if len(index.undecided) < MAX_UNDECIDED:
            auth = tuple(event.auth_event_ids)
            index.undecided[event.event_id] = Entry(found.start, found.length, auth, pruned=False)
        else:
            index.dropped += 1

    def _other(self, piece: Piece) -> None:
        index = self.index
        if piece.key == "servers_in_room":
            name = decode(piece.data, FEDERATION)
            if isinstance(name, str) and len(index.servers) < MAX_SERVERS:
                try:
                    index.servers.append(parse_server_name(name))
                except InvalidIdentifier:
                    return
        elif piece.key == "members_omitted":
            index.members_omitted = piece.data == b"true"
        elif piece.key == "event":
            value = decode(piece.data, FEDERATION)
            index.event = value if isinstance(value, dict) else None


class _TooMany(JsonError):
    """More events than we take."""


def in_order(entries: Mapping[EventId, Entry], wanted: Iterable[EventId]) -> list[EventId]:
    """Events with all that they cite directly or not, each one after those that it cites.

    Citations that lead in a circle are cut somewhere; such events are not stored later on.
    """
    order: list[EventId] = []
    entered: set[EventId] = set()
    for first in wanted:
        if first in entered or first not in entries:
            continue
        entered.add(first)
        walk = [(first, iter(entries[first].auth))]
        while walk:
            event_id, cited = walk[-1]
            following = next((i for i in cited if i in entries and i not in entered), None)
            if following is None:
                order.append(event_id)
                walk.pop()
            else:
                entered.add(following)
                walk.append((following, iter(entries[following].auth)))
    return order


def kept(spool: Spool, index: Index) -> list[Kept]:
    """The events that cannot be judged without missing keys: their own, or those of cited ones."""
    waiting = dict(index.undecided)
    for name in in_order(index.entries, index.entries):
        entry = index.entries[name]
        if len(waiting) < MAX_UNDECIDED and any(cited in waiting for cited in entry.auth):
            waiting[name] = entry
    state = set(index.state)
    found = []
    for name, entry in waiting.items():
        pdu = decode(spool.slice(entry.start, entry.length), FEDERATION)
        assert isinstance(pdu, dict)
        found.append(Kept(name, name in state, pdu))
    return found


def load(
    spool: Spool, rules: RoomRules, room_id: RoomId, entries: Sequence[Entry]
) -> tuple[list[Event], set[EventId]]:
    """Events that were checked, and the names of those whose content was taken off."""
    loaded, pruned = [], set()
    for entry in entries:
        value = decode(spool.slice(entry.start, entry.length), FEDERATION)
        assert isinstance(value, dict)
        event = receipt.read(rules, room_id, value, backfilled=False)
        assert isinstance(event, Event)
        if entry.pruned:
            event = receipt.hashed(event).event
            pruned.add(event.event_id)
        loaded.append(event)
    return loaded, pruned
