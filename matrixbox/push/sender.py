"""Sending notifications: one task for each pusher with work, a bounded number at once.

Matrix v1.19, Push Gateway API ([E.02] to [E.07]; T105, T132).  Whom an event notifies stands with
the event, and each pusher has a cursor: what is beyond it is sent, at least once, in order.  A
gateway that fails is asked again and again, for ever longer pauses; meanwhile the newest event of
each room is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import trio
from attrs import define, field

from matrixbox.errors import RemoteError, RemoteTimeout, RemoteUnreachable
from matrixbox.observe import log
from matrixbox.push.badges import Badges
from matrixbox.push.content import News, badge_for, body_for
from matrixbox.push.gateway import Gateway
from matrixbox.push.queues import Gateways, Queue
from matrixbox.rooms import counts
from matrixbox.rooms.env import Env
from matrixbox.store import members, names, pushers
from matrixbox.store.changes import Key, StreamPos, loud_rooms, user_key
from matrixbox.store.database import Store
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.pushers import CHANGED, TOPIC, Notifying, Pusher, PusherNid
from matrixbox.store.transaction import Tx

DEAD_MS = 30 * 24 * 3600 * 1000
"""A pusher whose gateway has failed for so long is removed."""
MAX_MISSED = 2_000
"""Events looked at after a start; what is older is told by the count alone."""
_PAGE = 500
_STORE_AFTER_S = 0.5
_STORE_ALL_S = 300.0
_ANY_NEWS = frozenset({TOPIC, CHANGED, members.CHANGES})
_NEW_PUSHERS = frozenset({CHANGED})


@define(eq=False)
class PushSender:
    """Tells gateways what they are to be told; `run` does the work."""

    store: Store
    env: Env
    gateway: Gateway
    _badges: Badges = field(init=False)
    _gateways: Gateways = field(factory=Gateways)
    _queues: dict[PusherNid, Queue] = field(factory=dict)
    _by_user: dict[UserNid, list[Queue]] = field(factory=dict)
    _position: int = 0  # up to here news was looked for
    _nursery: trio.Nursery | None = None
    _work: trio.Event = field(factory=trio.Event)
    _unstored: set[PusherNid] = field(factory=set)
    _to_store: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._badges = Badges(self.store)

    async def run(self) -> None:
        """Send until cancelled.  Begins with what earlier runs did not send."""
        self._queues.clear()
        self._gateways = Gateways()
        self._badges.keep(())
        self._position = self.store.doorbell.position
        self.store.read(self._load)
        await self._catch_up()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_time, name="push.time")
                nursery.start_soon(self._write_down, name="push.store")
                await self._look_for_news()
        finally:
            self._nursery = None
            with trio.move_on_after(5) as scope:
                scope.shield = True
                await self._store(self._queues)

    # --- what there is to tell

    async def _look_for_news(self) -> None:
        doorbell = self.store.doorbell
        while True:
            keys = _ANY_NEWS if self._queues else _NEW_PUSHERS
            await doorbell.beyond(StreamPos(self._position), keys)
            rung = doorbell.rung_since(StreamPos(self._position))
            after, self._position = self._position, doorbell.position
            self.store.read(self._read_news, rung, after)
            self._work.set()

    async def _catch_up(self) -> None:
        """Find what earlier runs did not send, and whose count is another one now."""
        if not self._queues:
            return
        first = min(queue.cursor for queue in self._queues.values())
        for one in await self.store.read_long(_missed, first, self._position):
            self._hint(one)
        self.store.read(self._read_memberships, None, first)
        for queue in self._queues.values():
            queue.touched(trio.current_time())

    def _read_news(self, tx: Tx, rung: AbstractSet[Key] | None, after: int) -> None:
        """Tell the queues of what happened after a position; `rung` None: nobody knows what."""
        if rung is None or CHANGED in rung:
            self._load(tx)
        if not self._queues:
            return
        found = pushers.notifying(tx, after, self._position, _PAGE)
        while found:
            for one in found:
                self._hint(one)
            more = len(found) == _PAGE
            start = found[-1].point[0]
            found = pushers.notifying(tx, start, self._position, _PAGE) if more else []
        self._read_counts(tx, rung)
        self._read_memberships(tx, rung, after)

    def _hint(self, one: Notifying) -> None:
        for user in counts.notified(one.notify):
            for queue in self._by_user.get(user, ()):
                if one.point[0] > queue.cursor:
                    queue.add(News(one.point[0], one.room, one.nid))

    def _read_counts(self, tx: Tx, rung: AbstractSet[Key] | None) -> None:
        """See whose count may be another one."""
        if rung is None:
            for user in self._by_user:
                self._touch(user, None)
            return
        rooms = loud_rooms(rung)
        for room in rooms:
            for user in members.local_joined(tx, room):
                self._touch(user, (room,))
        for user in self._by_user:
            if user_key(user) in rung:  # perhaps no member any more
                self._touch(user, rooms)

    def _touch(self, user: UserNid, rooms: Iterable[RoomNid] | None) -> None:
        if user in self._by_user:
            self._badges.touch(user, rooms)
            for queue in self._by_user[user]:
                queue.touched(trio.current_time())

    def _read_memberships(self, tx: Tx, rung: AbstractSet[Key] | None, after: int) -> None:
        """Look for invitations to rooms that this server is not in."""
        for user, queues in self._by_user.items():
            if rung is not None and user_key(user) not in rung:
                continue
            for member in members.rooms_of(tx, user):
                is_outside = member.membership is Membership.INVITE and not member.event
                if is_outside and after < member.pos <= self._position:
                    for queue in queues:
                        if member.pos > queue.cursor:
                            queue.add(News(member.pos, member.room))

    def _load(self, tx: Tx) -> None:
        """Take over what pushers there are; what is under way goes on."""
        known, self._queues, self._by_user = self._queues, {}, {}
        now_s, now_ms = trio.current_time(), self.env.clock.now_ms()
        for pusher, progress in pushers.everything(tx):
            if pusher.is_mail:
                continue
            queue = known.get(pusher.nid)
            if queue is None:
                queue = Queue.of(pusher, progress, now_s, now_ms)
            elif queue.pusher != pusher:  # set again: perhaps the gateway is another
                queue.pusher = pusher
                queue.succeeded()
            self._queues[pusher.nid] = queue
            self._by_user.setdefault(pusher.user, []).append(queue)
        self._badges.keep(self._by_user)

    # --- telling it

    async def _keep_time(self) -> None:
        """Start what is due, whenever something is."""
        assert self._nursery is not None
        while True:
            self._work = trio.Event()
            now_s = trio.current_time()
            for queue in self._gateways.startable(self._queues.values(), now_s):
                queue.is_busy = True
                self._gateways.begin(queue.pusher.gateway)
                name = f"push {queue.pusher.nid}"
                self._nursery.start_soon(self._serve, queue, queue.pusher.gateway, name=name)
            times = (queue.next_s for queue in self._queues.values())
            later = [next_s for next_s in times if next_s is not None and next_s > now_s]
            with trio.move_on_at(min(later, default=math.inf)):
                await self._work.wait()

    async def _serve(self, queue: Queue, gateway: str) -> None:
        try:
            while await self._send_one(queue):
                pass
        finally:
            queue.is_busy = False
            self._gateways.end(gateway, answered=not queue.is_unanswered)
            self._work.set()

    async def _send_one(self, queue: Queue) -> bool:
        """Send what is next; whether to go on."""
        pusher = queue.pusher
        if self._queues.get(pusher.nid) is not queue:
            return False  # removed
        if not (queue.waiting or queue.is_badge_due(trio.current_time())):
            return False
        unread = await self._badges.unread(pusher.user)
        now_ms = self.env.clock.now_ms()
        body = None
        if queue.waiting:
            body = self.store.read(body_for, pusher, queue.waiting[0], unread, now_ms)
            if body is not None and not await self._call(queue, pusher, body):
                return False
            queue.waiting.popleft()
        else:
            queue.badge_due_s = None
            if unread != queue.badge:
                body = badge_for(pusher, unread)
                if not await self._call(queue, pusher, body):
                    queue.touched(trio.current_time())
                    return False
        if body is not None:
            queue.badge = unread
        self._note(queue)
        return True

    async def _call(self, queue: Queue, pusher: Pusher, body: bytes) -> bool:
        """Call the gateway; whether it took the notification."""
        try:
            rejected = await self.gateway.notify(pusher.url, body)
        except RemoteError as error:
            await self._failed(queue, error)
            return False
        if queue.failures:
            log.info("push gateway answers again", pusher=pusher.nid, user_id=self._name(pusher))
        queue.succeeded()
        for other in self._queues.values():
            if other.is_unanswered and other.pusher.gateway == pusher.gateway:
                other.due_s = 0.0
        if pusher.pushkey in rejected:
            log.info(
                "pusher rejected by its gateway", pusher=pusher.nid, user_id=self._name(pusher)
            )
            await self._remove(pusher)
            return False
        return True

    async def _failed(self, queue: Queue, error: RemoteError) -> None:
        pusher, now_ms = queue.pusher, self.env.clock.now_ms()
        answered = not isinstance(error, RemoteUnreachable | RemoteTimeout)
        queue.failed(trio.current_time(), now_ms, answered=answered)
        self._note(queue)
        about = {"pusher": pusher.nid, "user_id": self._name(pusher), "gateway": pusher.gateway}
        if queue.failures == 1:
            log.info("push gateway fails", reason=type(error).__name__, **about)
        if queue.failing_since_ms is not None and now_ms - queue.failing_since_ms > DEAD_MS:
            log.warning("pusher removed: its gateway has failed for too long", **about)
            await self._remove(pusher)

    def _name(self, pusher: Pusher) -> str:
        return self.store.read(names.user_id, pusher.user)

    async def _remove(self, pusher: Pusher) -> None:
        """Remove a pusher, unless it was set anew meanwhile."""
        await self.store.write(_remove_unless_set, pusher)

    # --- writing down how far

    def _note(self, queue: Queue) -> None:
        self._unstored.add(queue.pusher.nid)
        self._to_store.set()

    async def _write_down(self) -> None:
        while True:
            with trio.move_on_after(_STORE_ALL_S) as scope:
                await self._to_store.wait()
            if not scope.cancelled_caught:
                await trio.sleep(_STORE_AFTER_S)
            await self._store(self._queues if scope.cancelled_caught else self._unstored)

    async def _store(self, which: Iterable[PusherNid]) -> None:
        now_s, now_ms = trio.current_time(), self.env.clock.now_ms()
        rows = [
            (nid, self._queues[nid].progress(self._position, now_s, now_ms))
            for nid in which
            if nid in self._queues
        ]
        self._unstored, self._to_store = set(), trio.Event()
        if rows:
            await self.store.write(pushers.note, rows)


def _missed(tx: Tx, after: int, until: int) -> list[Notifying]:
    """The newest events after a position that notify somebody, oldest first."""
    found = pushers.notifying_before(tx, (until, 1), MAX_MISSED)
    return [one for one in reversed(found) if one.point[0] > after]


def _remove_unless_set(tx: Tx, pusher: Pusher) -> None:
    if pusher in pushers.of_user(tx, pusher.user):
        pushers.remove(tx, pusher.nid)
