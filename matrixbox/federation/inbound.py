"""Transactions of other servers: what they push to us.

Matrix v1.19, Server-Server API, "Transactions" ([B5.01] to [B5.05], T009, T010).  A server has one
transaction under way at a time; its events go to their rooms, some rooms at once, and then come
its EDUs.  The answer is kept, and the same identifier gets it again, also after a restart.  It is
given when everything is in its room or kept in the database until it can be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, cast

import trio
from attrs import frozen

from matrixbox.core.identifiers import (
    EventId,
    InvalidIdentifier,
    RoomId,
    ServerName,
    parse_room_id,
)
from matrixbox.core.json import Json, encode
from matrixbox.errors import BadJson, LimitExceeded
from matrixbox.observe import log
from matrixbox.rooms.letting_in import Outcome, Verdict
from matrixbox.rooms.receiving import Receiver
from matrixbox.rooms.remote import Pdu
from matrixbox.store import inbound
from matrixbox.store.database import Store
from matrixbox.store.errors import StoreError
from matrixbox.tasks import one_error

MAX_PDUS = 50
MAX_EDUS = 100
MAX_TXN_ID_BYTES = 1_024
ROOMS_AT_ONCE = 4  # of one transaction
JOIN_S = 20.0  # that events wait for a join of ours to their room
RETRY_MS = 1_000  # for a server that is too fast

_FAILED = (Verdict.DROPPED, Verdict.REJECTED)


class EduReceiver(Protocol):
    """Takes the EDUs of a transaction, each checked for itself; keeps what must not be lost."""

    async def receive(self, origin: ServerName, edus: Sequence[Mapping[str, Json]]) -> None: ...


@frozen
class _UnderWay:
    txn_id: str
    done: trio.Event


class Inbound:
    """Takes transactions."""

    def __init__(
        self,
        store: Store,
        receiver: Receiver,
        edus: EduReceiver | None,
        joined: Callable[[RoomId, float], Awaitable[None]] | None = None,
    ) -> None:
        self.store = store
        self.receiver = receiver
        self.edus = edus
        self._joined = joined
        self._under_way: dict[ServerName, _UnderWay] = {}

    async def take(self, origin: ServerName, txn_id: str, body: Mapping[str, Json]) -> bytes:
        """The answer to a transaction, as JSON.

        Raises BadJson for one that is none, LimitExceeded while another one of the same server is
        under way; neither is remembered as its answer.
        """
        known = self.store.read(inbound.answer, origin, txn_id)
        if known is not None:
            return known
        if len(txn_id.encode()) > MAX_TXN_ID_BYTES:
            raise BadJson("The transaction identifier is too long")
        other = self._under_way.get(origin)
        if other is not None:
            return await self._repeated(origin, txn_id, other)
        pdus, edus = _lists(body)
        self._under_way[origin] = _UnderWay(txn_id, trio.Event())
        try:
            answer = await self._answer(origin, pdus, edus)
            await self.store.write(inbound.put_answer, origin, txn_id, answer)
        finally:
            self._under_way.pop(origin).done.set()
        await self.receiver.alive(origin)
        return answer

    async def _repeated(self, origin: ServerName, txn_id: str, other: _UnderWay) -> bytes:
        """A server that has lost its patience sends the same again: it gets the same answer."""
        if other.txn_id == txn_id:
            await other.done.wait()
            answer = self.store.read(inbound.answer, origin, txn_id)
            if answer is not None:
                return answer
        raise LimitExceeded(RETRY_MS, "Another transaction of your server is under way")

    async def _answer(
        self,
        origin: ServerName,
        pdus: Sequence[Pdu],
        edus: Sequence[Mapping[str, Json]],
    ) -> bytes:
        outcomes: dict[EventId, Outcome] = {}
        limiter = trio.CapacityLimiter(ROOMS_AT_ONCE)

        async def receive(room_id: RoomId, mine: Sequence[Pdu]) -> None:
            async with limiter:
                outcomes.update(await self._received(origin, room_id, mine))

        with one_error():
            async with trio.open_nursery() as nursery:
                for room_id, mine in _by_room(pdus).items():
                    nursery.start_soon(receive, room_id, mine)
        if edus:
            await self._take_edus(origin, edus)
        return encode({"pdus": {name: _result(outcomes[name]) for name in sorted(outcomes)}})

    async def _received(
        self, origin: ServerName, room_id: RoomId, pdus: Sequence[Pdu]
    ) -> Mapping[EventId, Outcome]:
        if self._joined is not None:
            await self._joined(room_id, JOIN_S)  # what comes during a join is of use after it
        try:
            return await self.receiver.receive(origin, room_id, pdus)
        except StoreError:
            raise  # not taken: the server sends it again
        except Exception as error:  # noqa: BLE001 one room fails alone (T009)
            log.bug("events of a room not taken", error, room_id=room_id, origin=origin)
            return {}

    async def _take_edus(self, origin: ServerName, edus: Sequence[Mapping[str, Json]]) -> None:
        if self.edus is None:
            return
        try:
            await self.edus.receive(origin, edus)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 else the server would send them for ever
            log.bug("EDUs not taken", error, origin=origin)


def _lists(body: Mapping[str, Json]) -> tuple[list[Pdu], list[Mapping[str, Json]]]:
    """The PDUs and EDUs of a transaction that are objects.  Raises BadJson."""
    pdus, edus = body.get("pdus", []), body.get("edus", [])
    if not isinstance(pdus, list) or not isinstance(edus, list):
        raise BadJson("`pdus` and `edus` must be arrays")
    if len(pdus) > MAX_PDUS or len(edus) > MAX_EDUS:
        raise BadJson(f"There are more than {MAX_PDUS} PDUs or {MAX_EDUS} EDUs")
    return (
        [cast("Pdu", one) for one in pdus if isinstance(one, Mapping)],
        [one for one in edus if isinstance(one, Mapping)],
    )


def _by_room(pdus: Sequence[Pdu]) -> dict[RoomId, list[Pdu]]:
    """The PDUs of each room, in their order.  Those without a room have no name either."""
    found: dict[RoomId, list[Pdu]] = {}
    for pdu in pdus:
        room_id = pdu.get("room_id")
        try:
            name = parse_room_id(room_id if isinstance(room_id, str) else "")
        except InvalidIdentifier:
            continue
        found.setdefault(name, []).append(pdu)
    return found


def _result(outcome: Outcome) -> dict[str, Json]:
    if outcome.verdict not in _FAILED:
        return {}
    step = "" if outcome.step is None else f" (check {outcome.step})"
    return {"error": f"{outcome.verdict.value}{step}: {outcome.reason}"}
