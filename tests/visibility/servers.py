"""What other servers can ask about a room, and what they are sent of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from attrs import define

from matrixbox.core.events import parse_event
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.visibility.cells import Look, adding_to, name_of
from tests.visibility.oracle import HISTORY, MEMBER, Fate, Happening, May
from tests.visibility.story import CLOSED_OUT, HOME, SERVERS
from tests.visibility.world import V1, Got, q, words


@define(eq=False)
class Asking(Look):
    """A server looking into a room through an endpoint."""

    @property
    def users(self) -> list[str]:
        """The server's users."""
        return [f"@{name}:{self.reader}" for name in SERVERS[self.reader]]

    @property
    def is_shut_out(self) -> bool:
        """Whether the room's access control list denies it."""
        return self.reader == "closed.test"

    @property
    def is_in(self) -> bool:
        """Whether a user of it is in the room."""
        return any(self.tale.is_joined(user) for user in self.users)

    @property
    def reads(self) -> bool:
        """Whether it is told of the room when it asks."""
        return self.is_in and not self.is_shut_out

    def may(self, one: Happening) -> May:
        """Whether it is shown an event whole: what one of its users may see; and where all may
        read, "any participating homeserver" may share it."""
        if one.fate is Fate.REJECTED or self.is_shut_out:
            return May.NO
        if one.fate is Fate.SOFT_FAILED:
            return May.PERHAPS
        found = {self.tale.may(user, one) for user in [*self.users, f"@nobody:{self.reader}"]}
        best = next(may for may in (May.YES, May.PERHAPS, May.NO) if may in found)
        if best is May.NO and self._shared(one):
            best = May.YES
        if best is May.NO and self.is_in and one.key is not None and one.number < self.site.before:
            return May.PERHAPS  # in the auth chain of the state
        return self.as_known(one, best)

    def hole(self, what: str) -> None:
        """Who was there before us is unknown for now, and so is what may be shown to them."""
        if not self.site.is_partial or self.reader != "here.test":
            super().hole(what)

    def _shared(self, one: Happening) -> bool:
        """One user of it that is in the room reads all that is shared."""
        return False if not self.is_in else self.tale.setting(self.tale.before(one)) == "shared"

    def was_in(self, one: Happening) -> bool:
        """Whether a user of it was in the room before an event."""
        state = self.tale.before(one)
        return any(self.tale.membership(state, user) == "join" for user in self.users)

    async def call(self, method: str, target: str, body: Any = None) -> Got:
        """Ask as the server."""
        far = self.world.servers[self.reader]
        status, found = await far.call(self.world.town, method, target, body)
        if status >= 500:
            self.hole(f"{target}: {status}")
        return Got(status, json.dumps(found))

    def pdus(self, found: Iterable[Any], wanted: Iterable[Happening] = ()) -> set[str]:
        """Compare events with what must be there; what may not be seen is there redacted."""
        shown: set[str] = set()
        rules = ROOM_VERSIONS[self.site.story.version]
        for pdu in found:
            event_id = parse_event(rules, pdu).event_id
            one = self.tale.by_id.get(event_id)
            shown.add(event_id)
            if one is None:
                self.leak(f"{event_id} of elsewhere")
            elif one.fate is Fate.REJECTED:
                self.leak(name_of(one))
            elif words(json.dumps(pdu["content"])) and (
                self.may(one) is May.NO or self.tale.is_redacted(one)
            ):
                self.leak(f"the content of {name_of(one)}")
            elif (
                self.may(one) is May.YES
                and one.mark is not None
                and not self.tale.is_redacted(one)
                and one.mark not in json.dumps(pdu)
            ):
                self.hole(f"{name_of(one)} lacks its content")
        for one in wanted:
            if one.event_id not in shown:
                self.hole(name_of(one))
        return shown


ServerCell = Callable[[Asking], Awaitable[None]]
CELLS: dict[str, ServerCell] = {}
cell = adding_to(CELLS)


