"""Who is there: online, idle, away; and what users say of themselves.

Matrix v1.19, Client-Server API, "Presence"; Server-Server API, "Presence" ([B7.02], [C8.27],
[C13.08], T038, T084, T108).  Kept in memory and written down now and then.  Our users are online
while a client of theirs syncs, idle after five minutes without doing anything, and offline half a
minute after the last sync; users of others are what their servers say, until these fall silent.
Without the feature nobody is seen, told of or written down.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import trio
from attrs import define, field

from matrixbox.clock import Clock
from matrixbox.core.identifiers import (
    InvalidIdentifier,
    ServerName,
    UserId,
    parse_user_id,
    server_of,
)
from matrixbox.core.json import Json
from matrixbox.rooms.typing import Typing
from matrixbox.store import members, names, presence
from matrixbox.store.changes import Key, receipts_key, user_key
from matrixbox.store.database import Store
from matrixbox.store.nids import UserNid
from matrixbox.store.presence import WORDS, Row, State
from matrixbox.store.transaction import Tx

IDLE_S = 300.0
OFFLINE_S = 30.0
"""After the last sync of a user of ours."""
ACTIVE_S = 60.0
"""A user who did something so recently is active now."""
SILENT_S = 1800.0
"""Others are offline when their server says nothing of them for so long."""
SAY_AGAIN_S = 1500.0
MAX_STATUS = 2_048  # characters
MAX_PUSHED = 100
"""Users told of in one EDU."""
MAX_KNOWN = 20_000
"""Users of other servers; those heard of longest ago are forgotten."""
MAX_SHOWN = 500
"""Users in one answer of sync."""
_LOOK_EVERY_S = 5.0
_GATHER_S = 1.0  # what other servers tell is shown together
_OTHERS_EVERY_S = 60.0
_STORE_EVERY_S = 30.0


@define(eq=False)
class _Person:
    state: State = State.OFFLINE
    status: str | None = None
    active_ms: int = 0
    active: bool = False
    told_at: float = 0.0  # Trio's time: when last told of
    # of our users
    chosen: bool = False  # said to be unavailable, not found idle
    wanted: State = State.ONLINE  # by the last sync
    syncs: int = 0
    synced_at: float = float("-inf")


@define(eq=False)
class Presence:
    """How users are.  `on_change` is told of users of ours whose state others should learn."""

    store: Store
    clock: Clock
    own: ServerName
    typing: Typing  # its serial numbers are used here too
    on_change: Callable[[UserId], None] | None = None
    _people: dict[UserId, _Person] = field(factory=dict)
    _ours: dict[UserId, _Person] = field(factory=dict)
    _serials: dict[UserId, int] = field(factory=dict)  # of the last changes, in order
    _to_store: dict[UserId, None] = field(factory=dict)
    _to_show: dict[UserId, None] = field(factory=dict)
    _news: trio.Event = field(factory=trio.Event)

    def load(self) -> None:
        """Read what the last run wrote down: of our users only what they say."""
        now = trio.current_time()
        for row in reversed(self.store.read(presence.everybody, MAX_KNOWN)):
            state = State.OFFLINE if row.is_local else row.state
            self._people[row.user_id] = _Person(state, row.status, row.active_ms, told_at=now)
            self._serials[row.user_id] = self.typing.serial
            if row.is_local:
                self._ours[row.user_id] = self._people[row.user_id]

    # --- our users

    def set(self, user: UserId, state: State, status: str | None) -> None:
        """A user of ours says how it is."""
        person = self._person(user)
        if state is State.ONLINE:
            person.active_ms = self.clock.now_ms()
        person.synced_at = max(person.synced_at, trio.current_time())
        person.chosen = state is State.UNAVAILABLE
        self._change(user, person, state, status)

    def active(self, user: UserId) -> None:
        """A user of ours does something."""
        person = self._ours.get(user)
        if person is None:
            return
        person.active_ms = self.clock.now_ms()
        if person.state is State.UNAVAILABLE and not person.chosen:
            self._change(user, person, State.ONLINE, person.status)
        elif person.state is State.ONLINE and not person.active:
            self._change(user, person, person.state, person.status)

    @contextmanager
    def syncing(self, user: UserId, wanted: State) -> Iterator[None]:
        """A client of a user syncs inside the block, and takes the user to be `wanted` meanwhile;
        OFFLINE: to be as before ([C8.27])."""
        if wanted is State.OFFLINE:
            yield
            return
        person = self._person(user)
        person.syncs += 1
        returns = wanted is State.ONLINE and person.wanted is State.UNAVAILABLE
        changed, person.wanted = wanted is not person.wanted, wanted
        if person.state is State.OFFLINE or (changed and not person.chosen):
            if returns or person.state is State.OFFLINE:
                person.active_ms = self.clock.now_ms()
            self._change(user, person, wanted, person.status)
        try:
            yield
        finally:
            person.syncs -= 1
            person.synced_at = trio.current_time()

    def _person(self, user: UserId) -> _Person:
        person = self._people.get(user)
        if person is None:
            person = self._people[user] = _Person()
            if server_of(user) == self.own:
                self._ours[user] = person
            elif len(self._people) - len(self._ours) > MAX_KNOWN:
                oldest = next(name for name in self._people if name not in self._ours)
                del self._people[oldest]
                self._serials.pop(oldest, None)
                self._to_store[oldest] = None
        return person

    def _change(self, user: UserId, person: _Person, state: State, status: str | None) -> None:
        """Set a state and tell everybody, if there is something to tell."""
        active = state is State.ONLINE and self._ago_ms(person) < ACTIVE_S * 1000
        if (state, status, active) == (person.state, person.status, person.active):
            return
        person.state, person.status, person.active = state, status, active
        self._to_store[user] = None
        self._news.set()
        if user in self._ours:
            self._show([user])
            self._tell(user, person)
        else:
            self._to_show[user] = None

    def _tell(self, user: UserId, person: _Person) -> None:
        person.told_at = trio.current_time()
        if self.on_change is not None:
            self.on_change(user)

    def _ago_ms(self, person: _Person) -> int:
        return max(0, self.clock.now_ms() - person.active_ms)

    # --- users of others

    def receive(self, tx: Tx, origin: ServerName, content: Mapping[str, Json]) -> None:
        """Take an `m.presence` of another server: of its own users whom ours share a room with."""
        push = content.get("push")
        for said in push[:MAX_PUSHED] if isinstance(push, list) else ():
            if isinstance(said, Mapping):
                self._receive(tx, origin, said)

    def _receive(self, tx: Tx, origin: ServerName, said: Mapping[str, Json]) -> None:
        name, word, status = said.get("user_id"), said.get("presence"), said.get("status_msg")
        state = WORDS.get(word) if isinstance(word, str) else None
        if not isinstance(name, str) or state is None:
            return
        try:
            user_id = parse_user_id(name)
        except InvalidIdentifier:
            return
        user = names.user_nid(tx, user_id)
        if server_of(user_id) != origin or origin == self.own or user is None:
            return
        if not presence.seen_in(tx, user):
            return
        ago_ms = said.get("last_active_ago")
        person = self._people.pop(user_id, None) or self._person(user_id)
        self._people[user_id] = person  # heard of last
        person.told_at = trio.current_time()
        if type(ago_ms) is int and 0 <= ago_ms < 2**53:
            person.active_ms = max(0, self.clock.now_ms() - ago_ms)
        if said.get("currently_active") is True:
            person.active_ms = self.clock.now_ms()
        text = status[:MAX_STATUS] if isinstance(status, str) else None
        self._change(user_id, person, state, text)

    # --- telling

    def content(self, user: UserId) -> dict[str, Json]:
        """How a user is, as clients are told."""
        person = self._people.get(user)
        if person is None:
            return {"presence": State.OFFLINE.word}
        found: dict[str, Json] = {"presence": person.state.word}
        if person.active_ms:
            found["last_active_ago"] = self._ago_ms(person)
        if person.state is State.ONLINE:
            found["currently_active"] = self._ago_ms(person) < ACTIVE_S * 1000
        if person.status is not None:
            found["status_msg"] = person.status
        return found

    def pushed(self, users: Sequence[UserId]) -> list[Json]:
        """How users of ours are, as other servers are told."""
        found: list[Json] = []
        for user in users:
            if user in self._people:
                content = {"last_active_ago": 0, **self.content(user)}
                found.append({"user_id": user, **content})
        return found

    def any_changed_since(self, serial: int) -> bool:
        """Whether anybody is otherwise than at a serial number."""
        return next(reversed(self._serials.values()), 0) > serial

    def changed_since(
        self,
        tx: Tx,
        viewer: UserNid,
        viewer_id: UserId,
        serial: int,
        until: int,
        met: Collection[UserId] = (),
    ) -> list[Mapping[str, Json]]:
        """The events of those who changed in (serial, until] and share a room with a user of ours,
        and of the user; everybody but who is offline for serial 0.  Of those whom the user has
        met since, everybody but who is offline too."""
        found: dict[UserId, Mapping[str, Json]] = {}

        def add(user_id: UserId) -> None:
            if user_id not in found and self.may_see(tx, viewer, viewer_id, user_id):
                content = self.content(user_id)
                found[user_id] = {"type": "m.presence", "sender": user_id, "content": content}

        for user_id, changed in reversed(self._serials.items()):
            if changed <= serial or len(found) >= MAX_SHOWN:
                break
            is_gone = self._people[user_id].state is State.OFFLINE
            if changed <= until and (serial or not is_gone):
                add(user_id)
        for user_id in met:
            person = self._people.get(user_id)
            if person and person.state is not State.OFFLINE and len(found) < MAX_SHOWN:
                add(user_id)
        return [*found.values()][::-1]

    def may_see(self, tx: Tx, viewer: UserNid, viewer_id: UserId, user_id: UserId) -> bool:
        """Whether a user of ours may know how somebody is: who shares a room may."""
        if user_id == viewer_id:
            return True
        user = names.user_nid(tx, user_id)
        return user is not None and members.share_room(tx, viewer, user)

    def _show(self, users: Sequence[UserId]) -> None:
        """Give changes a serial number, and wake the syncs that show them."""
        keys: set[Key] = set()
        for user_id in users:
            if user_id not in self._people:
                continue
            self.typing.serial += 1
            self._serials.pop(user_id, None)
            self._serials[user_id] = self.typing.serial
            keys.update(self.store.read(_listeners, user_id))
        self.typing.doorbell.nudge(keys)

    # --- as time goes by

    async def run(self) -> None:
        """See who falls idle or goes, show what other servers tell, and write it down."""
        if not self._people:
            self.load()
        stored_at = others_at = trio.current_time()
        try:
            while True:
                some = bool(self._to_show or self._to_store or self._anybody_there())
                with trio.move_on_after(_LOOK_EVERY_S if some else float("inf")):
                    await self._news.wait()
                self._news = trio.Event()
                if self._to_show:
                    await trio.sleep(_GATHER_S)
                now = trio.current_time()
                self._look(now)
                if now - others_at >= _OTHERS_EVERY_S:
                    others_at = now
                    self._look_at_others(now)
                shown, self._to_show = [*self._to_show], {}
                self._show(shown)
                if now - stored_at >= _STORE_EVERY_S:
                    stored_at = now
                    await self._write_down()
        finally:
            with trio.move_on_after(5) as scope:
                scope.shield = True
                await self._write_down()

    def _anybody_there(self) -> bool:
        return any(person.state is not State.OFFLINE for person in self._people.values())

    def _look(self, now: float) -> None:
        """Who of our users falls idle, who is gone."""
        for user, person in [*self._ours.items()]:
            state = person.state
            if state is State.OFFLINE:
                continue
            if not person.syncs and now - person.synced_at >= OFFLINE_S:
                person.chosen = False
                state = State.OFFLINE
            elif state is State.ONLINE and self._ago_ms(person) >= IDLE_S * 1000:
                state = State.UNAVAILABLE
            self._change(user, person, state, person.status)
            if state is not State.OFFLINE and now - person.told_at >= SAY_AGAIN_S:
                self._tell(user, person)

    def _look_at_others(self, now: float) -> None:
        """Whose server has fallen silent."""
        for user, person in [*self._people.items()]:
            silent = user not in self._ours and now - person.told_at >= SILENT_S
            if silent and person.state is not State.OFFLINE:
                self._change(user, person, State.OFFLINE, person.status)

    async def _write_down(self) -> None:
        while self._to_store:
            some = [*self._to_store][:200]
            for user in some:
                del self._to_store[user]
            await self.store.write(self._store, some)

    def _store(self, tx: Tx, users: Sequence[UserId]) -> None:
        kept, gone = [], []
        for user in users:
            person = self._people.get(user)
            is_gone = person is not None and person.state is State.OFFLINE
            if person is None or (is_gone and user not in self._ours):
                gone.append(user)
            else:
                kept.append(Row(user, person.state, person.status, person.active_ms))
        presence.put(tx, kept)
        presence.drop(tx, gone)


def _listeners(tx: Tx, user_id: UserId) -> set[Key]:
    """What the syncs listen to that show a user."""
    user = names.user_nid(tx, user_id)
    if user is None:
        return set()
    return {user_key(user), *map(receipts_key, presence.seen_in(tx, user))}
