"""Plays the stories on a server in this process, and notes what happened in its rooms.

What is noted are the events as they are stored, in the order of arrival, with what the test itself
did to them; what readers are shown meanwhile by `/sync` is kept for later.
"""

from __future__ import annotations

import itertools
import json
from typing import Any
from unittest.mock import patch

import trio
from attrs import define, field

from matrixbox.core.events import parse_event
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import hash_and_sign_event
from matrixbox.federation.transport import Request
from matrixbox.rooms import create
from matrixbox.store import events, joins, names
from tests.federation.towns import Account, Country, FakeServer, Town
from tests.sim.network import call
from tests.visibility.far import FarRoom, membership_pdu
from tests.visibility.oracle import GUEST_ACCESS, Fate, Happening, State
from tests.visibility.pushed import Pushed
from tests.visibility.site import Attempt, Glimpse, Got, Site, found_mark, q, words
from tests.visibility.story import (
    ABSENT,
    CLOSED_OUT,
    CREATOR,
    EXILE,
    GUESTS,
    KNOCKING,
    OPEN,
    READERS,
    SERVERS,
    STRETCHES,
    Story,
)

CLIENT = "/_matrix/client"
V1 = "/_matrix/federation/v1"
SLIDING = {
    "unstable": "/unstable/org.matrix.simplified_msc3575/sync",
    "v4": "/v4/sync",
}
EVERYTHING = {
    "unstable": {"timeline_limit": 100, "required_state": [["*", "*"]]},
    "v4": {"timeline_limit": 100, "required_state": {"include": [{}]}},
}
LAZY = {
    "unstable": {
        "timeline_limit": 100,
        "required_state": [["*", "*"], ["m.room.member", "$LAZY"]],
    },
    "v4": {"timeline_limit": 100, "required_state": {"include": [{}], "lazy_members": True}},
}
EXTENSIONS = {name: {"enabled": True} for name in ("account_data", "receipts", "typing")}


