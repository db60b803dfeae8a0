"""What the two kinds of sync show of a room: in the end, and at each stretch of the story."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.visibility.cells import Cell, Look, ids
from tests.visibility.oracle import MEMBER, Happening, May
from tests.visibility.story import CREATOR, STRETCHES
from tests.visibility.world import EVERYTHING, LAZY, SLIDING, Got, q

CELLS: dict[str, Cell] = {}
Section = Mapping[str, Any]
LIMIT = 100


def tail(look: Look, since: int = 0) -> list[Happening]:
    """What a timeline must hold: the newest events, back to one that the reader may not see."""
    found: list[Happening] = []
    for one in reversed(look.tale.happenings[since:]):
        allowed = look.may(one)
        if allowed is May.NO and one.state_key is not None:
            break
        if allowed is May.YES:
            found.append(one)
    return found[:LIMIT]


def until_parting(look: Look, found: list[Happening]) -> list[Happening]:
    """The same for somebody who has left: up to the end of his last time in the room."""
    parting = look.parting
    return [] if parting is None else [one for one in found if one.number <= parting.number]


def sections(got: Got, room_id: str) -> dict[str, Section]:
    """The parts of a sync answer that are about a room."""
    found = got.json.get("rooms", {})
    return {kind: rooms[room_id] for kind, rooms in found.items() if room_id in rooms}


def judge_section(look: Look, got: Got) -> dict[str, Section]:
    """What is told of the room, which must hold nothing that is not for the reader."""
    found = sections(got, look.site.room_id)
    look.judge(json.dumps(found))
    for section in found.values():
        look.events(ids(section.get("timeline", {}).get("events", [])), ())
        for name in ("state", "state_after", "org.matrix.msc4222.state_after"):
            look.states(ids(section.get(name, {}).get("events", [])), (), exactly=False)
    return found


def replayed(section: Section) -> set[str]:
    """The state that a client has after a section."""
    state = {}
    timeline = section["timeline"]["events"]
    before = section.get("state", {}).get("events", [])
    for event in [*before, *(one for one in timeline if "state_key" in one)]:
        state[event["type"], event["state_key"]] = event["event_id"]
    for event in section.get("state_after", {}).get("events", []):
        state[event["type"], event["state_key"]] = event["event_id"]
    return set(state.values())


def _filter(look: Look, wanted: Any) -> str:
    """A filter; for rooms that are not shown before their members are known, without these."""
    lazy = {"state": {"lazy_load_members": True}} if look.site.is_partial else {}
    return json.dumps({"room": {"include_leave": True, **lazy, **wanted}})


async def _sync(look: Look, wanted: Any, **query: str) -> dict[str, Section]:
    got = await look.world.ask(look.who, "GET", "/v3/sync", filter=_filter(look, wanted), **query)
    found = judge_section(look, got)
    membership = look.tale.membership(look.tale.now, look.user)
    expected = {"join": "join", "invite": "invite", "knock": "knock"}.get(membership or "", "leave")
    if membership is None or look.is_closed:
        for kind in found:
            look.leak(f"a section of {kind}")
        return {}
    if look.tale.moves(look.user)[-1].number < look.site.before:
        return {}  # which our server was not told of then
    look.must(expected in found, f"no section of {expected}")
    for kind in found:
        if kind != expected:
            look.leak(f"a section of {kind}")
    if expected in ("invite", "knock") and expected in found:
        own = look.tale.moves(look.user)[-1].mark
        look.must(own in json.dumps(found[expected]), "the own membership")
    return found


ALL = {"timeline": {"limit": LIMIT}}


async def sync_initial(look: Look) -> None:
    """An initial sync, with the rooms that were left."""
    found = await _sync(look, ALL)
    if "join" in found:
        look.events(ids(found["join"]["timeline"]["events"]), tail(look)[:50])
        look.states(replayed(found["join"]), look.tale.now.values())
    if "leave" in found:
        shown = ids(found["leave"]["timeline"]["events"])
        last = look.tale.moves(look.user)[-1]
        parting = look.parting
        look.must(last.event_id in shown, "the end")
        if parting is last:
            wanted = [one for one in look.visible() if one.number <= last.number]
            floor = [
                one.number
                for one in look.tale.happenings[: last.number]
                if look.may(one) is May.NO and one.state_key is not None
            ]
            wanted = [one for one in wanted if one.number > max(floor, default=-1)]
            look.events(shown, wanted[-50:])
            look.states(replayed(found["leave"]), look.tale.after(last).values())


async def sync_small(look: Look) -> None:
    """A timeline of three events."""
    found = await _sync(look, {"timeline": {"limit": 3}})
    if "join" in found:
        look.events(ids(found["join"]["timeline"]["events"]), tail(look)[:3])
        look.states(replayed(found["join"]), look.tale.now.values())


async def sync_lazy(look: Look) -> None:
    """With the members that the timeline needs."""
    lazy = {"lazy_load_members": True}
    found = await _sync(look, {"timeline": {"limit": 10}, "state": lazy})
    if "join" in found:
        look.events(ids(found["join"]["timeline"]["events"]), tail(look)[:10])
        others = [n for key, n in look.tale.now.items() if key[0] != MEMBER]
        members = {n for key, n in look.tale.now.items() if key[0] == MEMBER}
        known = {look.tale.happenings[n].event_id for n in members}
        look.states(replayed(found["join"]) - known, others, exactly=False)


async def sync_state_after(look: Look) -> None:
    """With the state at the end of the timeline (MSC4222)."""
    found = await _sync(look, ALL, use_state_after="true")
    if "join" in found:
        shown = ids(found["join"]["state_after"]["events"])
        look.states(shown, look.tale.now.values())


async def sync_full_state(look: Look) -> None:
    """From the last position, with all state."""
    last = [one for one in look.world.glimpses if (one.reader, one.kind) == (look.reader, "v3")][-1]
    query = {"since": str(last.token), "full_state": "true", "filter": _filter(look, ALL)}
    got = await look.world.ask(look.who, "GET", "/v3/sync", **query)
    found = judge_section(look, got)
    if look.is_in:
        look.must("join" in found, "the room")
        look.states(replayed(found["join"]), look.tale.now.values())
    if look.is_closed and found:
        look.leak("a forgotten room")


async def ephemeral(look: Look) -> None:
    """Receipts and typing are for members, private receipts for their owner alone (T105, T108)."""
    for kind, got in await _ephemeral(look):
        text = json.dumps(got)
        if not look.is_in:
            for word in ("m.typing", "m.receipt", "m.read"):
                if word in text:
                    look.leak(f"{kind}: {word}")
            continue
        look.must(CREATOR in json.dumps(got), f"{kind}: who types")
        if look.reader != "founder" and "m.read.private" in text:
            look.leak(f"{kind}: a private receipt")
        look.must("m.read" in text, f"{kind}: receipts")
        if look.reader == "founder":
            look.must("m.read.private" in text, f"{kind}: the own private receipt")


async def _ephemeral(look: Look) -> list[tuple[str, Any]]:
    got = await look.world.ask(look.who, "GET", "/v3/sync", filter=_filter(look, {}))
    found = [("v3", [one.get("ephemeral") for one in sections(got, look.site.room_id).values()])]
    for form in SLIDING:
        got = await look.world.slide(look.who, form, None, f"ephemeral {form}")
        extensions = got.json.get("extensions", {})
        rooms = [extensions.get(name, {}).get("rooms", {}) for name in ("typing", "receipts")]
        found.append((form, [one.get(look.site.room_id) for one in rooms]))
    return found


async def presence(look: Look) -> None:
    """Of whom one shares a room with, and of nobody else."""
    got = await look.world.ask(look.who, "GET", "/v3/sync")
    shown = {one["sender"] for one in got.json.get("presence", {}).get("events", [])}
    sharing = any(site.tale.is_joined(look.user) for site in look.world.sites)
    others = shown - {look.user}
    if not sharing and others:
        look.leak(f"presence of {others}")
    status = await look.world.ask(look.who, "GET", f"/v3/presence/{q(CREATOR)}/status")
    if not sharing and status.status == 200:
        look.leak("presence of the creator")


async def _slide(look: Look, form: str, connection: str, **more: Any) -> Section:
    got = await look.world.slide(look.who, form, None, connection, **more)
    found: Section = got.json["rooms"].get(look.site.room_id, {})
    judge_sliding(look, found)
    if look.is_in:
        look.must(found.get("initial"), "the room")
        look.states(ids(found["required_state"]), look.tale.now.values())
        look.events(ids(found["timeline"]), tail(look)[:50])
    elif look.tale.membership(look.tale.now, look.user) in ("invite", "knock"):
        own = look.tale.moves(look.user)[-1].mark
        look.must(own in json.dumps(found), "the own membership")
    if look.is_closed and found:
        look.leak("a forgotten room")
    return found


def judge_sliding(look: Look, found: Section) -> None:
    """A room of sliding sync must hold nothing that is not for the reader."""
    look.judge(json.dumps(found))
    look.events(ids(found.get("timeline", [])), ())
    state = [one for one in found.get("required_state", []) if "event_id" in one]
    look.states(ids(state), (), exactly=False)
    if not found or look.is_in:
        return
    for name in ("notification_count", "highlight_count", "joined_count", "heroes"):
        if name in found:
            look.leak(f"{name} of a room that one is not in")


def _sliding(form: str) -> Cell:
    async def initial(look: Look) -> None:
        await _slide(look, form, f"cell {form}")

    return initial


def _subscription(form: str) -> Cell:
    async def subscribed(look: Look) -> None:
        """To a room named by its id, whether one knows it or not."""
        wanted = {**(LAZY if look.site.is_partial else EVERYTHING)[form], "timeline_limit": 50}
        subscriptions = {look.site.room_id: wanted}
        more: Any = {"lists": {}, "room_subscriptions": subscriptions}
        await _slide(look, form, f"subscribed {form}", **more)

    return subscribed


def _glimpse(kind: str, stretch: int) -> Cell:
    async def glimpsed(look: Look) -> None:
        """What was new at the end of a stretch."""
        end = look.site.ends[stretch]
        since = look.site.ends[stretch - 1] if stretch else 0
        look.tale = look.site.tale.until(end)
        got = next(
            one.got
            for one in look.world.glimpses
            if (one.reader, one.kind, one.stretch) == (look.reader, kind, stretch)
        )
        earlier = look.tale.until(since)
        was_in = bool(since) and earlier.is_joined(look.user)
        moves = [one for one in look.tale.moves(look.user) if one.number >= since]
        wanted = tail(look, since) if look.is_in else []
        if kind == "v3":
            found = judge_section(look, got)
            shown = ids(found.get("join", {}).get("timeline", {}).get("events", []))
            gone = ids(found.get("leave", {}).get("timeline", {}).get("events", []))
        else:
            one: Section = got.json["rooms"].get(look.site.room_id, {})
            judge_sliding(look, one)
            found, shown = {}, ids(one.get("timeline", []))
            gone = shown
        if look.is_in:
            look.events(shown, wanted)
        elif was_in and moves and look.parting is not None:
            look.must(look.parting.event_id in gone, "the end")
            look.events(
                gone,
                [one for one in until_parting(look, look.visible()) if one.number >= since][-50:],
            )
        elif not moves and (shown or gone or {*found} - {"invite", "knock"}):
            look.leak("news of a room that one is not in")
        if was_in and not moves:
            for event_id in shown:
                if look.tale.by_id[event_id].number < since:
                    look.leak("old news")

    return glimpsed


def _fill() -> None:
    CELLS.update(
        {
            "sync initial": sync_initial,
            "sync small": sync_small,
            "sync lazy": sync_lazy,
            "sync state_after": sync_state_after,
            "sync full_state": sync_full_state,
            "ephemeral": ephemeral,
            "presence": presence,
        }
    )
    for form in SLIDING:
        CELLS[f"sliding {form}"] = _sliding(form)
        CELLS[f"sliding {form} subscription"] = _subscription(form)
    for kind in ("v3", *SLIDING):
        for stretch in range(STRETCHES):
            CELLS[f"sync {kind} at stretch {stretch}"] = _glimpse(kind, stretch)


_fill()