def _special(ask: Asking) -> list[Happening]:
    """Events that have a part to play, and the settings of visibility."""
    named = [ask.tale.by_id[event_id] for event_id in ask.site.named.values()]
    return [*named, *(one for one in ask.tale.happenings if one.type == HISTORY)]


@cell("federation event")
async def _(ask: Asking) -> None:
    for one in [*ask.tale.happenings[::5], *_chosen(ask), *_special(ask)]:
        got = await ask.call("GET", f"{V1}/event/{q(one.event_id)}")
        if got.status == 200:
            if not ask.is_in and ask.may(one) is May.NO:
                ask.leak(name_of(one))
            ask.pdus(got.json["pdus"])
        else:
            ask.must(ask.may(one) is not May.YES, f"{name_of(one)}: {got.status}")


@cell("federation hidden events")
async def _(ask: Asking) -> None:
    one = ask.tale.by_id[ask.site.named["wrong"]]
    got = await ask.call("GET", f"{V1}/event/{q(one.event_id)}")
    ask.refused(got)


def _chosen(ask: Asking) -> list[Happening]:
    """Some events of each stretch, and those about the server's users."""
    mine = [one for user in ask.users for one in ask.tale.moves(user)]
    ends = [ask.tale.happenings[end - 1] for end in ask.site.ends]
    return [*mine, *(one for one in ends if one.fate is Fate.ACCEPTED)]


def _state_ids(ask: Asking, one: Happening) -> set[str]:
    return {ask.tale.happenings[number].event_id for number in ask.tale.before(one).values()}


def _may_have_state(ask: Asking, one: Happening) -> May:
    if ask.is_shut_out:
        return May.NO
    if ask.is_in:
        is_known = one.number >= ask.site.before and not ask.site.is_partial
        return May.YES if is_known else May.PERHAPS
    return May.PERHAPS if ask.was_in(one) else May.NO


@cell("federation state_ids")
async def _(ask: Asking) -> None:
    for one in _chosen(ask):
        got = await ask.call("GET", f"{V1}/state_ids/{ask.room}?event_id={q(one.event_id)}")
        allowed = _may_have_state(ask, one)
        if allowed is May.NO:
            ask.refused(got)
        elif got.status != 200:
            ask.must(allowed is May.PERHAPS, f"{name_of(one)}: {got.status}")
        else:
            shown = set(got.json["pdu_ids"])
            ask.must(shown == _state_ids(ask, one), f"the state before {name_of(one)}")


@cell("federation state")
async def _(ask: Asking) -> None:
    for one in _chosen(ask)[::3]:
        got = await ask.call("GET", f"{V1}/state/{ask.room}?event_id={q(one.event_id)}")
        allowed = _may_have_state(ask, one)
        if allowed is May.NO:
            ask.refused(got)
        elif got.status != 200:
            ask.must(allowed is May.PERHAPS, f"{name_of(one)}: {got.status}")
        else:
            _whole_state(ask, one, got)


def _whole_state(ask: Asking, one: Happening, got: Got) -> None:
    rules = ROOM_VERSIONS[ask.site.story.version]
    shown = {parse_event(rules, pdu).event_id for pdu in got.json["pdus"]}
    ask.must(shown == _state_ids(ask, one), f"the state before {name_of(one)}")
    allowed = ask.tale.marks(range(one.number))
    for word in words(got.text) - allowed:
        ask.leak(f"{word} in the state before {name_of(one)}")


@cell("federation event_auth")
async def _(ask: Asking) -> None:
    for one in _chosen(ask)[::2]:
        got = await ask.call("GET", f"{V1}/event_auth/{ask.room}/{q(one.event_id)}")
        allowed = _may_have_state(ask, one)
        if allowed is May.NO:
            ask.refused(got)
        elif got.status != 200:
            ask.must(allowed is May.PERHAPS, f"{name_of(one)}: {got.status}")
        else:
            kinds = {pdu["type"] for pdu in got.json["auth_chain"]}
            known = {"m.room.create", "m.room.power_levels", "m.room.join_rules", MEMBER}
            for kind in kinds - known:
                ask.leak(f"{kind} in an auth chain")


