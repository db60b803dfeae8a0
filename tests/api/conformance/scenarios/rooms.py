"""Making, naming, listing and upgrading rooms, and their state."""

from __future__ import annotations

from tests.api.conformance.house import House, User
from tests.api.conformance.scenarios import covers
from tests.api.conformance.server import SERVER_NAME

UNKNOWN_ROOM = "!" + 43 * "A"


@covers("POST /v3/createRoom", "GET /v3/joined_rooms")
def making_rooms(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    rooms = {alice.room(preset=preset) for preset in ("private_chat", "public_chat")}
    rooms.add(alice.room(preset="trusted_private_chat", invite=[bob.user_id], is_direct=True))
    for version in map(str, range(1, 13)):
        rooms.add(alice.room(room_version=version, invite=[bob.user_id], name=f"v{version}"))
    name = house.name("everything")
    state = [
        {"type": "m.room.topic", "content": {"topic": "from the initial state"}},
        {"type": "org.example.thing", "state_key": "k", "content": {"n": 1}},
    ]
    full = alice.room(
        visibility="public",
        room_alias_name=name,
        name="Everything",
        topic="All of it",
        invite=[bob.user_id],
        initial_state=state,
        creation_content={"m.federate": False, "org.example": True},
        power_level_content_override={"users_default": 10},
        preset="public_chat",
        room_version="12",
    )
    rooms.add(full)
    assert set(alice.good("GET", "/v3/joined_rooms")["joined_rooms"]) == rooms
    assert alice.state(full, "m.room.create")["org.example"] is True
    assert alice.state(full, "m.room.topic")["topic"] == "All of it"
    assert alice.state(full, "m.room.power_levels")["users_default"] == 10

    path = "/v3/createRoom"
    alice.bad(400, "M_ROOM_IN_USE", "POST", path, body={"room_alias_name": name})
    for version in ("13", "", "no such version"):
        body = {"room_version": version}
        alice.bad(400, "M_UNSUPPORTED_ROOM_VERSION", "POST", path, body=body)
    for body in (
        {"visibility": "hidden"},
        {"preset": "no_chat"},
        {"invite": ["bob"]},
        {"room_alias_name": "a:b"},
    ):
        alice.bad(400, "M_INVALID_PARAM", "POST", path, body=body)
    for body in (
        {"name": 5},
        {"invite": "bob"},
        {"initial_state": [5]},
        {"initial_state": [{"type": "m.room.name"}]},
        {"is_direct": "yes"},
        {"creation_content": []},
        {"power_level_content_override": []},
    ):
        alice.bad(400, "M_BAD_JSON", "POST", path, body=body)
    levels = {"power_level_content_override": {"users_default": "many"}}
    alice.bad(400, "M_BAD_JSON", "POST", path, body=levels)
    powerless = {"room_version": "11", "power_level_content_override": {"users": {}}, "name": "x"}
    alice.bad(400, "M_INVALID_ROOM_STATE", "POST", path, body=powerless)
    by_mail = {"id_server": "id.test", "id_access_token": "t", "medium": "email", "address": "a@b"}
    alice.bad(403, "M_FORBIDDEN", "POST", path, body={"invite_3pid": [by_mail]})


@covers("POST /v3/rooms/{roomId}/upgrade")
def upgrading_a_room(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    old = alice.room(room_version="10", preset="public_chat", name="Old")
    bob.join(old)
    path = "/v3/rooms/{}/upgrade"
    bob.bad(403, "M_FORBIDDEN", "POST", path, old, body={"new_version": "11"})
    body = {"new_version": "no such version"}
    alice.bad(400, "M_UNSUPPORTED_ROOM_VERSION", "POST", path, old, body=body)
    alice.bad(400, "M_MISSING_PARAM", "POST", path, old, body={})
    alice.bad(400, "M_BAD_JSON", "POST", path, old, body={"new_version": 11})
    alice.bad(403, "M_FORBIDDEN", "POST", path, UNKNOWN_ROOM, body={"new_version": "11"})
    new = alice.good("POST", path, old, body={"new_version": "11"})["replacement_room"]
    assert alice.state(new, "m.room.create")["predecessor"]["room_id"] == old
    assert alice.state(old, "m.room.tombstone")["replacement_room"] == new
    body = {"new_version": "12", "additional_creators": [bob.user_id]}
    newest = alice.good("POST", path, new, body=body)["replacement_room"]
    assert alice.state(newest, "m.room.create")["additional_creators"] == [bob.user_id]


@covers(
    "PUT /v3/directory/room/{roomAlias}",
    "GET /v3/directory/room/{roomAlias}",
    "DELETE /v3/directory/room/{roomAlias}",
    "GET /v3/rooms/{roomId}/aliases",
)
def aliases(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, alias, path = alice.room(), alice.alias(), "/v3/directory/room/{}"
    body = {"room_id": room}
    house.bad(404, "M_NOT_FOUND", "GET", path, alias)
    bob.bad(404, "M_NOT_FOUND", "DELETE", path, alias)
    assert alice.good("PUT", path, alias, body=body) == {}
    found = house.good("GET", path, alias)
    assert found == {"room_id": room, "servers": [SERVER_NAME]}
    alice.bad(409, "M_UNKNOWN", "PUT", path, alias, body=body)
    alice.bad(400, "M_MISSING_PARAM", "PUT", path, alice.alias(), body={})
    alice.bad(400, "M_BAD_JSON", "PUT", path, alice.alias(), body={"room_id": 5})
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, alice.alias(), body={"room_id": "kitchen"})
    bob.bad(403, "M_FORBIDDEN", "PUT", path, bob.alias(), body=body)
    for wrong in ("kitchen", "#kitchen", "#a\0:home.test", "#a:elsewhere.test", "#a:"):
        alice.bad(400, "M_INVALID_PARAM", "PUT", path, wrong, body=body)
    house.bad(400, "M_INVALID_PARAM", "GET", path, "kitchen")

    listed = "/v3/rooms/{}/aliases"
    assert alice.good("GET", listed, room) == {"aliases": [alias]}
    bob.bad(403, "M_FORBIDDEN", "GET", listed, room)
    bob.bad(400, "M_INVALID_PARAM", "GET", listed, "kitchen")
    bob.bad(403, "M_FORBIDDEN", "DELETE", path, alias)
    assert alice.good("DELETE", path, alias) == {}
    assert alice.good("GET", listed, room) == {"aliases": []}


@covers(
    "GET /v3/directory/list/room/{roomId}",
    "PUT /v3/directory/list/room/{roomId}",
    "GET /v3/publicRooms",
    "POST /v3/publicRooms",
)
def the_list_of_public_rooms(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    path = "/v3/directory/list/room/{}"
    word = house.name("word")
    alias = house.name("square")
    public = alice.room(
        visibility="public",
        preset="public_chat",
        name=f"The {word} square",
        topic="Where all meet",
        room_alias_name=alias,
        initial_state=[
            {"type": "m.room.avatar", "content": {"url": "mxc://home.test/abc"}},
            {"type": "m.room.history_visibility", "content": {"history_visibility": "shared"}},
        ],
    )
    space = alice.room(
        visibility="public", name=f"{word} space", creation_content={"type": "m.space"}
    )
    alice.put_state(public, "m.room.canonical_alias", {"alias": f"#{alias}:{SERVER_NAME}"})
    private = alice.room(name=f"{word} cellar")
    assert house.good("GET", path, public) == {"visibility": "public"}
    assert house.good("GET", path, private) == {"visibility": "private"}
    house.bad(404, "M_NOT_FOUND", "GET", path, UNKNOWN_ROOM)
    house.bad(400, "M_INVALID_PARAM", "GET", path, "kitchen")

    everything = house.good("GET", "/v3/publicRooms")
    assert {public, space} <= {room["room_id"] for room in everything["chunk"]}
    first = house.good("GET", "/v3/publicRooms", query={"limit": "1"})
    assert len(first["chunk"]) == 1
    second = house.good(
        "GET", "/v3/publicRooms", query={"limit": "1", "since": first["next_batch"]}
    )
    assert second["chunk"][0]["room_id"] != first["chunk"][0]["room_id"]
    house.bad(400, "M_INVALID_PARAM", "GET", "/v3/publicRooms", query={"limit": "all"})
    house.bad(400, "M_INVALID_PARAM", "GET", "/v3/publicRooms", query={"since": "yesterday"})

    search = {"filter": {"generic_search_term": word.upper()}, "limit": 10}
    found = bob.good("POST", "/v3/publicRooms", body=search)
    assert {room["room_id"] for room in found["chunk"]} == {public, space}
    for types, expected in (([None], public), (["m.space"], space)):
        wanted = {"filter": {"generic_search_term": word, "room_types": types}}
        found = bob.good("POST", "/v3/publicRooms", body=wanted)
        assert [room["room_id"] for room in found["chunk"]] == [expected]
    for body in ({"limit": "all"}, {"filter": []}, {"since": 5}, {"filter": {"room_types": "x"}}):
        bob.bad(400, "M_BAD_JSON", "POST", "/v3/publicRooms", body=body)

    assert alice.good("PUT", path, public, body={"visibility": "private"}) == {}
    assert alice.good("PUT", path, private, body={}) == {}
    assert house.good("GET", path, private) == {"visibility": "public"}
    alice.bad(404, "M_NOT_FOUND", "PUT", path, UNKNOWN_ROOM, body={"visibility": "public"})
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, private, body={"visibility": "hidden"})
    bob.bad(403, "M_FORBIDDEN", "PUT", path, public, body={"visibility": "public"})


@covers("GET /v3/publicRooms")
def asking_servers_that_do_not_answer(house: House) -> None:
    alice = house.user("alice")
    down = "127.0.0.1:1"
    failed = (502, "M_UNKNOWN")
    path = "/v3/directory/room/{}"
    house.bad(*failed, "GET", path, f"#kitchen:{down}", described=False)
    elsewhere = {"query": {"server": down}}
    alice.bad(*failed, "GET", "/v3/publicRooms", **elsewhere, described=False)
    alice.bad(*failed, "POST", "/v3/publicRooms", body={}, **elsewhere, described=False)
    # Strangers do not make us ask others.
    house.bad(401, "M_MISSING_TOKEN", "GET", "/v3/publicRooms", **elsewhere)
    wrong = {"query": {"server": "no server"}}
    alice.bad(400, "M_INVALID_PARAM", "GET", "/v3/publicRooms", **wrong)
    at_home = alice.good("GET", "/v3/publicRooms", query={"server": SERVER_NAME})
    assert at_home == alice.good("GET", "/v3/publicRooms")


@covers("GET /v1/rooms/{roomId}/hierarchy")
def walking_through_a_space(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    kitchen = alice.room(preset="public_chat", name="Kitchen")
    cellar = alice.room(name="Cellar")
    inner = alice.room(preset="public_chat", creation_content={"type": "m.space"}, name="Inner")
    home = alice.room(preset="public_chat", creation_content={"type": "m.space"}, name="Home")
    via = {"via": [SERVER_NAME]}
    alice.put_state(home, "m.space.child", {**via, "order": "b"}, inner)
    alice.put_state(home, "m.space.child", {**via, "order": "a", "suggested": True}, cellar)
    alice.put_state(home, "m.space.child", {"order": "c"}, kitchen)  # without `via` it is none
    alice.put_state(inner, "m.space.child", via, kitchen)
    alice.put_state(inner, "m.space.child", via, home)  # round and round
    path = "/v1/rooms/{}/hierarchy"

    def rooms(who: User, **query: str) -> list[str]:
        found = who.good("GET", path, home, query=query)
        return [room["room_id"] for room in found["rooms"]]

    assert rooms(alice) == [home, cellar, inner, kitchen]
    assert rooms(bob) == [home, inner, kitchen]
    assert rooms(alice, max_depth="1") == [home, cellar, inner]
    assert rooms(alice, max_depth="0") == [home]
    assert rooms(alice, suggested_only="true") == [home, cellar]
    walked: list[str] = []
    query = {"limit": "1"}
    while True:
        page = alice.good("GET", path, home, query=query)
        walked += [room["room_id"] for room in page["rooms"]]
        if "next_batch" not in page:
            break
        query["from"] = page["next_batch"]
    assert walked == [home, cellar, inner, kitchen]
    token = alice.good("GET", path, home, query={"limit": "1"})["next_batch"]
    for changed in ({"max_depth": "1"}, {"suggested_only": "true"}):
        alice.bad(400, "M_INVALID_PARAM", "GET", path, home, query={"from": token, **changed})
    alice.bad(400, "M_INVALID_PARAM", "GET", path, home, query={"from": "nothing"})
    bob.bad(400, "M_INVALID_PARAM", "GET", path, home, query={"from": token})
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"max_depth": "-1"}, {"suggested_only": "1"}):
        alice.bad(400, "M_INVALID_PARAM", "GET", path, home, query=wrong)
    bob.bad(403, "M_FORBIDDEN", "GET", path, cellar)
    bob.bad(403, "M_FORBIDDEN", "GET", path, UNKNOWN_ROOM)
    bob.bad(400, "M_INVALID_PARAM", "GET", path, "kitchen")


EARLY = "/_matrix/client/unstable/im.nheko.summary"


@covers(
    "GET /v1/room_summary/{roomIdOrAlias}",
    f"GET {EARLY}/summary/{{roomIdOrAlias}}",
    f"GET {EARLY}/rooms/{{roomIdOrAlias}}/summary",
)
def summing_up_a_room(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    alias = house.name("square")
    encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    public = alice.room(
        preset="public_chat",
        name="Square",
        room_alias_name=alias,
        room_version="11",
        initial_state=[encryption],
    )
    private = alice.room(name="Cellar")
    path = "/v1/room_summary/{}"
    for named in (public, f"#{alias}:{SERVER_NAME}"):
        found = bob.good("GET", path, named, query={"via": SERVER_NAME})
        assert found["name"] == "Square"
        assert found["room_version"] == "11"
        assert found["encryption"] == "m.megolm.v1.aes-sha2"
        assert found["membership"] == "leave"
        assert "membership" not in house.good("GET", path, named)
        for early in (f"{EARLY}/summary/{{}}", f"{EARLY}/rooms/{{}}/summary"):
            again = bob.good("GET", early, named)
            assert again["im.nheko.summary.room_version"] == "11"
            assert again["im.nheko.summary.encryption"] == found["encryption"]
            assert found.items() <= again.items()
            bob.bad(404, "M_NOT_FOUND", "GET", early, private)
    assert alice.good("GET", path, private)["membership"] == "join"
    bob.bad(404, "M_NOT_FOUND", "GET", path, private)
    house.bad(404, "M_NOT_FOUND", "GET", path, private)
    alice.upon(private, "invite", bob)
    assert bob.good("GET", path, private)["membership"] == "invite"
    restricted = {"join_rule": "restricted"}
    allow = [{"type": "m.room_membership", "room_id": public}]
    alice.put_state(private, "m.room.join_rules", {**restricted, "allow": allow})
    carol = house.user("carol")
    carol.bad(404, "M_NOT_FOUND", "GET", path, private)
    carol.join(public)
    assert carol.good("GET", path, private)["allowed_room_ids"] == [public]
    bob.bad(404, "M_NOT_FOUND", "GET", path, UNKNOWN_ROOM)
    bob.bad(404, "M_NOT_FOUND", "GET", path, "#nothing:home.test")
    house.bad(404, "M_NOT_FOUND", "GET", path, "#nothing:127.0.0.1:1")
    bob.bad(400, "M_INVALID_PARAM", "GET", path, "kitchen")


@covers(
    "GET /v3/rooms/{roomId}/state",
    "GET /v3/rooms/{roomId}/state/{eventType}/{stateKey}",
    "PUT /v3/rooms/{roomId}/state/{eventType}/{stateKey}",
)
def state(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(preset="public_chat"), "/v3/rooms/{}/state/{}/{}"
    first = alice.put_state(room, "m.room.name", {"name": "Kitchen"})
    assert alice.put_state(room, "m.room.name", {"name": "Kitchen"}) == first
    for short in ("/v3/rooms/{}/state/{}", "/v3/rooms/{}/state/{}/"):
        assert alice.good("GET", short, room, "m.room.name") == {"name": "Kitchen"}
        body = {"name": f"Kitchen{short[-1]}"}
        alice.good("PUT", short, room, "m.room.name", body=body)
        assert alice.state(room, "m.room.name") == body
        alice.put_state(room, "m.room.name", {"name": "Kitchen"})
    alice.put_state(room, "org.example/odd type", {"a": [1, None]}, "odd/key %2F ü")
    assert alice.state(room, "org.example/odd type", "odd/key %2F ü") == {"a": [1, None]}
    whole = alice.good("GET", path, room, "m.room.name", "", query={"format": "event"})
    assert whole["content"] == {"name": "Kitchen"}
    everything = alice.good("GET", "/v3/rooms/{}/state", room)
    assert len({(event["type"], event["state_key"]) for event in everything}) == len(everything)

    alice.bad(404, "M_NOT_FOUND", "GET", path, room, "m.room.avatar", "")
    alice.bad(400, "M_INVALID_PARAM", "GET", path, room, "m.room.name", "", query="format=xml")
    for reader in ("/v3/rooms/{}/state", "/v3/rooms/{}/state/m.room.name/"):
        bob.bad(403, "M_FORBIDDEN", "GET", reader, room)
        bob.bad(403, "M_FORBIDDEN", "GET", reader, UNKNOWN_ROOM)
        bob.bad(400, "M_INVALID_PARAM", "GET", reader, "kitchen")
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, "m.room.name", "", body={"name": "Mine"})
    bob.join(room)
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, "m.room.name", "", body={"name": "Mine"})
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, room, "m.room.create", "", body={})
    alias = "m.room.canonical_alias"
    body = {"alias": alice.alias()}
    alice.bad(400, "M_BAD_ALIAS", "PUT", path, room, alias, "", body=body)
    body = {"alt_aliases": ["kitchen"]}
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, room, alias, "", body=body)
    strange = {"ban": 1.5}
    alice.bad(400, "M_BAD_JSON", "PUT", path, room, "m.room.power_levels", "", body=strange)
    bob.leave(room)
    bob.good("GET", "/v3/rooms/{}/state", room)
    bob.good("GET", path, room, "m.room.name", "")


