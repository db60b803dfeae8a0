"""What clients can ask about a room's state, its members, and how it looks from outside."""

from __future__ import annotations

from tests.visibility.cells import Cell, Look, adding_to, ids, name_of
from tests.visibility.oracle import HISTORY, MEMBER, May, State
from tests.visibility.story import CREATOR, EXILE, GUESTS
from tests.visibility.world import q

CELLS: dict[str, Cell] = {}
cell = adding_to(CELLS)


# --- states


def _state_for(look: Look) -> list[State] | None:
    """The states that the reader may be given as the room's; None where it is refused.

    "Getting events for a room": the current one in the room, that of leaving for who has left;
    "Room previews": where all may read, everybody.
    """
    if look.is_closed:
        return None
    parting = look.parting
    found = [] if parting is None else [look.tale.after(parting)]
    if look.is_in or look.is_public:
        found.insert(0, look.tale.now)
    return found or None


def _same_state(look: Look, shown: list[str], kinds: tuple[str, ...] | None = None) -> None:
    choices = _state_for(look) or []
    for state in choices[1:]:
        numbers = [number for key, number in state.items() if not kinds or key[0] in kinds]
        if {look.tale.happenings[number].event_id for number in numbers} == set(shown):
            return
    state = choices[0]
    look.states(shown, [n for key, n in state.items() if not kinds or key[0] in kinds])


@cell("state")
async def _(look: Look) -> None:
    got = await look.ask("GET", f"/v3/rooms/{look.room}/state")
    if _state_for(look) is None:
        look.refused(got)
    elif got.status != 200:
        look.hole(f"state refused: {got.status}")
    else:
        _same_state(look, ids(got.json))


@cell("state of a type")
async def _(look: Look) -> None:
    choices = _state_for(look)
    for kind, key in (
        ("m.room.topic", ""),
        ("net.example.note", "key"),
        ("net.example.gone", "key"),
        (HISTORY, ""),
        (MEMBER, CREATOR),
        (MEMBER, look.user),
    ):
        path = f"/v3/rooms/{look.room}/state/{kind}/{q(key)}"
        for form in ("content", "event"):
            got = await look.ask("GET", path, format=form)
            if choices is None:
                look.refused(got)
                continue
            numbers = [state.get((kind, key)) for state in choices]
            wanted = [None if n is None else look.tale.happenings[n] for n in numbers]
            if got.status != 200:
                is_known = all(one and one.event_id not in look.unknown for one in wanted)
                look.must(not is_known, f"{kind}: {got.status}")
            elif form == "event":
                known = [one.event_id for one in wanted if one is not None]
                if got.json["event_id"] not in known:
                    look.leak(f"state {look.named(got.json['event_id'])}")
            elif wanted == [None]:
                look.leak(f"{kind}: {got.text[:80]}")
            elif not any(
                one and (one.mark is None or one.mark in got.text or look.tale.is_redacted(one))
                for one in wanted
            ):
                look.hole(f"{kind}: {got.text[:80]}")


@cell("members")
async def _(look: Look) -> None:
    got = await look.ask("GET", f"/v3/rooms/{look.room}/members")
    if _state_for(look) is None:
        look.refused(got)
    elif got.status != 200:
        look.hole(f"members refused: {got.status}")
    else:
        _same_state(look, ids(got.json["chunk"]), (MEMBER,))


@cell("members who left")
async def _(look: Look) -> None:
    for query in ({"not_membership": "join"}, {"membership": "ban"}):
        got = await look.ask("GET", f"/v3/rooms/{look.room}/members", **query)
        if _state_for(look) is None:
            look.refused(got)
        elif got.status == 200:
            look.states(ids(got.json["chunk"]), (), exactly=False)
        else:
            look.hole(f"members refused: {got.status}")


@cell("members at")
async def _(look: Look) -> None:
    """At each of the reader's own tokens: as it was then, as far as he may know it (T104)."""
    for glimpse in look.world.glimpses:
        if glimpse.reader != look.reader or glimpse.kind != "v3":
            continue
        last = look.tale.happenings[look.site.ends[glimpse.stretch] - 1]
        got = await look.ask("GET", f"/v3/rooms/{look.room}/members", at=str(glimpse.token))
        if _state_for(look) is None:
            look.refused(got)
            continue
        if got.status != 200:
            mine = look.is_in and look.may(last) is May.YES
            look.must(not mine, f"members at {name_of(last)}: {got.status}")
            continue
        state = {number for key, number in look.tale.after(last).items() if key[0] == MEMBER}
        exact = look.is_in and look.may(last) is May.YES
        look.states(ids(got.json["chunk"]), state if exact else (), exactly=exact)


