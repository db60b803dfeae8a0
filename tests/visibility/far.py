"""The same stories in rooms of another server, the members of which are not known here yet.

Matrix v1.19, Server-Server API, `send_join` with `omit_members` ([B8.05]).  A server made by hand
has the room, and members of whom it tells when it is let.  What the oracle goes by is all that is
so, whether our server knows of it or not: it may show less, and not more.
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

from attrs import define, field

from matrixbox.core.signing import hash_and_sign_event, sign_redacted
from matrixbox.federation.transport import Request
from tests.federation.test_joins_partial import LargeRoom
from tests.federation.towns import FakeServer
from tests.visibility.oracle import GUEST_ACCESS, HISTORY, MEMBER, Fate, Happening
from tests.visibility.site import Site, found_mark
from tests.visibility.story import ABSENT, CREATOR, GONE, HERE, Story


class Player(Protocol):
    """What is asked of the world that plays the stories."""

    servers: dict[str, FakeServer]

    def mark(self) -> str:
        """A word that stands nowhere else."""

    async def note(self, site: Site) -> None:
        """Add to a room's tale what is new."""


@define(eq=False)
class FarRoom(LargeRoom):
    """A room that is made by the story, and that lets users of ours in while it is partial."""

    player: Player = field(kw_only=True)
    site: Site | None = None

    def pdu(
        self, kind: str, content: Any, key: str | None = "", sender: str | None = None
    ) -> dict[str, Any]:
        """With a word in it."""
        return super().pdu(kind, {**content, "mark": self.player.mark()}, key, sender)

    def signed(self, pdu: dict[str, Any]) -> dict[str, Any]:
        """By the server of its sender."""
        name = pdu["sender"].partition(":")[2]
        far = self.player.servers.get(name, self.server)
        return hash_and_sign_event(self.rules, pdu, far.name, far.key)

    def furnish(self, story: Story, exile: str) -> None:
        """All that is in the room before somebody of ours comes."""
        users = {} if self.rules.privileged_creators else {self.creator: 100}
        levels = {"users": {**users, CREATOR: 100}, "invite": 50, "notifications": {"room": 50}}
        self.add("m.room.power_levels", levels)
        self.add("m.room.name", {"name": "far"})
        self.add("m.room.topic", {"topic": "of old"})
        if story.visibility != ABSENT:
            self.add(HISTORY, {"history_visibility": story.visibility})
        if 0 in story.guests:
            self.add(GUEST_ACCESS, {"guest_access": story.guests[0]})
        for user in (HERE, GONE):
            self.add(MEMBER, {"membership": "join"}, user)
        self.add("m.room.message", {"msgtype": "m.text", "body": "hello"}, None)
        self.add(MEMBER, {"membership": "leave"}, GONE)
        self.add(MEMBER, {"membership": "ban"}, exile, self.creator)
        self.add("m.room.message", {"msgtype": "m.text", "body": "hello again"}, None)

    def happenings(self) -> list[Happening]:
        """What the oracle is told of that time."""
        known = {one.event_id: number for number, one in enumerate(self.events)}
        return [
            Happening(
                number,
                one.event_id,
                one.type,
                one.state_key,
                one.sender,
                dict(one.json["content"]),
                one.origin_server_ts,
                tuple(known[parent] for parent in one.prev_event_ids),
                found_mark(one),
                Fate.ACCEPTED,
            )
            for number, one in enumerate(self.events)
        ]

    # --- who comes later

    def open(self) -> None:
        """Let users of ours in."""
        super().open()
        self.server.answers["make_join"] = self._template
        self.server.answers["send_join"] = self._take

    async def _template(self, request: Request, _: Any) -> Any:
        if self.site is None:
            return self.template(request, None)
        user = unquote(request.target.partition("?")[0].rpartition("/")[2])
        assert self.version in parse_qs(request.target.partition("?")[2])["ver"]
        await self.player.note(self.site)
        tale = self.site.tale
        membership = tale.membership(tale.now, user)
        door = tale.happenings[tale.now["m.room.join_rules", ""]].content["join_rule"]
        if membership == "ban" or (membership != "invite" and door != "public"):
            return 403, {"errcode": "M_FORBIDDEN", "error": "no"}
        return {"room_version": self.version, "event": membership_pdu(self.site, user, "join")}

    async def _take(self, request: Request, body: Any) -> Any:
        if self.joined is None:
            return self.answer(body)
        plain = [dict(one.json) for key, one in self.before.items() if key[0] != MEMBER]
        return {
            "state": plain,
            "auth_chain": [dict(one.json) for one in self.events],
            "event": sign_redacted(self.rules, body, self.server.name, self.server.key),
            "members_omitted": True,
            "servers_in_room": [self.server.name],
        }

    def answer(self, join: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The answer to the first join, after which the tale goes on at our server."""
        servers = [self.server.name, HERE.partition(":")[2]]
        return super().answer(join, servers_in_room=servers, **changes)


def membership_pdu(site: Site, user: str, membership: str, **more: Any) -> dict[str, Any]:
    """A membership at the end of the room, as far as the oracle knows it; not signed."""
    last = next(one for one in reversed(site.happenings) if one.fate is Fate.ACCEPTED)
    state = site.tale.after(last)
    keys = [("m.room.power_levels", ""), ("m.room.join_rules", ""), (MEMBER, user)]
    if int(site.story.version) < 12:
        keys.insert(0, ("m.room.create", ""))
    return {
        "type": MEMBER,
        "room_id": site.room_id,
        "sender": user,
        "state_key": user,
        "content": {"membership": membership, **more},
        "origin_server_ts": last.ts + 500,
        "depth": 100 + last.number,
        "prev_events": [last.event_id],
        "auth_events": [site.happenings[state[key]].event_id for key in keys if key in state],
    }