@define(eq=False)
class World:
    """The server, everybody, and all rooms."""

    land: Country
    town: Town
    ann: Account
    pest: Account
    readers: dict[str, Account] = field(factory=dict)
    servers: dict[str, FakeServer] = field(factory=dict)
    sites: list[Site] = field(factory=list)
    rooms: list[FarRoom] = field(factory=list)
    glimpses: list[Glimpse] = field(factory=list)
    gateway: Pushed = field(factory=Pushed)
    _marks: itertools.count[int] = field(factory=lambda: itertools.count(1))
    _tokens: dict[tuple[str, str], str | None] = field(factory=dict)

    # --- asking

    async def ask(
        self, who: Account | None, method: str, target: str, body: Any = None, **query: str
    ) -> Got:
        """A client's request."""
        text = "&".join(f"{name}={q(value)}" for name, value in query.items())
        path = f"{CLIENT}{target}" + (f"?{text}" if text else "")
        headers = () if who is None else (("authorization", f"Bearer {who.token}"),)
        data = b"" if body is None else json.dumps(body).encode()
        asked = Request(method, path, headers, data)
        app = self.town._app
        answer = await call(app, asked, host=self.town.name, address="192.168.0.2")
        return Got(answer.status, answer.body.decode())

    async def do(
        self, who: Account, method: str, target: str, body: Any = None, **query: str
    ) -> Any:
        """A client's request that is granted."""
        self.land.clock.step(1_000)
        got = await self.ask(who, method, target, body, **query)
        assert got.status == 200, (method, target, got)
        return got.json

    def mark(self) -> str:
        """A word that stands nowhere else."""
        return f"mk{next(self._marks):06}k"

    # --- what people do

    async def put_state(self, site: Site, kind: str, content: Any, key: str = "") -> str:
        """State of the creator's; the event's id."""
        path = f"/v3/rooms/{q(site.room_id)}/state/{kind}/{q(key)}"
        found = await self.do(self.ann, "PUT", path, content or {"mark": self.mark()})
        return str(found["event_id"])

    async def send(
        self,
        who: Account,
        site: Site,
        relates: Any = None,
        kind: str = "m.room.message",
        **more: Any,
    ) -> str:
        """A message; the event's id."""
        content = {"msgtype": "m.text", "body": f"hello {self.mark()}", **more}
        if relates is not None:
            content["m.relates_to"] = relates
        path = f"/v3/rooms/{q(site.room_id)}/send/{kind}/{self.mark()}"
        return str((await self.do(who, "PUT", path, content))["event_id"])

    async def move(self, site: Site, name: str, what: str) -> None:
        """Something that a reader of the household does, or has done to him."""
        who = self.readers[name]
        room = f"/v3/rooms/{q(site.room_id)}"
        if what == "forget":
            await self.note(site)
            site.forgotten[who.user_id] = len(site.happenings) - 1
            await self.do(who, "POST", f"{room}/forget", {})
        elif name in GUESTS and what in ("join", "leave"):
            await self._move_guest(site, name, what)
        elif what in ("join", "leave"):
            await self.do(who, "POST", f"{room}/{what}", {"reason": self.mark()})
        elif what == "knock":
            path = f"/v3/knock/{q(site.room_id)}"
            await self.do(who, "POST", path, {"reason": self.mark()})
        else:
            body = {"user_id": who.user_id, "reason": self.mark()}
            await self.do(self.ann, "POST", f"{room}/{what}", body)

    async def _move_guest(self, site: Site, name: str, what: str) -> None:
        """Who is a guest tries to come in, and leaves where he is."""
        who, path = self.readers[name], f"/v3/rooms/{q(site.room_id)}/{what}"
        await self.note(site)
        if what == "join":
            self.land.clock.step(1_000)
            got = await self.ask(who, "POST", path, {"reason": self.mark()})
            site.attempts.append(Attempt(name, len(site.happenings) - 1, got))
        elif site.tale.is_joined(who.user_id):
            await self.do(who, "POST", path, {"reason": self.mark()})

    async def _let_guests(self, site: Site, value: object) -> None:
        """Open or close the room to guests, and wait until those inside are gone."""
        content = {"guest_access": value, "mark": self.mark()}
        await self.put_state(site, GUEST_ACCESS, content)
        guests = [self.readers[name].user_id for name in GUESTS]
        with trio.move_on_after(1):  # who is not put out is found later
            await self.note(site)
            while value != OPEN and any(map(site.tale.is_joined, guests)):
                await trio.sleep(0.005)
                await self.note(site)

    async def come_back(self, site: Site) -> None:
        """Who was banned from another server's room tries to come in."""
        await self.note(site)
        got = await self.ask(self.readers[EXILE], "POST", f"/v3/join/{q(site.room_id)}", {})
        site.attempts.append(Attempt(EXILE, len(site.happenings) - 1, got))

    async def move_far(self, site: Site, server: str, localpart: str, what: str) -> None:
        """The same of a user of another server."""
        user, far = f"@{localpart}:{server}", self.servers[server]
        if what not in ("join", "leave"):
            body = {"user_id": user, "reason": self.mark()}
            await self.do(self.ann, "POST", f"/v3/rooms/{q(site.room_id)}/{what}", body)
            return
        self.land.clock.step(1_000)
        rules = ROOM_VERSIONS[site.story.version]
        room = q(site.room_id)
        if site.story.is_far:  # our server cannot let anybody in yet: somebody else has
            await self.note(site)
            made = membership_pdu(site, user, what, reason=self.mark())
            await self._hand_in(far, hash_and_sign_event(rules, made, far.name, far.key))
            return
        target = f"{V1}/make_{what}/{room}/{q(user)}?ver={site.story.version}"
        status, made = await far.call(self.town, "GET", target)
        assert status == 200, (target, made)
        template = dict(made["event"])
        template["content"] = {**template["content"], "reason": self.mark()}
        pdu = hash_and_sign_event(rules, template, far.name, far.key)
        event_id = parse_event(rules, pdu).event_id
        target = f"/_matrix/federation/v2/send_{what}/{room}/{q(event_id)}"
        status, answer = await far.call(self.town, "PUT", target, pdu)
        assert status == 200, answer

    async def send_far(
        self, site: Site, server: str, parent: int, kind: str, content: Any, **more: Any
    ) -> str:
        """An event of another server that cites an old one; its id."""
        self.land.clock.step(1_000)
        await self.note(site)
        far, rules = self.servers[server], ROOM_VERSIONS[site.story.version]
        sender = f"@bo:{server}"
        state: State = site.tale.after(site.happenings[parent])
        keys = [("m.room.power_levels", ""), ("m.room.member", sender)]
        if not rules.room_id_is_create_hash:
            keys.insert(0, ("m.room.create", ""))
        pdu = {
            "type": kind,
            "room_id": site.room_id,
            "sender": sender,
            "content": {"body": self.mark(), "msgtype": "m.text", **content},
            "origin_server_ts": self.land.clock.now_ms(),
            "depth": 200,
            "prev_events": [site.happenings[parent].event_id],
            "auth_events": [site.happenings[state[key]].event_id for key in keys],
            **more,
        }
        signed = hash_and_sign_event(rules, pdu, far.name, far.key)
        event_id = str(parse_event(rules, signed).event_id)
        await self._hand_in(far, signed)
        return event_id

    async def _hand_in(self, far: FakeServer, pdu: Any) -> None:
        body = {"origin": far.name, "origin_server_ts": self.land.clock.now_ms(), "pdus": [pdu]}
        status, answer = await far.call(self.town, "PUT", f"{V1}/send/{self.mark()}", body)
        assert status == 200, answer

    # --- what is noted

    async def note(self, site: Site) -> None:
        """Add to a room's tale what is new."""
        known = {one.event_id: one.number for one in site.happenings}
        first, last = (0, -(2**53)), (2**62, 0)

        def read(tx: Any) -> list[Any]:
            room = names.room_nid(tx, site.room_id)  # type: ignore[arg-type]
            assert room is not None
            found = [events.by_nid(tx, nid) for nid in events.after(tx, room, first, last, 10**6)]
            hidden = [events.by_id(tx, event_id) for event_id in site.fates]  # type: ignore[arg-type]
            return found + [one for one in hidden if one is not None]

        for stored in self.town.store.read(read):
            event = stored.event
            if event.event_id in known:
                continue
            number = len(site.happenings)
            content = json.loads(json.dumps(event.json["content"], default=dict))
            if event.redacts is not None:
                content["redacts"] = event.redacts
            known[event.event_id] = number
            site.happenings.append(
                Happening(
                    number,
                    event.event_id,
                    event.type,
                    event.state_key,
                    event.sender,
                    content,
                    event.origin_server_ts,
                    tuple(known[one] for one in event.prev_event_ids),
                    found_mark(event),
                    site.fates.get(event.event_id, Fate.ACCEPTED),
                )
            )

    # --- the stories

    async def begin_far(self, story: Story) -> Site:
        """Come into a room of another server without its members."""
        far = self.land.fake(f"far{len(self.rooms)}.test")
        room = FarRoom(far, story.version, player=self)
        room.furnish(story, self.readers[EXILE].user_id)
        room.open()
        site = Site(story, room.room_id, room.happenings(), before=len(room.events))
        site.is_partial = True
        path = f"/v3/join/{q(room.room_id)}"
        await self.do(self.ann, "POST", path, {}, server_name=far.name)
        await self.note(site)
        room.site = site
        self.sites.append(site)
        self.rooms.append(room)
        await self.do(self.pest, "POST", path, {})
        return site

    async def make_whole(self) -> None:
        """Let the other servers tell who is in their rooms, and wait until it is known."""
        for room in self.rooms:
            room.may_tell.set()
        for site in self.sites:

            def is_partial(tx: Any, room_id: Any = site.room_id) -> bool:
                room = names.room_nid(tx, room_id)
                return room is None or joins.partial(tx, room) is not None

            with trio.fail_after(60):
                while self.town.store.read(is_partial):
                    await trio.sleep(0.01)
            site.is_partial = False

    async def begin(self, story: Story) -> Site:
        """Make a room."""
        if story.is_far:
            return await self.begin_far(story)
        state = [
            {"type": "m.room.join_rules", "content": {"join_rule": "public", "mark": self.mark()}}
        ]
        if story.visibility != ABSENT:
            content = {"history_visibility": story.visibility, "mark": self.mark()}
            state.append({"type": "m.room.history_visibility", "content": content})
        if 0 in story.guests:
            content = {"guest_access": story.guests[0], "mark": self.mark()}
            state.append({"type": GUEST_ACCESS, "content": content})
        body = {
            "preset": "private_chat",
            "room_version": story.version,
            "name": f"name {self.mark()}",
            "initial_state": state,
            "power_level_content_override": {"invite": 50, "notifications": {"room": 50}},
            "creation_content": {"mark": self.mark()},
        }
        presets = {name: (rule, "forbidden", "forbidden") for name, (rule, _, _) in _PRESETS}
        with patch.object(create, "PRESETS", presets):
            made = await self.do(self.ann, "POST", "/v3/createRoom", body)
        site = Site(story, str(made["room_id"]))
        self.sites.append(site)
        await self.do(self.pest, "POST", f"/v3/rooms/{q(site.room_id)}/join", {})
        return site

    async def stretch(self, site: Site, number: int) -> None:
        """Let one stretch of time pass in a room."""
        story = site.story
        if number and number in story.guests:
            await self._let_guests(site, story.guests[number])
        if number == KNOCKING and story.has_knocking:
            await self.put_state(
                site, "m.room.join_rules", {"join_rule": "knock", "mark": self.mark()}
            )
            for name, moves in READERS.items():
                if "knock" in story.moves(moves, number):
                    await self.move(site, name, "knock")
            await self.put_state(
                site, "m.room.join_rules", {"join_rule": "public", "mark": self.mark()}
            )
        for name, moves in READERS.items():
            for what in story.moves(moves, number):
                if what != "knock":
                    await self.move(site, name, what)
        for server, users in SERVERS.items():
            for localpart, moves in users.items():
                for what in moves.get(number, ()):
                    await self.move_far(site, server, localpart, what)
        if site.story.is_far and number == 4:
            await self.come_back(site)
        if number == CLOSED_OUT:
            acl = {"allow": ["*"], "deny": ["closed.test"], "mark": self.mark()}
            await self.put_state(site, "m.room.server_acl", acl)
        await self._talk(site, number)
        if number in story.changes:
            content = {"history_visibility": story.changes[number], "mark": self.mark()}
            await self.put_state(site, "m.room.history_visibility", content)
        await self.send(self.pest, site)
        await self.send(self.ann, site, **{"m.mentions": {"room": True}})
        if number == STRETCHES - 1:
            await self.put_state(
                site, "m.room.join_rules", {"join_rule": story.door, "mark": self.mark()}
            )
            await self.send(self.ann, site)
        await self.note(site)
        site.ends.append(len(site.happenings))

    async def _talk(self, site: Site, number: int) -> None:
        """What is said in a stretch: state, relations, redactions, and events from elsewhere."""
        named, ann = site.named, self.ann
        await self.put_state(site, "m.room.topic", {"topic": f"topic {self.mark()}"})
        await self.put_state(site, "net.example.note", {}, "key")
        if number % 3 == 1:
            content = {"membership": "join", "displayname": f"Ann {self.mark()}"}
            await self.put_state(site, "m.room.member", content, CREATOR)
        if number == 0:
            named["root"] = await self.send(ann, site)
            named["edited"] = await self.send(ann, site)
        reply = {"rel_type": "m.thread", "event_id": named["root"]}
        named[f"reply{number}"] = await self.send(ann if number % 2 else self.pest, site, reply)
        reference = {"rel_type": "m.reference", "event_id": named["root"]}
        await self.send(ann, site, reference)
        mark = self.mark()
        edit = {"rel_type": "m.replace", "event_id": named["edited"]}
        new = {"m.new_content": {"msgtype": "m.text", "body": f"edit {mark}"}}
        await self.send(ann, site, edit, body=f"* edit {mark}", **new)
        liked = {"rel_type": "m.annotation", "event_id": named[f"reply{number}"], "key": "+"}
        await self.send(ann, site, liked, kind="m.reaction")
        if number == 2:
            named["gone"] = await self.send(ann, site)
            named["gone_state"] = await self.put_state(site, "net.example.gone", {}, "key")
        if number == 4:
            await self.note(site)
            named["fork"] = site.happenings[-1].event_id
        if number == 5:
            for name in ("gone", "gone_state"):
                path = f"/v3/rooms/{q(site.room_id)}/redact/{q(named[name])}/{self.mark()}"
                await self.do(ann, "PUT", path, {"reason": f"because {self.mark()}"})
            await self._from_elsewhere(site)

    async def _from_elsewhere(self, site: Site) -> None:
        """Events that cite old ones: good, of a user put out since, without the right."""
        parent = site.number(site.named["fork"])
        late = await self.send_far(site, "resident.test", parent, "m.room.message", {})
        site.named["late"] = late
        soft = await self.send_far(site, "kicked.test", parent, "m.room.message", {})
        site.fates[soft] = Fate.SOFT_FAILED
        content = {"topic": "mine"}
        wrong = await self.send_far(
            site, "resident.test", parent, "m.room.topic", content, state_key=""
        )
        site.fates[wrong] = Fate.REJECTED
        site.named |= {"soft": soft, "wrong": wrong}

    async def look(self, stretch: int) -> None:
        """Everybody syncs, from where he was."""
        for name, who in self.readers.items():
            old = self._tokens.get((name, "v3"))
            query = {} if old is None else {"since": old}
            wanted: dict[str, Any] = {"timeline": {"limit": 100}}
            if self.rooms:
                wanted["state"] = {"lazy_load_members": True}
            content = json.dumps({"room": wanted})
            got = await self.ask(who, "GET", "/v3/sync", filter=content, **query)
            assert got.status == 200, got
            self._tokens[name, "v3"] = token = got.json["next_batch"]
            self.glimpses.append(Glimpse(name, "v3", stretch, got, token))
            for form in SLIDING:
                old = self._tokens.get((name, form))
                got = await self.slide(who, form, old, f"live {form}")
                self._tokens[name, form] = got.json["pos"]
                self.glimpses.append(Glimpse(name, form, stretch, got, None))

    async def slide(
        self, who: Account, form: str, pos: str | None, connection: str, **more: Any
    ) -> Got:
        """Sliding sync of all rooms."""
        wanted = LAZY[form] if any(one.is_partial for one in self.sites) else EVERYTHING[form]
        lists = {"all": {**wanted, "ranges": [[0, 99]]} if form == "unstable" else wanted}
        if form != "unstable":
            lists = {"all": {**wanted, "range": [0, 99]}}
        body = {"conn_id": connection, "lists": lists, "extensions": EXTENSIONS, **more}
        query: dict[str, str] = {}
        if pos is not None:
            query, body = ({"pos": pos}, body) if form == "unstable" else ({}, {**body, "pos": pos})
        got = await self.ask(who, "POST", SLIDING[form], body, **query)
        assert got.status == 200, got
        return got

    async def finish(self) -> None:
        """What is left when all stories are at their end: receipts, and somebody who types."""
        founder = self.readers["founder"]
        for site in self.sites:
            room, last = q(site.room_id), q(site.happenings[-1].event_id)
            await self.do(founder, "POST", f"/v3/rooms/{room}/receipt/m.read.private/{last}", {})
            await self.do(self.ann, "POST", f"/v3/rooms/{room}/receipt/m.read/{last}", {})
            path = f"/v3/rooms/{room}/typing/{q(CREATOR)}"
            await self.do(self.ann, "PUT", path, {"typing": True, "timeout": 600_000})


_PRESETS = tuple(create.PRESETS.items())


__all__ = ["Account", "Got", "Site", "World", "q", "words"]