@covers("GET /v3/rooms/{roomId}/members", "GET /v3/rooms/{roomId}/joined_members")
def members(house: House) -> None:
    alice, bob, carol = house.user("alice"), house.user("bob"), house.user("carol")
    room = alice.room(preset="public_chat")
    before = alice.sync()["next_batch"]
    bob.join(room)
    alice.upon(room, "invite", carol)
    path = "/v3/rooms/{}/members"

    def who(**query: str) -> set[str]:
        chunk = alice.good("GET", path, room, query=query)["chunk"]
        return {event["state_key"] for event in chunk}

    a, b, c = alice.user_id, bob.user_id, carol.user_id
    assert who() == {a, b, c}
    assert who(membership="join") == {a, b}
    assert who(not_membership="join") == {c}
    assert who(at=before) == {a}
    carol.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/joined_members", room)
    joined = alice.good("GET", "/v3/rooms/{}/joined_members", room)["joined"]
    assert set(joined) == {a, b}
    alice.bad(400, "M_INVALID_PARAM", "GET", path, room, query="membership=nearly")
    alice.bad(400, "M_INVALID_PARAM", "GET", path, room, query="at=yesterday")
    stranger = house.user()
    for reader in (path, "/v3/rooms/{}/joined_members"):
        stranger.bad(403, "M_FORBIDDEN", "GET", reader, room)
        stranger.bad(403, "M_FORBIDDEN", "GET", reader, UNKNOWN_ROOM)
    bob.leave(room)
    bob.good("GET", path, room)
    bob.bad(403, "M_FORBIDDEN", "GET", "/v3/rooms/{}/joined_members", room)
