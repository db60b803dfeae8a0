"""C9, C10, C11: reading rooms, sending to them, and membership."""

from __future__ import annotations

from tests.api.conformance.house import House, User
from tests.api.conformance.requirements import requirement
from tests.api.conformance.scenarios.events import UNKNOWN_EVENT
from tests.api.conformance.scenarios.rooms import UNKNOWN_ROOM

EVENT, MESSAGES = "/v3/rooms/{}/event/{}", "/v3/rooms/{}/messages"
STATE, SEND = "/v3/rooms/{}/state/{}/{}", "/v3/rooms/{}/send/{}/{}"
JOIN, MEMBERS = "/v3/rooms/{}/join", "/v3/rooms/{}/members"


def history(value: str) -> dict[str, object]:
    """Initial state that sets who may read."""
    content = {"history_visibility": value}
    return {"type": "m.room.history_visibility", "content": content}


def rule(value: str, **more: object) -> dict[str, object]:
    """Initial state that sets who may join."""
    return {"type": "m.room.join_rules", "content": {"join_rule": value, **more}}


def can_see(user: User, room: str, event: str) -> bool:
    """Whether somebody gets an event, by its id."""
    return user.ask("GET", EVENT, room, event).status == 200


@requirement("C9.01", "C9.02")
def who_sees_what(house: House) -> None:
    """The settings one by one; every order of things is in test_history_visibility.py."""
    alice, bob, stranger = house.user("alice"), house.user("bob"), house.user("stranger")
    for setting, before, invited in (
        ("world_readable", True, True),
        ("shared", True, True),
        ("invited", False, True),
        ("joined", False, False),
        ("unheard of", True, True),
    ):
        room = alice.room(initial_state=[history(setting)])
        early = alice.say(room)
        alice.upon(room, "invite", bob)
        between = alice.say(room)
        assert can_see(stranger, room, early) == (setting == "world_readable")
        bob.join(room)
        late = alice.say(room)
        found = [can_see(bob, room, event) for event in (early, between, late)]
        assert found == [before, invited, True], setting
        bob.leave(room)
        after = alice.say(room)
        assert can_see(bob, room, late)
        assert can_see(bob, room, after) == (setting == "world_readable")


@requirement("C9.03")
def pages(house: House) -> None:
    alice = house.user()
    room = alice.room()
    sent = [alice.say(room, str(n)) for n in range(12)]
    alice.bad(400, "M_MISSING_PARAM", "GET", MESSAGES, room)
    page = alice.good("GET", MESSAGES, room, query="dir=b")
    assert [event["event_id"] for event in page["chunk"]] == sent[:1:-1]
    assert page["start"]
    again = alice.good("GET", MESSAGES, room, query={"dir": "b", "from": page["start"]})
    assert again["chunk"][0]["event_id"] == sent[-1]
    last = alice.good("GET", MESSAGES, room, query={"dir": "b", "limit": "100"})
    assert "end" not in last
    none = '{"types":["org.example.none"]}'
    empty = alice.good("GET", MESSAGES, room, query={"dir": "b", "filter": none})
    assert empty["chunk"] == []