@cell("joined members")
async def _(look: Look) -> None:
    got = await look.ask("GET", f"/v3/rooms/{look.room}/joined_members")
    if not look.is_in:
        look.refused(got)
        return
    if got.status != 200:
        look.hole(f"joined members: {got.text[:100]}")
        return
    joined = {key for kind, key in look.tale.now if kind == MEMBER and look.tale.is_joined(key)}
    shown = set(got.json["joined"])
    if look.site.is_partial:
        look.must(look.user in shown, "joined members")
        for user in shown - joined:
            look.leak(f"member {user}")
        return
    look.must(shown == joined, f"joined members: {shown ^ joined}")


@cell("aliases")
async def _(look: Look) -> None:
    got = await look.ask("GET", f"/v3/rooms/{look.room}/aliases")
    if look.is_in or (look.is_public and not look.is_closed):
        look.must(got.status == 200, f"aliases: {got.status}")
    elif look.parting is None:
        look.refused(got)


@cell("joined rooms")
async def _(look: Look) -> None:
    got = await look.ask("GET", "/v3/joined_rooms")
    look.must((look.site.room_id in got.json["joined_rooms"]) is look.is_in, "joined rooms")


# --- who comes in


@cell("door of guests")
async def _(look: Look) -> None:
    """Guests come into rooms that are open to them, and are put out when these close."""
    if look.reader not in GUESTS:
        look.is_there = False
        return
    tale = look.tale
    for one in look.site.attempts:
        if one.reader != look.reader:
            continue
        state = tale.after(tale.happenings[one.number])
        is_open = tale.lets_guests_in(state)
        if not is_open and one.got.status == 200:
            look.leak(f"let in after {name_of(tale.happenings[one.number])}")
        door = tale.happenings[state["m.room.join_rules", ""]].content["join_rule"]
        if is_open and (door == "public" or tale.membership(state, look.user) == "invite"):
            look.must(one.got.status == 200, f"let in: {one.got}")
        elif not is_open:
            errcode = one.got.json.get("errcode")
            look.must(errcode == "M_GUEST_ACCESS_FORBIDDEN", f"the reason: {one.got}")
    for end in look.site.ends:
        then = tale.until(end)
        if then.is_joined(look.user) and not then.lets_guests_in(then.now):
            look.leak(f"still there after {name_of(tale.happenings[end - 1])}")


@cell("door of the banned")
async def _(look: Look) -> None:
    """Who was banned before anything was known here of the room is not let in ([B8.05])."""
    for one in look.site.attempts:
        if one.reader == look.reader == EXILE and one.got.status == 200:
            look.leak("let in")


# --- what a room looks like from outside


def _summary_words(look: Look) -> set[str] | None:
    """The marks that a summary may show; None where the room is not for the reader.

    "Spaces": to members and who is invited, who may join or knock, and where all may read.
    """
    now = look.tale.now
    membership = look.tale.membership(now, look.user)
    door = look.tale.happenings[now["m.room.join_rules", ""]].content["join_rule"]
    is_open = membership in ("join", "invite") or look.is_public
    if not is_open and (membership == "ban" or door not in ("public", "knock")):
        return None
    return look.tale.marks(number for (kind, _), number in now.items() if kind != MEMBER)


@cell("summary")
async def _(look: Look) -> None:
    allowed = _summary_words(look)
    got = await look.ask("GET", f"/v1/room_summary/{look.room}", more=allowed or ())
    look.must(allowed is None or got.status == 200, f"summary: {got.status}")
    if allowed is None:
        look.refused(got)


@cell("hierarchy")
async def _(look: Look) -> None:
    allowed = _summary_words(look)
    got = await look.ask("GET", f"/v1/rooms/{look.room}/hierarchy", more=allowed or ())
    look.must(allowed is None or got.status == 200, f"hierarchy: {got.status}")
    if allowed is None:
        look.refused(got)