@cell("federation backfill")
async def _(ask: Asking) -> None:
    last = [one for one in ask.tale.happenings if one.fate is Fate.ACCEPTED][-1]
    early = ask.tale.happenings[ask.site.ends[3] - 1]
    for one, limit in ((last, 100), (early, 100), (last, 5)):
        target = f"{V1}/backfill/{ask.room}?v={q(one.event_id)}&limit={limit}"
        got = await ask.call("GET", target)
        if not ask.reads:
            ask.refused(got)
        elif got.status != 200:
            ask.hole(f"backfill: {got.status}")
        else:
            found = got.json["pdus"]
            ask.pdus(found, [one])
            most = one.number + 1 - ask.site.before
            ask.must(len(found) == min(limit, most), f"{len(found)} events")


@cell("federation backfill of hidden events")
async def _(ask: Asking) -> None:
    named = ask.site.named
    target = f"{V1}/backfill/{ask.room}?v={q(named['soft'])}&v={q(named['wrong'])}&limit=20"
    got = await ask.call("GET", target)
    if not ask.reads:
        ask.refused(got)
    elif got.status == 200:
        ask.pdus(got.json["pdus"])


@cell("federation get_missing_events")
async def _(ask: Asking) -> None:
    for end in ask.site.ends:
        one = ask.tale.happenings[end - 1]
        if one.fate is not Fate.ACCEPTED:
            continue
        body = {"earliest_events": [], "latest_events": [one.event_id], "limit": 20}
        got = await ask.call("POST", f"{V1}/get_missing_events/{ask.room}", body)
        if not ask.reads:
            ask.refused(got)
        elif got.status != 200:
            ask.hole(f"get_missing_events: {got.status}")
        else:
            found = got.json["events"]
            previous = [ask.tale.happenings[number] for number in one.previous]
            ask.pdus(found, [one for one in previous if one.fate is Fate.ACCEPTED])