@requirement("C9.04")
def outsiders_get_no_pages(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    bob.bad(403, "M_FORBIDDEN", "GET", MESSAGES, alice.room(), query="dir=b")
    bob.bad(403, "M_FORBIDDEN", "GET", MESSAGES, UNKNOWN_ROOM, query="dir=b")


@requirement("C9.05")
def context(house: House) -> None:
    alice = house.user()
    room, path = alice.room(topic="old"), "/v3/rooms/{}/context/{}"
    first, middle = alice.say(room), alice.say(room)
    alice.put_state(room, "m.room.topic", {"topic": "new"})
    around = alice.good("GET", path, room, first, query="limit=2")
    assert [event["event_id"] for event in around["events_after"]] == [middle]
    topics = [event for event in around["state"] if event["type"] == "m.room.topic"]
    assert [event["content"]["topic"] for event in topics] == ["old"]
    around = alice.good("GET", path, room, first)
    topics = [event for event in around["state"] if event["type"] == "m.room.topic"]
    assert [event["content"]["topic"] for event in topics] == ["new"]
    alice.bad(404, "M_NOT_FOUND", "GET", path, room, UNKNOWN_EVENT)


@requirement("C9.06")
def events_and_state(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(topic="then", preset="public_chat")
    event = alice.say(room)
    missing = alice.bad(404, "M_NOT_FOUND", "GET", EVENT, room, UNKNOWN_EVENT)
    assert bob.bad(404, "M_NOT_FOUND", "GET", EVENT, room, event) == missing
    bob.bad(403, "M_FORBIDDEN", "GET", STATE, room, "m.room.topic", "")
    bob.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/state", room)
    bob.join(room)
    bob.leave(room)
    alice.put_state(room, "m.room.topic", {"topic": "now"})
    assert bob.state(room, "m.room.topic")["topic"] == "then"
    topics = [
        event["content"]["topic"]
        for event in bob.good("GET", "/v3/rooms/{}/state", room)
        if event["type"] == "m.room.topic"
    ]
    assert topics == ["then"]
    alice.bad(404, "M_NOT_FOUND", "GET", STATE, room, "m.room.topic", "other key")


@requirement("C9.07")
def members(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room = alice.room(preset="public_chat")
    bob.join(room)
    at = alice.sync()["next_batch"]
    bob.leave(room)
    alice.upon(room, "invite", carol)

    def listed(user: User, **query: str) -> set[str]:
        chunk = user.good("GET", MEMBERS, room, query=query)["chunk"]
        return {event["state_key"] for event in chunk}

    everybody = {alice.user_id, bob.user_id, carol.user_id}
    assert listed(alice) == everybody
    assert listed(alice, membership="invite", not_membership="leave") == everybody - {bob.user_id}
    assert listed(alice, at=at) == {alice.user_id, bob.user_id}
    assert listed(bob) == {alice.user_id, bob.user_id}
    name = {"displayname": "A"}
    alice.good("PUT", "/v3/profile/{}/displayname", alice.user_id, body=name)
    joined = alice.good("GET", "/v3/rooms/{}/joined_members", room)["joined"]
    assert joined == {alice.user_id: {"display_name": "A"}}
    bob.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/joined_members", room)


@requirement("C9.08")
def events_by_time(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(), "/v1/rooms/{}/timestamp_to_event"
    sent = [alice.say(room) for _ in range(3)]
    stamps = [alice.good("GET", EVENT, room, one)["origin_server_ts"] for one in sent]
    found = alice.good("GET", path, room, query={"ts": str(stamps[-1] + 1), "dir": "b"})
    assert found == {"event_id": sent[-1], "origin_server_ts": stamps[-1]}
    alice.bad(404, "M_NOT_FOUND", "GET", path, room, query=f"ts={stamps[-1] + 10_000}&dir=f")
    bob.bad(403, "M_FORBIDDEN", "GET", path, room, query="ts=0&dir=f")


@requirement("C9.09")
def rooms_and_aliases(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(initial_state=[history("world_readable")])
    assert alice.good("GET", "/v3/joined_rooms") == {"joined_rooms": [room]}
    assert bob.good("GET", "/v3/rooms/{}/aliases", room) == {"aliases": []}
    bob.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/aliases", alice.room())


def related(user: User, room: str, event: str, *kinds: str, **query: str) -> list[str]:
    """The ids of an event's children."""
    path = "/v1/rooms/{}/relations/{}" + len(kinds) * "/{}"
    chunk = user.good("GET", path, room, event, *kinds, query=query)["chunk"]
    return [child["event_id"] for child in chunk]


def relation(kind: str, event: str, **more: str) -> dict[str, object]:
    """The part of a content that relates it to an event."""
    return {"m.relates_to": {"rel_type": kind, "event_id": event, **more}}


@requirement("C9.10")
def relations(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat", initial_state=[history("joined")])
    root = alice.say(room)
    children = [alice.say(room, **relation("m.reference", root)) for _ in range(3)]
    alice.say(room, **{"m.relates_to": {"m.in_reply_to": {"event_id": root}}})
    assert related(alice, room, root) == children[::-1]
    assert related(alice, room, root, dir="f") == children
    since = alice.sync()["next_batch"]
    assert related(alice, room, root, **{"from": since}) == children[::-1]
    bob.join(room)
    bob.bad(404, "M_NOT_FOUND", "GET", "/v1/rooms/{}/relations/{}", room, root)
    mine = alice.say(room)
    hers = bob.say(room, **relation("m.reference", mine))
    assert related(alice, room, mine) == [hers]
    ignored = {"ignored_users": {bob.user_id: {}}}
    path = "/v3/user/{}/account_data/m.ignored_user_list"
    alice.good("PUT", path, alice.user_id, body=ignored)
    assert related(alice, room, mine) == []


@requirement("C9.11")
def threads(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(preset="public_chat"), "/v1/rooms/{}/threads"
    bob.join(room)
    roots = [alice.say(room) for _ in range(3)]
    for root in (*roots, roots[0]):
        alice.say(room, **relation("m.thread", root))
    bob.say(room, **relation("m.thread", roots[1]))
    listed = [event["event_id"] for event in alice.good("GET", path, room)["chunk"]]
    assert listed == [roots[1], roots[0], roots[2]]
    mine = bob.good("GET", path, room, query="include=participated")["chunk"]
    assert [event["event_id"] for event in mine] == [roots[1]]
    alice.bad(400, "M_INVALID_PARAM", "GET", path, room, query="from=x")
    house.user().bad(403, "M_FORBIDDEN", "GET", path, room)


@requirement("C9.12", "C9.13", "C9.14", "C9.15", "K.18")
def aggregations(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    root = alice.say(room, "first")
    new = {"m.new_content": {"msgtype": "m.text", "body": "new"}}
    edits = [alice.say(room, "* new", **new, **relation("m.replace", root)) for _ in range(2)]
    bob.say(room, "* forged", **new, **relation("m.replace", root))
    alice.say(room, "* no new content", **relation("m.replace", root))
    replies = [bob.say(room, **relation("m.thread", root)) for _ in range(2)]
    refers = bob.say(room, **relation("m.reference", root))
    bob.send(room, "m.reaction", relation("m.annotation", root, key="k"))

    def shown(path: str, *values: str, **query: str) -> dict[str, object]:
        answer = alice.good("GET", path, *values, query=query)
        found = [answer] if "event_id" in answer else answer.get("chunk") or [answer["event"]]
        return next(event for event in found if event["event_id"] == root)

    for event in (
        shown(EVENT, room, root),
        shown("/v3/rooms/{}/context/{}", room, root),
        shown(MESSAGES, room, dir="b", limit="20"),
    ):
        bundle = event["unsigned"]["m.relations"]
        assert event["content"]["body"] == "first"
        assert bundle["m.replace"]["event_id"] == edits[-1]
        assert bundle["m.thread"]["count"] == 2
        assert bundle["m.thread"]["current_user_participated"] is True  # the root is hers
        assert bundle["m.thread"]["latest_event"]["event_id"] == replies[-1]
        assert bundle["m.reference"]["chunk"] == [{"event_id": refers}]
        assert "m.annotation" not in bundle
    redact = "/v3/rooms/{}/redact/{}/{}"
    bob.good("PUT", redact, room, replies[-1], "a", body={})
    alice.good("PUT", redact, room, edits[-1], "b", body={})
    bundle = shown(EVENT, room, root)["unsigned"]["m.relations"]
    assert bundle["m.thread"]["count"] == 1
    assert bundle["m.replace"]["event_id"] == edits[0]
    alice.good("PUT", redact, room, root, "c", body={})
    bundle = shown(EVENT, room, root)["unsigned"].get("m.relations", {})
    assert "m.replace" not in bundle


@requirement("C10.01")
def sending(house: House) -> None:
    alice = house.user()
    room = alice.room()
    root = alice.say(room)
    reaction = relation("m.annotation", root, key="k")
    alice.send(room, "m.reaction", reaction)
    alice.bad(400, "M_DUPLICATE_ANNOTATION", "PUT", SEND, room, "m.reaction", "t", body=reaction)
    alice.send(room, "m.reaction", relation("m.annotation", root, key="other"))
    alice.send(room, "m.other", reaction)
    reply = alice.say(room, **relation("m.thread", root))
    nested = {"msgtype": "m.text", "body": "x", **relation("m.thread", reply)}
    alice.bad(400, "M_UNKNOWN", "PUT", SEND, room, "m.room.message", "t", body=nested)


@requirement("C10.02")
def canonical_aliases(house: House) -> None:
    alice = house.user()
    room, other = alice.room(), alice.room()
    mine, theirs, none = alice.alias(), alice.alias(), alice.alias()
    for alias, target in ((mine, room), (theirs, other)):
        alice.good("PUT", "/v3/directory/room/{}", alias, body={"room_id": target})
    kind = "m.room.canonical_alias"
    for body, code in (
        ({"alias": "kitchen"}, "M_INVALID_PARAM"),
        ({"alias": 5}, "M_INVALID_PARAM"),
        ({"alt_aliases": ["kitchen"]}, "M_INVALID_PARAM"),
        ({"alt_aliases": mine}, "M_INVALID_PARAM"),
        ({"alias": none}, "M_BAD_ALIAS"),
        ({"alt_aliases": [mine, theirs]}, "M_BAD_ALIAS"),
    ):
        alice.bad(400, code, "PUT", STATE, room, kind, "", body=body)
    both = {"alias": mine, "alt_aliases": [mine]}
    first = alice.put_state(room, kind, both)
    assert alice.put_state(room, kind, both) == first
    alice.good("DELETE", "/v3/directory/room/{}", mine)
    alice.put_state(room, kind, {})


@requirement("C10.03")
def impossible_events(house: House) -> None:
    alice = house.user()
    for version in ("1", "9", "10", "12"):
        room = alice.room(room_version=version)
        levels = alice.state(room, "m.room.power_levels")
        for change in (
            {"ban": "50"},
            {"ban": 50.5},
            {"ban": True},
            {"users": {alice.user_id: "100"}},
            {"users": []},
            {"events": {"m.room.name": None}},
            {"users_default": []},
        ):
            body = {**levels, **change}
            kind = "m.room.power_levels"
            alice.bad(400, "M_BAD_JSON", "PUT", STATE, room, kind, "", body=body)


@requirement("C10.04")
def creation_and_membership_through_state(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, kind = alice.room(preset="public_chat"), "m.room.member"
    alice.bad(400, "M_INVALID_PARAM", "PUT", STATE, room, "m.room.create", "", body={})
    alice.bad(400, "M_INVALID_PARAM", "PUT", STATE, room, "m.room.create", "x", body={})
    bob.good("PUT", STATE, room, kind, bob.user_id, body={"membership": "join"})
    assert bob.good("GET", "/v3/joined_rooms") == {"joined_rooms": [room]}
    alice.good("PUT", STATE, room, kind, bob.user_id, body={"membership": "ban"})
    bob.bad(403, "M_FORBIDDEN", "POST", JOIN, room, body={})
    joined = {"membership": "join"}
    bob.bad(403, "M_FORBIDDEN", "PUT", STATE, room, kind, bob.user_id, body=joined)
    alice.bad(403, "M_FORBIDDEN", "PUT", STATE, room, kind, bob.user_id, body=joined)
    alice.bad(400, "M_INVALID_PARAM", "PUT", STATE, room, kind, "bob", body=joined)
    for body in ({}, {"membership": 5}, {"membership": "maybe"}):
        answer = alice.ask("PUT", STATE, room, kind, bob.user_id, body=body)
        assert answer.status in (400, 403), answer


@requirement("C10.05")
def redactions(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(preset="public_chat"), "/v3/rooms/{}/redact/{}/{}"
    bob.join(room)
    hers = alice.say(room)
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, hers, "t", body={})
    bob.good("PUT", path, room, bob.say(room), "u", body={})
    alice.good("PUT", path, room, bob.say(room), "v", body={})
    levels = alice.state(room, "m.room.power_levels")
    events = {**levels["events"], "m.room.redaction": 40}
    alice.put_state(room, "m.room.power_levels", {**levels, "events": events})
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, bob.say(room), "w", body={})


@requirement("C10.07", "K.10")
def rooms_show_profiles(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    allow = alice.room(preset="public_chat")
    bob.join(allow)
    restricted = rule("restricted", allow=[{"type": "m.room_membership", "room_id": allow}])
    room = alice.room(initial_state=[restricted])
    bob.join(room)
    member = "m.room.member"
    assert alice.state(room, member, bob.user_id)["join_authorised_via_users_server"]
    name = {"displayname": "Bob"}
    bob.good("PUT", "/v3/profile/{}/displayname", bob.user_id, body=name)
    for one in (room, allow):
        assert alice.state(one, member, bob.user_id) == {"membership": "join", **name}


@requirement("C11.01")
def joining(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, alias = alice.room(preset="public_chat"), alice.alias()
    alice.good("PUT", "/v3/directory/room/{}", alias, body={"room_id": room})
    bob.bad(400, "M_INVALID_PARAM", "POST", JOIN, alias, body={})
    for query in ("via=a.test&via=b.test", "server_name=a.test"):
        path = "/v3/join/{}"
        assert bob.good("POST", path, alias, body={}, query=query) == {"room_id": room}
    assert bob.good("POST", JOIN, room, body={"reason": "r"}) == {"room_id": room}


@requirement("C11.02")
def inviting(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room, path = alice.room(), "/v3/rooms/{}/invite"
    alice.upon(room, "invite", bob)
    before = len(alice.good("GET", MESSAGES, room, query="dir=b&limit=50")["chunk"])
    alice.upon(room, "invite", bob)
    assert len(alice.good("GET", MESSAGES, room, query="dir=b&limit=50")["chunk"]) == before
    bob.join(room)
    alice.upon(room, "ban", carol)
    for target in (bob, carol):
        body = {"user_id": target.user_id}
        alice.bad(403, "M_FORBIDDEN", "POST", path, room, body=body)


@requirement("C11.03")
def leaving_and_forgetting(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    bob.bad(400, "M_UNKNOWN", "POST", "/v3/rooms/{}/forget", room)
    since = bob.sync()["next_batch"]
    bob.leave(room)
    bob.good("POST", "/v3/rooms/{}/forget", room)
    everything = '{"room":{"include_leave":true}}'
    assert room not in bob.sync(filter=everything).get("rooms", {}).get("leave", {})
    after = bob.sync(since)  # another device learns that the room is left, and no more
    assert after["rooms"]["leave"][room]["timeline"]["events"] == []
    assert room not in bob.sync(after["next_batch"]).get("rooms", {}).get("leave", {})
    for query in ("dir=b", ""):
        bob.bad(403, "M_FORBIDDEN", "GET", MESSAGES, room, query=query)
    alice.upon(room, "invite", bob)
    assert room in bob.sync()["rooms"]["invite"]
    bob.leave(room)  # refused
    assert room not in bob.sync().get("rooms", {}).get("invite", {})


@requirement("C11.04")
def kicking_and_banning(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, body = alice.room(preset="public_chat"), {"user_id": bob.user_id}
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/rooms/{}/kick", room, body=body)
    alice.bad(403, "M_BAD_STATE", "POST", "/v3/rooms/{}/unban", room, body=body)
    alice.upon(room, "invite", bob)
    alice.upon(room, "kick", bob)  # the invitation is taken back
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/rooms/{}/kick", room, body=body)
    bob.join(room)
    alice.upon(room, "ban", bob)
    assert alice.state(room, "m.room.member", bob.user_id)["membership"] == "ban"
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/rooms/{}/kick", room, body=body)
    alice.upon(room, "unban", bob)
    assert alice.state(room, "m.room.member", bob.user_id)["membership"] == "leave"


@requirement("C11.05")
def transitions_that_never_happen(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(initial_state=[rule("knock")])
    knock, body = "/v3/knock/{}", {"user_id": bob.user_id}
    bob.good("POST", knock, room, body={})
    bob.bad(403, "M_FORBIDDEN", "POST", JOIN, room, body={})  # knock to join
    alice.upon(room, "invite", bob)
    bob.join(room)
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/rooms/{}/invite", room, body=body)  # join to invite
    bob.bad(403, "M_FORBIDDEN", "POST", knock, room, body={})  # join to knock
    alice.upon(room, "ban", bob)
    alice.bad(403, "M_FORBIDDEN", "POST", "/v3/rooms/{}/invite", room, body=body)  # ban to invite
    bob.bad(403, "M_FORBIDDEN", "POST", JOIN, room, body={})  # ban to join
    bob.bad(403, "M_FORBIDDEN", "POST", knock, room, body={})  # ban to knock


@requirement("C11.06")
def restricted_rooms(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    club = alice.room(preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": club}]
    for version in ("8", "10", "12"):
        join_rule = rule("restricted", allow=allow)
        room = alice.room(room_version=version, initial_state=[join_rule])
        bob.bad(403, "M_FORBIDDEN", "POST", JOIN, room, body={})
        bob.join(club)
        bob.join(room)
        bob.leave(club)
        bob.good("GET", "/v3/rooms/{}/state", room)  # conditions are for joining only
        bob.leave(room)
        bob.bad(403, "M_FORBIDDEN", "POST", JOIN, room, body={})
