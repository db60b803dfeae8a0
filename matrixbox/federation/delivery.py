"""Handing one transaction to another server, and what follows when it does not take it.

Matrix v1.19, Server-Server API, "Transactions" ([B5.01] to [B5.03], [B5.06], T083, T130).  The same
transaction is repeated until it is taken.  A server that refuses one for what is in it, and takes
an empty one, is given it in ever smaller pieces; what it refuses alone again and again is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import define, evolve

from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json
from matrixbox.errors import RemoteError, RemoteRefused
from matrixbox.federation.client import (
    SEND_LIMITS,
    FederationClient,
    NoBackOff,
    is_failure_of_server,
    target,
)
from matrixbox.federation.destinations import Destinations
from matrixbox.federation.transactions import Queue, Transaction, body
from matrixbox.observe import log
from matrixbox.rooms.env import Env
from matrixbox.store.database import Store
from matrixbox.store.outbound import FailureKind

PER_SECOND = 50
"""Transactions to all destinations together (T083)."""
REFUSALS = 3
_POISON = (400, 413, 422)
"""What a server says to a transaction that it will never take."""


@define(eq=False)
class Delivery:
    """Puts transactions; `taken` is told of each that needs no further care."""

    store: Store
    env: Env
    client: FederationClient
    destinations: Destinations
    taken: Callable[[Transaction], None]
    _free_at: float = 0.0
    _empty: int = 0

    def __attrs_post_init__(self) -> None:
        # Failures are counted here: what another endpoint answers says nothing about this one.
        self.client = evolve(self.client, destinations=NoBackOff())

    async def attempt(self, queue: Queue) -> tuple[FailureKind, float] | None:
        """Send the first of what is pending.  How the destination failed, and how long it asked to
        be left alone in seconds; None when there is no reason to stop."""
        transaction = queue.pending[0]
        try:
            await self._put(transaction)
        except RemoteError as error:
            return await self._not_taken(queue, transaction, error)
        self.destinations.delivered(queue.server)
        self._finish(queue)
        return None

    def _finish(self, queue: Queue) -> None:
        """Go on to what comes after the first of what is pending."""
        self.taken(queue.pending.pop(0))
        queue.refusals = 0
        if not queue.pending:
            queue.suspicious = False

    async def _put(self, transaction: Transaction) -> None:
        own, now_ms = self.env.server_name, self.env.clock.now_ms()
        content = self.store.read(body, transaction, own, now_ms)
        await self._pace()
        uri = target("v1", "send", transaction.txn_id)
        answer = await self.client.put_json(transaction.server, uri, content, limits=SEND_LIMITS)
        _log_refused_events(transaction, answer.get("pdus"))

    async def _pace(self) -> None:
        now = trio.current_time()
        self._free_at = max(self._free_at, now - 1.0) + 1.0 / PER_SECOND
        if self._free_at > now:
            await trio.sleep(self._free_at - now)

    async def _not_taken(
        self, queue: Queue, transaction: Transaction, error: RemoteError
    ) -> tuple[FailureKind, float] | None:
        status = error.status if isinstance(error, RemoteRefused) else 0
        failures = self.destinations.failures(queue.server) + 1
        suspect = status in _POISON or (
            status == 500 and (queue.suspicious or failures >= REFUSALS)
        )
        if suspect and (queue.suspicious or await self._takes_an_empty_one(queue.server)):
            self._reduce(queue, transaction, status)
            return None
        queue.suspicious = False
        log.info(
            "transaction not taken",
            destination=queue.server,
            reason=type(error).__name__,
            status=status or None,
            failures=failures,
        )
        unreachable = is_failure_of_server(error)
        kind = FailureKind.UNREACHABLE if unreachable else FailureKind.REFUSING
        return kind, _retry_after_s(error)

    async def _takes_an_empty_one(self, server: ServerName) -> bool:
        self._empty += 1
        name = f"empty-{self.env.clock.now_ms()}-{self._empty}"
        try:
            await self._put(Transaction(server, name, (), (), (), 0))
        except RemoteError:
            return False
        return True

    def _reduce(self, queue: Queue, transaction: Transaction, status: int) -> None:
        """Find out which part of a transaction is refused, and leave that out in the end."""
        queue.suspicious = True
        queue.refusals += 1
        if transaction.size > 1:
            queue.pending[:1] = transaction.split()
            queue.refusals = 0
        elif queue.refusals >= REFUSALS:
            log.warning(
                "left out what a server refuses",
                destination=queue.server,
                status=status,
                event_id=next(iter(transaction.event_ids), None),
                edu_type=next((edu.type for edu in transaction.edus), None),
            )
            self._finish(queue)


def _retry_after_s(error: RemoteError) -> float:
    found = error.fields.get("retry_after_ms") if isinstance(error, RemoteRefused) else None
    return found / 1000 if isinstance(found, int) and 0 < found < 2**40 else 0.0


def _log_refused_events(transaction: Transaction, answer: Json) -> None:
    """What the other server thinks of our events; nothing follows from it ([B5.03])."""
    if not isinstance(answer, dict):
        return
    for event_id in transaction.event_ids:
        said = answer.get(event_id)
        if isinstance(said, dict) and "error" in said:
            log.info("event refused", destination=transaction.server, event_id=event_id)