@cell("federation timestamp")
async def _(ask: Asking) -> None:
    happenings = ask.tale.happenings
    for ts in (0, *(one.ts for one in happenings[:: len(happenings) // 5]), 2**52):
        for way in "fb":
            target = f"{V1}/timestamp_to_event/{ask.room}?ts={ts}&dir={way}"
            got = await ask.call("GET", target)
            if not ask.reads:
                ask.refused(got)
                continue
            there = [one for one in ask.visible() if (one.ts >= ts if way == "f" else one.ts <= ts)]
            if got.status != 200:
                ask.must(not there, f"{way} of {ts}: {got.status}")
                continue
            found = ask.tale.by_id[got.json["event_id"]]
            if ask.may(found) is May.NO:
                ask.leak(name_of(found))
            elif there and ask.may(found) is May.YES:
                best = min(there, key=lambda one: abs(one.ts - ts))
                ask.must(best.ts == found.ts, f"{way} of {ts}: {name_of(found)}")


@cell("federation hierarchy")
async def _(ask: Asking) -> None:
    now = ask.tale.now
    door = ask.tale.happenings[now["m.room.join_rules", ""]].content["join_rule"]
    memberships = {ask.tale.membership(now, user) for user in ask.users}
    is_open = door in ("public", "knock") or memberships & {"join", "invite"} or ask.is_public
    got = await ask.call("GET", f"{V1}/hierarchy/{ask.room}")
    if is_open and not ask.is_shut_out:
        ask.must(got.status == 200, f"hierarchy: {got.status}")
    else:
        ask.refused(got)


@cell("federation event of another room")
async def _(ask: Asking) -> None:
    """The room of the path is the event's (T106)."""
    others = [site for site in ask.world.sites if site is not ask.site]
    for one in [one for other in others[:1] for one in other.happenings[1::40]]:
        event = q(one.event_id)
        body = {"earliest_events": [], "latest_events": [one.event_id]}
        ask.refused(await ask.call("GET", f"{V1}/state/{ask.room}?event_id={event}"))
        ask.refused(await ask.call("GET", f"{V1}/state_ids/{ask.room}?event_id={event}"))
        ask.refused(await ask.call("GET", f"{V1}/event_auth/{ask.room}/{event}"))
        ask.refused(await ask.call("GET", f"{V1}/backfill/{ask.room}?v={event}&limit=9"))
        got = await ask.call("POST", f"{V1}/get_missing_events/{ask.room}", body)
        if got.status == 200 and got.json["events"]:
            ask.leak(got.text[:100])


# --- what is sent


def _sent(ask: Asking) -> tuple[dict[str, Any], list[Any]]:
    """The PDUs of the room and all EDUs that the server was sent."""
    rules = ROOM_VERSIONS[ask.site.story.version]
    pdus: dict[str, Any] = {}
    edus: list[Any] = []
    for request in ask.world.servers[ask.reader].seen:
        if "/federation/v1/send/" not in request.target:
            continue
        body = json.loads(request.body)
        edus += body.get("edus", [])
        for pdu in body["pdus"]:
            create = pdu["type"] == "m.room.create"
            if pdu.get("room_id") == ask.site.room_id and not create:
                pdus[parse_event(rules, pdu).event_id] = pdu
    return pdus, edus


@cell("federation send")
async def _(ask: Asking) -> None:
    """Events go to the servers in the room, and the end of a stay to who is put out (T105)."""
    pdus, _ = _sent(ask)
    closed = ask.site.ends[CLOSED_OUT]
    for one in ask.tale.happenings:
        is_sent = one.event_id in pdus
        state = ask.tale.before(one)
        after = ask.tale.after(one)
        was_in = ask.was_in(one)
        is_in = any(ask.tale.membership(after, user) == "join" for user in ask.users)
        server = one.sender.partition(":")[2]
        if one.fate is not Fate.ACCEPTED:
            if is_sent:
                ask.leak(f"sent {name_of(one)}")
        elif server == ask.reader or (
            server != HOME and (one.type != MEMBER or ask.site.story.is_far)
        ):
            if is_sent and not (was_in or is_in):
                ask.leak(f"sent {name_of(one)}")
        elif ask.site.story.is_far and one.content.get("membership") == "join":
            if is_sent and not was_in:
                ask.leak(f"sent {name_of(one)}")  # otherwise the server that let him in sends it
        elif was_in and not (ask.is_shut_out and one.number >= closed - 30):
            ask.must(is_sent, f"sent {name_of(one)}")
        elif not was_in and is_sent:
            own = one.type == MEMBER and one.state_key in ask.users
            ended = own and ask.tale.membership(state, str(one.state_key)) in ("invite", "knock")
            if not ended and not own:
                ask.leak(f"sent {name_of(one)}")


@cell("federation edus")
async def _(ask: Asking) -> None:
    """Typing and public receipts go to who is in the room; private ones to nobody (T108)."""
    _, edus = _sent(ask)
    here = [one for one in edus if ask.site.room_id in json.dumps(one["content"])]
    if not ask.is_in:
        for one in here:
            ask.leak(f"sent {one['edu_type']}")
    for one in here:
        if "m.read.private" in json.dumps(one) or "@founder" in json.dumps(one["content"]):
            ask.leak(f"sent {json.dumps(one)[:100]}")
    if ask.is_in and not ask.is_shut_out:
        kinds = {one["edu_type"] for one in here}
        ask.must({"m.typing", "m.receipt"} <= kinds, f"EDUs: {kinds}")
