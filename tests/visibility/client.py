"""What clients can ask about a room: one cell for each endpoint and way of asking."""

from __future__ import annotations

from typing import Any

from tests.visibility.cells import Cell, Look, adding_to, ids, name_of
from tests.visibility.oracle import HISTORY, MEMBER, Fate, Happening, May
from tests.visibility.story import STRETCHES
from tests.visibility.world import q

CELLS: dict[str, Cell] = {}
cell = adding_to(CELLS)
CONTEXTS = 4  # events whose surroundings are asked for


def asked_for(look: Look) -> list[Happening]:
    """The events that are asked for one by one: all but the memberships of others."""
    return [one for one in look.tale.happenings if one.type != MEMBER or one.state_key == look.user]


# --- history


async def _pages(look: Look, **query: str) -> None:
    shown: list[str] = []
    for _ in range(40):
        got = await look.ask("GET", f"/v3/rooms/{look.room}/messages", **query)
        if got.status != 200:
            look.must(not look.reads, f"history refused: {got.status}")
            return
        page = got.json
        shown += ids(page["chunk"])
        members = {one["event_id"] for one in page.get("state", [])}
        look.states(members, (), exactly=False)
        if "end" not in page:
            break
        query["from"] = page["end"]
    look.events(shown, look.visible() if look.reads else ())
    look.must(len(shown) == len(set(shown)), "events twice")


@cell("messages back")
async def _(look: Look) -> None:
    await _pages(look, dir="b", limit="50")


@cell("messages forth")
async def _(look: Look) -> None:
    await _pages(look, dir="f", limit="1000")


@cell("messages lazy")
async def _(look: Look) -> None:
    await _pages(look, dir="b", limit="7", filter='{"lazy_load_members":true}')


@cell("messages filtered")
async def _(look: Look) -> None:
    query = {"dir": "b", "limit": "500", "filter": f'{{"types":["{HISTORY}","m.room.topic"]}}'}
    got = await look.ask("GET", f"/v3/rooms/{look.room}/messages", **query)
    if got.status == 200:
        wanted = [one for one in look.visible() if one.type in (HISTORY, "m.room.topic")]
        look.events(ids(got.json["chunk"]), wanted if look.reads else ())
    else:
        look.must(not look.reads, f"history refused: {got.status}")


@cell("messages from middle")
async def _(look: Look) -> None:
    """From what was a token of the reader's in the middle of the story, on."""
    for glimpse in look.world.glimpses:
        if glimpse.reader == look.reader and glimpse.kind == "v3" and glimpse.stretch in (2, 5):
            end = look.site.ends[glimpse.stretch]
            for way in "bf":
                query = {"dir": way, "limit": "1000", "from": str(glimpse.token)}
                got = await look.ask("GET", f"/v3/rooms/{look.room}/messages", **query)
                if got.status != 200:
                    look.must(not look.reads, f"history refused: {got.status}")
                    continue
                part = [one for one in look.visible() if (one.number < end) is (way == "b")]
                look.events(ids(got.json["chunk"]), part if look.reads else ())


@cell("event")
async def _(look: Look) -> None:
    for one in asked_for(look):
        got = await look.ask("GET", f"/v3/rooms/{look.room}/event/{q(one.event_id)}")
        allowed = look.may(one)
        if allowed is May.NO and got.status == 200:
            look.leak(name_of(one))
        elif allowed is May.YES:
            whole = look.tale.is_redacted(one) or one.mark is None or one.mark in got.text
            look.must(got.status == 200 and whole, f"{name_of(one)}: {got.status}")


@cell("event of another room")
async def _(look: Look) -> None:
    """An event is found in its own room alone (T106)."""
    others = [site for site in look.world.sites if site is not look.site]
    for one in [one for other in others[:1] for one in other.happenings[::15]]:
        look.refused(await look.ask("GET", f"/v3/rooms/{look.room}/event/{q(one.event_id)}"))


