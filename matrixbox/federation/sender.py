"""Sending to other servers: one task for each destination with work, a bounded number at once.

Matrix v1.19, Server-Server API, "Transactions", "EDUs" ([B5.01], [B5.02], [B5.06], T083, T154).
What is owed stands in the database (``store.outbound``); here is only who has news.  A destination
without a queue here either has everything, or failed and is put off: then it is forgotten until its
pause is over, and the database tells what it is owed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import trio
from attrs import define, field

from matrixbox.core.identifiers import ServerName, UserId, server_of
from matrixbox.core.json import Json
from matrixbox.federation.client import FederationClient
from matrixbox.federation.delivery import Delivery
from matrixbox.federation.destinations import Destinations
from matrixbox.federation.places import KNOWN_QUICK_S, Attempt, Places
from matrixbox.federation.transactions import Queue, Transaction
from matrixbox.observe import log
from matrixbox.rooms.env import Env
from matrixbox.store import names, outbound, receipts, servers
from matrixbox.store.changes import Key, StreamPos, changed_rooms, read_rooms
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.outbound import TOPIC, FailureKind, Taken
from matrixbox.store.transaction import Tx

EDU_PAUSE_S = 0.2
"""What nobody waits for waits so long for company ..."""
CROWD_PAUSE_S = 10.0
"""... and so long when it is for many servers."""
CROWD = 50
MAX_TOLD = 200
"""Rooms with more servers are not told of typing and presence (T083)."""
KEEP_PENDING_S = 120.0
"""A transaction stays in memory, to be repeated as it is, when the pause is at most so long."""
_STORE_AFTER_S = 0.5
_PRUNE_EVERY_S = 3600.0


def _no_presence(_: Sequence[UserId]) -> list[Json]:
    return []


@define(eq=False)
class Sender:
    """Gives other servers what they are owed; `run` does the work."""

    store: Store
    env: Env
    client: FederationClient
    destinations: Destinations
    presence_of: Callable[[Sequence[UserId]], list[Json]] = _no_presence
    _delivery: Delivery = field(init=False)
    _places: Places = field(init=False)
    _nursery: trio.Nursery | None = None
    _position: int = 0  # up to here it is known who has news
    _edu_seq: int = 0
    _gathering: bool = False  # many are put in line; who goes first is seen afterwards
    _queues: dict[ServerName, Queue] = field(factory=dict)
    _due: dict[ServerName, float] = field(factory=dict)  # the ends of pauses after failures
    _soon: dict[ServerName, float] = field(factory=dict)  # the ends of waits for company
    _later: list[tuple[float, int, ServerName]] = field(factory=list)  # both, in order
    _sooner: trio.Event = field(factory=trio.Event)
    _taken: dict[ServerName, Taken] = field(factory=dict)
    _to_write: trio.Event = field(factory=trio.Event)
    _typing: dict[tuple[RoomNid, UserId], bool] = field(factory=dict)
    _present: dict[UserId, None] = field(factory=dict)
    _passing: trio.Event = field(factory=trio.Event)
    _serial: int = 0
    _started_ms: int = 0

    def __attrs_post_init__(self) -> None:
        self._delivery = Delivery(
            self.store, self.env, self.client, self.destinations, self._note_taken
        )
        self._places = Places(self.destinations)
        self.destinations.on_sign_of_life.append(self._sign_of_life)

    async def run(self) -> None:
        """Send until cancelled.  Begins with what earlier runs did not send."""
        self._gathering = False
        self._queues.clear()
        self._due.clear()
        self._soon.clear()
        self._later.clear()
        self._places.clear()
        self._started_ms = self.env.clock.now_ms()
        since_ms = self._started_ms - round(KNOWN_QUICK_S * 1000)
        for server in self.store.read(outbound.quick_since, since_ms):
            self._places.note_speed(server, 0)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_time, name="federation.send.time")
                nursery.start_soon(self._write_down, name="federation.send.store")
                nursery.start_soon(self._spread_passing, name="federation.send.passing")
                nursery.start_soon(self._prune, name="federation.send.prune")
                await self._look_for_news()
        finally:
            self._nursery = None
            with trio.move_on_after(5) as scope:
                scope.shield = True
                await self._store_taken()

    # --- who has news

    async def _look_for_news(self) -> None:
        doorbell = self.store.doorbell
        self._position = doorbell.position
        self._edu_seq = self.store.read(outbound.last_edu)
        await self._ask_database()
        while True:
            await doorbell.beyond(StreamPos(self._position), TOPIC)
            keys = doorbell.rung_since(StreamPos(self._position))
            after, self._position = self._position, doorbell.position
            if keys is None:  # more happened than the bell remembers
                await self._ask_database()
            else:
                self._gathering = True
                self.store.read(self._read_news, keys, after)
                self._gathering = False
                self._start_next()

    async def _ask_database(self) -> None:
        await self._store_taken()
        for server in await self.store.read_long(_owed):
            self._hint_unknown(server)

    def _read_news(self, tx: Tx, keys: AbstractSet[Key], after: int) -> None:
        """Tell the queues of what happened after a position."""
        until = self._position
        for room in outbound.rooms_with_events(tx, changed_rooms(keys), after, until):
            for server in outbound.servers_at(tx, room, after):
                self._hint(server, after, room=room)
        for room in read_rooms(keys):
            if receipts.public_of_locals(tx, room, after, until):
                told = outbound.servers_in(tx, room)
                pause_s = EDU_PAUSE_S if len(told) <= CROWD else CROWD_PAUSE_S
                for server in told:
                    self._hint(server, after, read_in=room, pause_s=pause_s)
        for server in outbound.with_direct(tx, after):
            self._hint(server, after, direct=True)
        found, self._edu_seq = outbound.with_edus(tx, self._edu_seq)
        for server in found:
            self._hint(server, after, edus=True)

    def _hint(
        self,
        server: ServerName,
        after: int,
        *,
        room: RoomNid | None = None,
        read_in: RoomNid | None = None,
        direct: bool = False,
        edus: bool = False,
        pause_s: float = 0.0,
    ) -> None:
        """There is something for a destination; beyond `after`, if it had all before."""
        queue = self._queue(server, after)
        if queue is None:
            return
        if room is not None:
            queue.rooms[room] = None
        if read_in is not None:
            queue.read_in[read_in] = None
        queue.direct |= direct
        queue.edus |= edus
        self._enqueue(queue, pause_s)

    def _hint_unknown(self, server: ServerName) -> None:
        """A destination may be owed something that only the database knows of."""
        if server == self.env.server_name:
            return
        if self._is_put_off(server):
            self._put_off(server)
            return
        queue = self._queues.setdefault(server, Queue(server))
        queue.unknown = True
        self._enqueue(queue)

    def _queue(self, server: ServerName, after: int) -> Queue | None:
        """The queue of a destination; None for one that is put off and forgotten."""
        queue = self._queues.get(server)
        if queue is None and server != self.env.server_name:
            if self._is_put_off(server):
                self._put_off(server)
                return None
            queue = self._queues[server] = Queue(server, after, unknown=server in self._due)
        return queue

    # --- what lives in memory only

    def typing(self, room: RoomNid, user: UserId, is_typing: bool) -> None:
        """A user began or ended typing in a room."""
        if server_of(user) == self.env.server_name:
            self._typing[room, user] = is_typing
            self._passing.set()

    def present(self, user: UserId) -> None:
        """What is known of a user's presence changed."""
        if server_of(user) == self.env.server_name:
            self._present[user] = None
            self._passing.set()

    async def _spread_passing(self) -> None:
        while True:
            await self._passing.wait()
            self._passing = trio.Event()
            typing, self._typing = self._typing, {}
            present, self._present = self._present, {}
            for (room, user), is_typing in typing.items():
                told = self.store.read(outbound.servers_in, room)
                for server in told if len(told) <= MAX_TOLD else ():
                    queue = self._queue_for_passing(server)
                    if queue is not None:
                        queue.typing[room, user] = is_typing
                        self._enqueue(queue, EDU_PAUSE_S)
            for user in present:
                for server in self.store.read(_sharing_with, user, self.env.server_name):
                    queue = self._queue_for_passing(server)
                    if queue is not None:
                        queue.presence[user] = None
                        self._enqueue(queue, EDU_PAUSE_S)
            await trio.sleep(EDU_PAUSE_S / 4)

    def _queue_for_passing(self, server: ServerName) -> Queue | None:
        """The queue of a server that can be told now; others are not told at all."""
        return None if self._is_put_off(server) else self._queue(server, self._position)

    # --- when

    def _enqueue(self, queue: Queue, pause_s: float = 0.0) -> None:
        """Put a destination in line, unless it is there or being worked on; after a pause if what
        it is to get may wait for company."""
        server = queue.server
        if server in self._places.busy or self._places.waits(server, urgently=not pause_s):
            return
        if self._is_put_off(server):
            self._put_off(server)
        elif not pause_s:
            self._due.pop(server, None)
            self._soon.pop(server, None)
            self._places.line_up(server, urgent=queue.is_urgent)
            if not self._gathering:
                self._start_next()
        else:
            when = trio.current_time() + pause_s
            if self._soon.get(server, when + 1) > when:
                self._soon[server] = when
                self._wake_at(when, server)

    def _is_put_off(self, server: ServerName) -> bool:
        return self.destinations.send_at(server) > trio.current_time()

    def _put_off(self, server: ServerName) -> None:
        """Look at a destination again when its pause is over."""
        when = self.destinations.send_at(server)
        if self._due.get(server) != when:
            self._due[server] = when
            self._wake_at(when, server)

    def _wake_at(self, when: float, server: ServerName) -> None:
        self._serial += 1
        heapq.heappush(self._later, (when, self._serial, server))
        self._sooner.set()

    async def _keep_time(self) -> None:
        """End pauses, and waiting in vain behind slow destinations."""
        while True:
            now = trio.current_time()
            while self._later and self._later[0][0] <= now:
                when, _, server = heapq.heappop(self._later)
                if self._soon.get(server) == when or self._due.get(server) == when:
                    self._pause_over(server)
            self._places.make_room()
            self._start_next()
            self._sooner = trio.Event()
            wait_s = self._later[0][0] - now if self._later else float("inf")
            with trio.move_on_after(min(wait_s, 1.0) if self._places.anybody_waits else wait_s):
                await self._sooner.wait()

    def _pause_over(self, server: ServerName) -> None:
        self._soon.pop(server, None)
        failed = self._due.pop(server, None) is not None
        queue = self._queues.get(server)
        if queue is not None and queue.has_work:
            self._enqueue(queue)
        elif failed:
            self._hint_unknown(server)

    def _sign_of_life(self, server: ServerName) -> None:
        """A destination that failed may be tried again."""
        if self._nursery is None:
            return
        queue = self._queues.get(server)
        if queue is None:
            self._hint_unknown(server)
        else:
            self._enqueue(queue)

    def _start_next(self) -> None:
        """Begin with those in line for whom there is a place."""
        while self._nursery is not None and (attempt := self._places.next()) is not None:
            name = f"federation.send {attempt.server}"
            self._nursery.start_soon(self._work_on, attempt, name=name)
        if self._places.anybody_waits:
            self._sooner.set()

    # --- one destination

    async def _work_on(self, attempt: Attempt) -> None:
        """Give a destination one transaction after the other, until nothing is left or it fails."""
        server = attempt.server
        queue = self._queues.get(server)
        try:
            if queue is not None:
                with attempt.scope:
                    await self._drain(queue, attempt)
                if attempt.given_up:
                    self._fail(queue, FailureKind.UNREACHABLE)
        except Exception as failure:  # noqa: BLE001 one destination fails alone
            log.bug("sending to a server failed", failure, destination=server)
            assert queue is not None
            queue.pending.clear()
            self._fail(queue, FailureKind.REFUSING)
        finally:
            self._places.busy.pop(server, None)
        queue = self._queues.get(server)
        if queue is not None and queue.has_work:
            self._enqueue(queue, 0.0 if queue.is_urgent else EDU_PAUSE_S)
        else:
            self._queues.pop(server, None)
        self._start_next()

    async def _drain(self, queue: Queue, attempt: Attempt) -> None:
        while queue.has_work:
            if not queue.pending:
                await self._build(queue)
            if queue.pending:
                attempt.began = trio.current_time()
                failed = await self._delivery.attempt(queue)
                if failed is not None:
                    self._fail(queue, *failed)
                    return
                self._places.note_speed(queue.server, trio.current_time() - attempt.began)
            else:
                await trio.lowlevel.checkpoint()
            if self._places.anybody_waits:
                return

    async def _build(self, queue: Queue) -> None:
        if queue.unknown:
            await self._store_taken()
            self.store.read(queue.load, self._position)
        self._serial += 1
        salt = f"{self._started_ms}.{self._serial}"
        made = self.store.read(queue.build, self._position, salt, self.presence_of)
        if not queue.pending and made.skipped:
            self._note_taken(made)

    def _fail(self, queue: Queue, kind: FailureKind, at_least_s: float = 0.0) -> None:
        """Leave a destination alone for a while."""
        server = queue.server
        self.destinations.failed(server, kind, at_least_s)
        queue.typing.clear()
        queue.presence.clear()
        queue.unknown = True  # it may be too much by then to send all of it
        lasting = (transaction.lasting() for transaction in queue.pending)
        queue.pending = [transaction for transaction in lasting if transaction.size]
        pause_s = self.destinations.send_at(server) - trio.current_time()
        if pause_s > KEEP_PENDING_S or not queue.pending:
            self._queues.pop(server, None)
        self._put_off(server)

    # --- writing down

    def _note_taken(self, transaction: Transaction) -> None:
        server = transaction.server
        before = self._taken.get(server)
        self._taken[server] = Taken(
            server,
            max(transaction.cursor, 0 if before is None else before.cursor),
            (*(() if before is None else before.edus), *transaction.seqs),
            self.env.clock.now_ms() if self._places.is_quick(server) else 0,
        )
        self._to_write.set()

    async def _write_down(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write = trio.Event()
            await trio.sleep(_STORE_AFTER_S)
            await self._store_taken()

    async def _store_taken(self) -> None:
        taken, self._taken = self._taken, {}
        if taken:
            await self.store.write(outbound.take, [*taken.values()])

    async def _prune(self) -> None:
        while True:
            await trio.sleep(_PRUNE_EVERY_S)
            await self.store.write(outbound.prune)
            await self.store.write(servers.forget_past)


def _owed(tx: Tx) -> list[ServerName]:
    return [*dict.fromkeys([*outbound.owed(tx), *receipts.owed(tx)])]


def _sharing_with(tx: Tx, user_id: UserId, own: ServerName) -> Sequence[ServerName]:
    user = names.user_nid(tx, user_id)
    return () if user is None else servers.sharing_with(tx, user, own, MAX_TOLD)
