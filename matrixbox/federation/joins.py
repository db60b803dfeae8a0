"""Coming into rooms that other servers have.

Matrix v1.19, Server-Server API, "Joining Rooms", "Restricted rooms" ([B8.01] to [B8.13]; T030,
T036).  Servers are asked in turn; what each says is checked, and a lie costs no more than trying
the next one.  A room is entered by one user at a time: who comes second finds it here.

Whoever was handed a join may have let our user in, whatever comes of it here.  That is written down
before, and ``owed_joins`` brings to an end what did not come to one: a user is not left behind as
a ghost in a room whose events nobody takes here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple, Unpack

import trio
from attrs import define, evolve, field, frozen

from matrixbox.core.events import Event, MalformedEvent
from matrixbox.core.identifiers import RoomId, ServerName, UserId
from matrixbox.core.json import Json
from matrixbox.core.room_versions import ROOM_VERSIONS, RoomRules, rules_of_create
from matrixbox.errors import (
    BadGateway,
    Forbidden,
    MatrixError,
    RemoteInvalid,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnreachable,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
    Unavailable,
)
from matrixbox.federation import failing, join_notes, join_spool, templates
from matrixbox.federation.arrivals import Arrivals
from matrixbox.federation.client import MAKE_LIMITS, FederationClient, target
from matrixbox.federation.completions import Completions
from matrixbox.federation.join_spool import Index, Spool
from matrixbox.federation.templates import Built, Change
from matrixbox.observe import log
from matrixbox.rooms import (
    arrival,
    handshake,
    membership,
    outside,
    partial,
    residence,
    resolution,
)
from matrixbox.rooms.arrival import Arrived, Partial
from matrixbox.rooms.env import Env
from matrixbox.rooms.receiving import Receiver
from matrixbox.rooms.remote import Signed, Verifier
from matrixbox.store.caches import Session
from matrixbox.store.changes import room_key
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx
from matrixbox.store.undecided import OwedJoin
from matrixbox.tasks import Outliving

MAX_CANDIDATES = 10
HAND_OVER_S = 5.0
HAND_OVER_LOOK_S = 0.1
MAKE_S = 20.0  # for a template while there are others to ask
SEND_AGAIN = 1  # times that a server is asked again which has our join, but whose answer was lost
WHOLE_S = 900.0
COMING_BACK_S = 20.0  # for what a join stands on, in a room that we are in
WAIT_FOR_MEMBERS_S = 1.0  # of a room that was joined without them: small ones are whole at once
MEMBERS_S = 60.0  # that is waited for members where nothing goes without them
VERSIONS = tuple(ROOM_VERSIONS)

T = TypeVar("T")
Args = TypeVarTuple("Args")


@frozen
class Wanted:
    """A room that a user wants to join, with the servers to ask and what the join is to say."""

    who: Session
    room_id: RoomId
    via: tuple[ServerName, ...] = ()
    content: dict[str, Json] = field(factory=dict)


@define(eq=False)
class _Attempt:
    """A join under way."""

    done: trio.Event = field(factory=trio.Event)
    failure: Exception | None = None
    is_leave: bool = False  # a join that failed is taken back


class Unverified(RemoteInvalid):
    """The answer to our join cannot be judged without keys that could not be had (T027)."""


@define(eq=False)
class Joins:
    """Lets our users into rooms, wherever these are."""

    store: Store
    env: Env
    client: FederationClient
    verifier: Verifier
    receiver: Receiver
    arrivals: Arrivals
    completions: Completions
    on_undecided: Callable[[RoomNid], None] = field(repr=False)
    on_owed: list[Callable[[OwedJoin, Collection[ServerName]], None]] = field(
        factory=list, repr=False
    )
    _attempts: dict[tuple[RoomId, UserId], _Attempt] = field(factory=dict, repr=False)
    _tasks: Outliving = field(factory=Outliving, repr=False)

    async def run(self) -> None:
        """Own the joins: they go on when the client that asked for one has gone away."""
        await self._tasks.run()

    def is_joining(self, room_id: RoomId) -> bool:
        """Whether a join to the room is under way: its events are of use soon."""
        return any(room == room_id for room, _ in self._attempts)

    @asynccontextmanager
    async def taking_back(self, room_id: RoomId, user_id: UserId) -> AsyncIterator[bool]:
        """Keep a user from joining a room meanwhile; whether nobody does so just now."""
        key = (room_id, user_id)
        if key in self._attempts:
            yield False
            return
        attempt = self._attempts[key] = _Attempt(is_leave=True)
        try:
            yield True
        finally:
            del self._attempts[key]
            attempt.done.set()

    async def settled(self, room_id: RoomId, at_most_s: float) -> None:
        """Wait until no join to the room is under way, or for so long."""
        with trio.move_on_after(at_most_s):
            while found := [one for (room, _), one in self._attempts.items() if room == room_id]:
                await found[0].done.wait()

    async def join(self, wanted: Wanted) -> None:
        """Join a room, or change what one's join says.  Raises MatrixError."""
        if await self._join_here(wanted):
            return
        key = (wanted.room_id, wanted.who.user_id)
        while (attempt := self._attempts.get(key)) is not None and attempt.is_leave:
            await attempt.done.wait()
        if attempt is None:
            attempt = self._attempts[key] = _Attempt()
            await self._tasks.start(self._carry_out, wanted, attempt)
        await attempt.done.wait()
        if attempt.failure is not None:
            raise attempt.failure

    async def _carry_out(self, wanted: Wanted, attempt: _Attempt) -> None:
        """One attempt, from waiting for those before it to telling how it ended."""
        key = (wanted.room_id, wanted.who.user_id)
        try:
            with trio.move_on_after(WHOLE_S) as scope:
                await self._wait_for_others(wanted, attempt)
                if not await self._join_here(wanted):
                    await self._join_elsewhere(wanted)
            if scope.cancelled_caught:
                attempt.failure = failing.too_slow(wanted.room_id)
        except Exception as error:  # noqa: BLE001 raised again where it was asked for
            attempt.failure = error
        except trio.Cancelled:
            attempt.failure = Unavailable("The server is being stopped.")
            raise
        finally:
            del self._attempts[key]
            attempt.done.set()

    async def _wait_for_others(self, wanted: Wanted, attempt: _Attempt) -> None:
        """Let the attempts of other users that began before this one come to their end."""
        for (room_id, _), other in list(self._attempts.items()):
            if other is attempt:
                return
            if room_id == wanted.room_id:
                await other.done.wait()

    # --- here

    async def _join_here(self, wanted: Wanted) -> bool:
        """Join a room that this server is in; False where others have to let the user in."""
        room = self.store.read(residence.resident_room, self.env, wanted.room_id)
        if room is None:
            return False
        is_new = not self.store.read(join_notes.is_joined, room, wanted.who)
        if is_new and self.store.read(partial.is_partial, room):
            # Whether the user is banned is not known here: somebody else decides.
            if self.candidates(wanted):
                return False
            await self.completions.wait(room, MEMBERS_S)
        try:
            await self._write(membership.join, wanted.who, room, wanted.content)
        except (UnableToAuthoriseJoin, UnableToGrantJoin) as error:
            if not self.candidates(wanted):
                raise Forbidden(error.text) from error
            return False
        return True

    def candidates(self, wanted: Wanted) -> list[ServerName]:
        """The servers to ask about a room, those first that are most likely to know it.

        Where the client names servers, those of which only we think so are left in peace, unless
        we are in the room.
        """
        known = self.store.read(outside.servers_to_ask, self.env, wanted.room_id, wanted.who.user)
        here = self.store.read(residence.resident_room, self.env, wanted.room_id)
        rest = known[1:] if here is not None or not wanted.via else []
        first = known[:1] if here is not None or self._is_invited(wanted) or not wanted.via else []
        found = dict.fromkeys([*first, *wanted.via, *rest])
        return [server for server in found if server != self.env.server_name][:MAX_CANDIDATES]

    def _is_invited(self, wanted: Wanted) -> bool:
        return self.store.read(outside.is_outside, self.env, wanted.who, wanted.room_id) is not None

    # --- elsewhere

    async def _join_elsewhere(self, wanted: Wanted) -> None:
        self.store.read(membership.require_room_for_more, self.env, wanted.who)
        profile = self.store.read(membership.profile_content, wanted.who.user)
        change = Change(wanted.room_id, wanted.who.user_id, "join", {**profile, **wanted.content})

        async def attempt(server: ServerName) -> None:
            is_owed = self.store.read(join_notes.is_owed, wanted.room_id, server)
            built = await self.template(server, change)
            if is_owed:  # now it is known that it answers
                await self._hand_over(server, wanted.room_id)
                built = await self.template(server, change)
            await self._send(server, built, wanted)

        try:
            await failing.in_turn(wanted.room_id, self.candidates(wanted), attempt)
        except MatrixError as error:
            owed = self.store.read(join_notes.owed, wanted.room_id, wanted.who)
            if owed is not None and owed.goes_on:
                raise BadGateway(
                    "You were let in, but keys of other servers are missing that are needed to"
                    " check the room.  This server goes on trying."
                ) from error
            if not isinstance(error, BadGateway):
                raise
            if self.store.read(join_notes.is_banned, wanted.room_id, wanted.who):
                raise Forbidden("You are banned from that room.") from error
            raise

    async def _hand_over(self, server: ServerName, room_id: RoomId) -> None:
        """Wait a little until the server has what we did in the room before we left it.

        The state that it tells us would be without that, and is what we go on from.
        """
        with trio.move_on_after(HAND_OVER_S):
            while self.store.read(join_notes.is_owed, room_id, server):  # noqa: ASYNC110 nothing tells
                await trio.sleep(HAND_OVER_LOOK_S)

    async def template(self, server: ServerName, change: Change, within_s: float = MAKE_S) -> Built:
        """Our event, made with a template of the server's.  Raises RemoteError."""
        query = [] if change.membership == "leave" else [("ver", known) for known in VERSIONS]
        uri = target("v1", f"make_{change.membership}", change.room_id, change.user_id, query=query)
        answer = await self.client.get_json(
            server, uri, limits=evolve(MAKE_LIMITS, total_s=within_s), ignore_backoff=True
        )
        return templates.build(self.env, server, change, answer)

    async def leave(self, server: ServerName, change: Change) -> Event:
        """Have a server take our leave of a room that we are not in.  Raises RemoteError."""
        event = (await self.template(server, change)).event
        uri = target("v2", "send_leave", event.room_id, event.event_id)
        await self.client.put_json(
            server, uri, dict(event.json), limits=MAKE_LIMITS, ignore_backoff=True
        )
        return event

    async def _send(self, server: ServerName, built: Built, wanted: Wanted) -> None:
        """Hand in our join and take the room; what does not come to its end is owed to it."""
        owed = await self._write(
            join_notes.owe, built.event.rules, wanted.room_id, wanted.who, wanted.content, server
        )
        keyless: set[ServerName] = set()
        try:
            await self._send_again(server, built, wanted.room_id, keyless)
        except RemoteRefused as error:
            if 400 <= error.status < 500:
                await self._write(join_notes.not_let_in, owed, server)
            raise
        except Unverified:
            await self._write(join_notes.go_on, owed)
            raise
        else:
            await self._write(join_notes.settle, owed)
        finally:
            left = self.store.read(join_notes.owed, wanted.room_id, wanted.who)
            if left is not None:
                for call in self.on_owed:
                    call(left, keyless)

    async def _send_again(
        self, server: ServerName, built: Built, room_id: RoomId, keyless: set[ServerName]
    ) -> None:
        """A second time where the answer was lost.  ``keyless`` gets the servers without keys."""
        event = built.event
        for again in range(SEND_AGAIN + 1):
            with self.arrivals.spool() as spool:
                try:
                    await self._fill(server, event, spool)
                except (RemoteTimeout, RemoteUnreachable):
                    if again == SEND_AGAIN:
                        raise
                    continue
                except OSError as error:
                    log.warning("no room for the answer to a join", reason=error.strerror)
                    raise Unavailable("There is no space for that room.") from error
                await self._take(server, built, room_id, spool, keyless)
                return

    async def _fill(self, server: ServerName, event: Event, spool: Spool) -> None:
        path = (event.room_id, event.event_id)
        query = [("omit_members", "true")]
        body = dict(event.json)
        try:
            async with self.client.stream(
                "PUT",
                server,
                target("v2", "send_join", *path, query=query),
                body,
                limits=join_spool.LIMITS,
                ignore_backoff=True,
            ) as answer:
                await spool.fill(answer)
        except RemoteRefused as error:
            # Servers of old know the first version only; of its answer, a pair, they all gave more.
            if error.status not in (404, 405) or error.errcode not in (None, "M_UNRECOGNIZED"):
                raise
            raise RemoteInvalid(server, "it knows no join of today") from error

    async def _take(
        self,
        server: ServerName,
        built: Built,
        room_id: RoomId,
        spool: Spool,
        keyless: set[ServerName],
    ) -> None:
        rules = built.event.rules
        index = await join_spool.read(server, spool, rules, room_id, self.verifier)
        keyless |= index.keyless
        rules = _confirmed(server, built, index)
        join = await self._signed_join(server, built.event, index)
        here = self.store.read(residence.resident_room, self.env, room_id)
        if here is not None:
            # We are in the room, and only its way in was closed to us: the graph goes on.
            await self._come_back(server, here, join)
            return
        left = self.store.read(join_notes.left_behind, join)
        if left is not None:
            # Nobody has said anything since we left, and what was missing then is missing still.
            await self._write(handshake.take_up, left, join)
            self.completions.begin(left)
            return
        try:
            room = await self._write(arrival.begin, room_id, rules)
            await self.arrivals.admit(room, rules, spool, index, join.auth_event_ids)
            await self._finish(server, room, index, join, spool)
        except arrival.Unusable as error:
            kind = Unverified if index.undecided else RemoteInvalid
            raise kind(server, f"its answer to our join is of no use: {error}") from error
        if index.undecided:
            self.on_undecided(room)
        if index.members_omitted:
            self.completions.begin(room)
            await self.completions.wait(room, WAIT_FOR_MEMBERS_S)

    async def _verdict(self, room: RoomNid, event: Event) -> int:
        """The status of an event, once it has its place in a room."""
        doorbell = self.store.doorbell
        while True:
            position = doorbell.position
            status = self.store.read(join_notes.status, event)
            if status is not None:
                return status
            await doorbell.beyond(position, {room_key(room)})

    async def _come_back(self, server: ServerName, room: RoomNid, join: Event) -> None:
        """Let a join of ours into a room that goes on here; its parents may be missing yet."""
        await self.receiver.receive(server, join.room_id, [join.json])
        with trio.move_on_after(COMING_BACK_S):
            outcome = await self._verdict(room, join)
            if outcome & handshake.REFUSED:
                raise RemoteInvalid(server, "it let our user in where the room does not")
            return
        raise RemoteTimeout(server, "what our join stands on is missing")

    async def _signed_join(self, server: ServerName, event: Event, index: Index) -> Event:
        """Our join, with the signatures of those who vouch for it."""
        if index.event is not None:
            try:
                event = templates.with_signatures_of(event, index.event, self.env.server_name)
            except MalformedEvent as error:
                raise RemoteInvalid(server, "it signed our join to death") from error
        (verdict,) = await self.verifier.verify(event.rules, [event.json])
        if verdict is Signed.UNKNOWN:
            raise Unverified(server, "keys of those who let us in are missing")
        if verdict is not Signed.VALID:
            raise RemoteInvalid(server, "our join is not signed by those who let us in")
        return event

    async def _finish(
        self, server: ServerName, room: RoomNid, index: Index, join: Event, spool: Spool
    ) -> None:
        state = await self.arrivals.state(room, index.state)
        left_out = Partial(server, tuple(index.servers)) if index.members_omitted else None
        kept = await self.arrivals.undecided(spool, index)
        arrived = Arrived(join, state, server, left_out, kept)
        await self.store.write(arrival.finish, self.env, room, arrived)

    async def _write(self, function: Callable[[Tx, Env, Unpack[Args]], T], *args: *Args) -> T:
        return await resolution.write(self.store, function, self.env, *args)


def _confirmed(server: ServerName, built: Built, index: Index) -> RoomRules:
    """The room version that the create event names, which the template has to have named."""
    rules = built.event.rules
    if index.create is None:
        kind = Unverified if index.undecided else RemoteInvalid
        raise kind(server, "its answer to our join has no create event that is known to be good")
    found = rules_of_create(index.create.content)
    if found is rules or (built.is_old and found is not None and found.version in ("1", "2")):
        assert found is not None
        return found
    raise RemoteInvalid(server, "the create event is of another room version than the template")