@cell("context")
async def _(look: Look) -> None:
    for limit in (4, 100):
        chosen = asked_for(look)
        for one in chosen[:: max(1, len(chosen) // CONTEXTS)]:
            await _context(look, one, limit, "")


@cell("context lazy")
async def _(look: Look) -> None:
    chosen = asked_for(look)
    for one in chosen[3 :: max(1, len(chosen) // CONTEXTS)]:
        await _context(look, one, 6, '{"lazy_load_members":true}')


@cell("context of own moves")
async def _(look: Look) -> None:
    for one in look.tale.moves(look.user):
        await _context(look, one, 100, "")


async def _context(look: Look, one: Happening, limit: int, wanted: str) -> None:
    path = f"/v3/rooms/{look.room}/context/{q(one.event_id)}"
    got = await look.ask("GET", path, limit=str(limit), filter=wanted)
    allowed = look.may(one)
    if got.status != 200:
        look.must(allowed is not May.YES, f"{name_of(one)}: {got.status}")
        return
    if allowed is May.NO:
        look.leak(name_of(one))
    found = got.json
    before, after = ids(found["events_before"]), ids(found["events_after"])
    look.events([one.event_id, *before, *after], ())
    for shown, neighbours in (
        (before, [other for other in look.visible() if other.number < one.number]),
        (after, [other for other in look.visible() if other.number > one.number]),
    ):
        most = min(limit // 2, len(neighbours))
        look.must(len(shown) >= most, f"around {name_of(one)}: {len(shown)} of {most}")
    last = look.tale.by_id[(after or [one.event_id])[-1]]
    state = look.tale.after(last).values()
    if wanted or not look.tale.rules_allow(look.user, last):
        state = ()  # type: ignore[assignment]
    look.states(ids(found["state"]), state, exactly=bool(state))


@cell("timestamp")
async def _(look: Look) -> None:
    times = [one.ts for one in look.tale.happenings[:: len(look.tale.happenings) // 5]]
    for ts in (0, *times, 2**52):
        for way in "fb":
            path = f"/v1/rooms/{look.room}/timestamp_to_event"
            got = await look.ask("GET", path, ts=str(ts), dir=way)
            is_there = [
                one for one in look.visible() if (one.ts >= ts if way == "f" else one.ts <= ts)
            ]
            if got.status != 200:
                look.must(not (look.reads and is_there), f"{way} of {ts}: {got.status}")
                continue
            look.events([got.json["event_id"]], ())
            found = look.tale.by_id[got.json["event_id"]]
            if is_there and look.may(found) is May.YES:
                best = min(is_there, key=lambda one: abs(one.ts - ts))
                look.must(found.ts == best.ts, f"{way} of {ts}: {found.number}, {best.number}")


# --- relations


def children(look: Look, parent: str, kind: str | None = None) -> list[Happening]:
    """The events that relate to one and must be shown."""
    return [
        one
        for one in look.visible()
        if one.relation is not None
        and one.relation[1] == parent
        and kind in (None, one.relation[0])
        and not look.tale.is_redacted(one)
    ]


async def _relations(look: Look, parent: str, wanted: list[Happening], rest: str = "") -> None:
    path = f"/v1/rooms/{look.room}/relations/{q(parent)}{rest.partition('?')[0]}"
    query = {"recurse": "true"} if rest.endswith("?recurse") else {}
    got = await look.ask("GET", path, limit="100", **query)
    allowed = look.may(look.tale.by_id[parent])
    if got.status != 200:
        look.must(allowed is not May.YES, f"relations of {look.named(parent)}: {got.status}")
        return
    if allowed is May.NO:
        look.leak(f"relations of {look.named(parent)}")
    look.events(ids(got.json["chunk"]), wanted if allowed is May.YES else ())


@cell("relations")
async def _(look: Look) -> None:
    for name in ("root", "edited", *(f"reply{number}" for number in range(STRETCHES))):
        parent = look.site.named[name]
        await _relations(look, parent, children(look, parent))


@cell("relations recursive")
async def _(look: Look) -> None:
    root = look.site.named["root"]
    found = children(look, root)
    for one in look.visible():
        if one.relation is not None and one.relation[0] == "m.annotation":
            found.append(one)
    await _relations(look, root, found, "?recurse")


@cell("relations of a type")
async def _(look: Look) -> None:
    root, edited = look.site.named["root"], look.site.named["edited"]
    await _relations(look, root, children(look, root, "m.thread"), "/m.thread")
    await _relations(look, root, children(look, root, "m.reference"), "/m.reference/m.room.message")
    await _relations(look, edited, children(look, edited, "m.replace"), "/m.replace")


@cell("threads")
async def _(look: Look) -> None:
    for include in ("all", "participated"):
        got = await look.ask("GET", f"/v1/rooms/{look.room}/threads", include=include)
        if got.status != 200:
            look.must(not look.reads, f"threads refused: {got.status}")
            continue
        root = look.tale.by_id[look.site.named["root"]]
        replies = children(look, root.event_id, "m.thread")
        wanted = [root] if look.reads and replies and look.may(root) is May.YES else []
        look.events(ids(got.json["chunk"]), wanted if include == "all" else [])
        for one in got.json["chunk"]:
            _bundle(look, one)


@cell("bundles")
async def _(look: Look) -> None:
    """What stands in `m.relations` are visible children alone ([C9.12])."""
    for name in ("root", "edited"):
        path = f"/v3/rooms/{look.room}/event/{q(look.site.named[name])}"
        got = await look.ask("GET", path)
        if got.status == 200:
            _bundle(look, got.json)


def _bundle(look: Look, event: Any) -> None:
    found = event["unsigned"].get("m.relations", {})
    parent = event["event_id"]
    replies = children(look, parent, "m.thread")
    thread = found.get("m.thread")
    look.must((thread is not None) is bool(replies), f"a thread: {thread is not None}")
    if thread is not None and replies:
        look.events([thread["latest_event"]["event_id"]], ())
        count = thread["count"]
        if count > len(replies):
            look.leak(f"{count} replies of {len(replies)}")
        look.must(count >= len(replies), f"{count} replies of {len(replies)}")
    references = found.get("m.reference", {}).get("chunk", [])
    look.events(ids(references), children(look, parent, "m.reference"))
    edits = children(look, parent, "m.replace")
    if "m.replace" in found:
        look.events([found["m.replace"]["event_id"]], ())
    look.must(bool(edits) is ("m.replace" in found), f"an edit: {'m.replace' in found}")


@cell("redaction")
async def _(look: Look) -> None:
    """What was redacted shows nothing, and its redaction what the reader may see of that."""
    for name in ("gone", "gone_state"):
        one = look.tale.by_id[look.site.named[name]]
        path = f"/v3/rooms/{look.room}/event/{q(one.event_id)}"
        got = await look.ask("GET", path)
        if got.status == 200:
            look.must("redacted_because" in got.json["unsigned"], "why it is redacted")


# --- across rooms


@cell("notifications")
async def _(look: Look) -> None:
    query = {"limit": "100"}
    shown: list[str] = []
    for _ in range(30):
        got = await look.ask("GET", "/v3/notifications", **query)
        page = got.json
        here = [one for one in page["notifications"] if one["room_id"] == look.site.room_id]
        shown += [one["event"]["event_id"] for one in here]
        if "next_token" not in page:
            break
        query["from"] = page["next_token"]
    look.events(shown, ())
    if look.is_in and look.reader != "ignorer":
        last = [one for one in look.visible() if "m.mentions" in one.content][-1]
        look.must(last.event_id in shown, "a mention")


@cell("push")
async def _(look: Look) -> None:
    """What left for the gateway in this room's name, at whatever time it was."""
    told = look.world.gateway.taken.get(look.reader, [])
    here = [one for one in told if one.get("room_id") == look.site.room_id]
    own = {one.event_id for one in look.tale.moves(look.user)}
    forgetful = look.tale.has_forgotten(look.user)
    shown = [one["event_id"] for one in here if "event_id" in one]
    look.events([] if forgetful else shown, (), also=own)
    for one in here:
        if one["event_id"] not in own and "membership" in one.get("content", {}):
            look.leak(f"a push of {look.named(one['event_id'])}")
    if look.reader == "founder":
        look.must(shown, "a push")


@cell("search")
async def _(look: Look) -> None:
    """Everything that was said has this word in it."""
    wanted = {"search_term": "hello", "filter": {"rooms": [look.site.room_id], "limit": 50}}
    wanted |= {"event_context": {"before_limit": 3, "after_limit": 3}, "include_state": True}
    got = await look.ask("POST", "/v3/search", {"search_categories": {"room_events": wanted}})
    if got.status == 200:
        found = got.json["search_categories"]["room_events"]["results"]
        look.events([one["result"]["event_id"] for one in found], ())
        said = [one for one in look.visible() if str(one.content.get("body")).startswith("hello")]
        look.must(found or not said or not look.is_in, "nothing was found")


@cell("room initialSync")
async def _(look: Look) -> None:
    got = await look.ask("GET", f"/v3/rooms/{look.room}/initialSync", limit="100")
    if not look.is_there:
        return
    if got.status != 200:
        look.must(not (look.is_in or (look.is_public and not look.is_closed)), str(got.status))
        return
    if not look.reads:
        look.leak("an answer")
    look.events(ids(got.json["messages"]["chunk"]), ())
    look.states(ids(got.json.get("state", [])), (), exactly=False)
    if look.is_in:
        look.states(ids(got.json["state"]), look.tale.now.values())


@cell("initialSync")
async def _(look: Look) -> None:
    got = await look.ask("GET", "/v3/initialSync", limit="100", archived="true")
    if not look.is_there:
        return
    rooms = [one for one in got.json["rooms"] if one["room_id"] == look.site.room_id]
    look.must(rooms or not look.is_in, "the room")
    if rooms and (look.is_closed or not look.tale.moves(look.user)):
        look.leak("the room")
    for room in rooms:
        look.events(ids(room.get("messages", {"chunk": []})["chunk"]), ())


@cell("events")
async def _(look: Look) -> None:
    """The old stream, from a token of the middle of the story on; and for who looks in."""
    token = next(
        str(glimpse.token)
        for glimpse in look.world.glimpses
        if (glimpse.reader, glimpse.kind, glimpse.stretch) == (look.reader, "v3", 2)
    )
    for query in ({"room_id": look.site.room_id}, {}):
        place = token
        for _ in range(30):
            got = await look.ask("GET", "/v3/events", **{"from": place, "timeout": "0"}, **query)
            if got.status != 200 or not got.json["chunk"]:
                break
            place = got.json["end"]
            here = [one for one in got.json["chunk"] if one.get("room_id") == look.site.room_id]
            own = {one.event_id for one in look.tale.moves(look.user)}  # invitations, too
            look.events([one["event_id"] for one in here if "event_id" in one], (), also=own)
            if not look.is_in and any(one["type"] in ("m.typing", "m.receipt") for one in here):
                look.leak("who types or has read")


@cell("events by id")
async def _(look: Look) -> None:
    for one in asked_for(look)[::5]:
        got = await look.ask("GET", f"/v3/events/{q(one.event_id)}")
        if not look.is_there:
            return
        if got.status == 200 and look.may(one) is May.NO:
            look.leak(name_of(one))
        look.must(got.status == 200 or look.may(one) is not May.YES, name_of(one))


@cell("hidden events")
async def _(look: Look) -> None:
    """What failed a check is nowhere, whatever is asked about it (T027, T106)."""
    for one in look.tale.happenings:
        if one.fate is not Fate.ACCEPTED:
            for path in (
                f"/v3/rooms/{look.room}/event/{q(one.event_id)}",
                f"/v3/rooms/{look.room}/context/{q(one.event_id)}",
                f"/v1/rooms/{look.room}/relations/{q(one.event_id)}",
            ):
                look.refused(await look.ask("GET", path))


@cell("outside")
async def _(look: Look) -> None:
    """Receipts, typing and reports are for who is in the room (T105)."""
    last = look.tale.happenings[-1]
    path = f"/v3/rooms/{look.room}/typing/{q(look.user)}"
    got = await look.ask("PUT", path, {"typing": False})
    if not look.is_in:
        look.refused(got)
    if not look.is_in and look.may(last) is May.NO:
        path = f"/v3/rooms/{look.room}/receipt/m.read/{q(last.event_id)}"
        look.refused(await look.ask("POST", path, {}))


@cell("probing")
async def _(look: Look) -> None:
    """What one may not see one can neither report nor follow, nor learn that it is there."""
    user, tale = look.user, look.tale
    hidden = [one for one in asked_for(look) if tale.may(user, one) is May.NO][::12]
    following = "/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"
    for event_id in (*(one.event_id for one in hidden), "$" + "x" * 43):
        path = f"/v3/rooms/{look.room}/report/{q(event_id)}"
        got = await look.ask("POST", path, {"reason": "none"})
        look.must(got.status == 404 or got.is_unknown, f"a report of {look.named(event_id)}")
        look.refused(got)
        got = await look.ask("PUT", following.format(look.room, q(event_id)), {})
        look.refused(got)
        look.is_there = True
