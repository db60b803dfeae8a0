"""Finding people, and the rooms that one shares with them."""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import House, User
from tests.api.conformance.scenarios import covers
from tests.api.conformance.server import LIMITED, SERVER_NAME

SEARCH, MUTUAL = "/v3/user_directory/search", "/v1/mutual_rooms"
OLD_MUTUAL = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"


def found(user: User, term: str, **more: Any) -> list[dict[str, str]]:
    """Whom a user finds."""
    answer = user.good("POST", SEARCH, body={"search_term": term, **more})
    return list(answer["results"])


def ids(results: list[dict[str, str]]) -> list[str]:
    """Their ids, in order."""
    return [one["user_id"] for one in results]


def call_oneself(user: User, name: str) -> None:
    """Set the name in one's profile."""
    path = "/v3/profile/{}/displayname"
    assert user.good("PUT", path, user.user_id, body={"displayname": name}) == {}


@covers("POST /v3/user_directory/search")
def finding_people(house: House) -> None:
    """C12.10, T094, T107."""
    word = house.name("quixote")
    alice, bob, eve = house.user("alice"), house.user("bob"), house.user("eve")
    call_oneself(alice, f"Alice {word.upper()}")
    private = alice.room()
    # Registration is open here: strangers do not find each other.
    assert found(eve, word) == found(bob, alice.localpart) == []
    alice.upon(private, "invite", bob)
    assert found(bob, alice.user_id) == []
    bob.join(private)
    shown = {"user_id": alice.user_id, "display_name": f"Alice {word.upper()}"}
    for term in (word, f"alice {word[:6]}", alice.user_id, alice.localpart.upper(), word[3:]):
        assert found(bob, term) == [shown], term
        assert found(eve, term) == [], term
    assert found(bob, f"{word} nonsense") == found(bob, "") == []
    # A private room shows nobody to themselves: whoever looks for somebody has met that one.
    assert found(alice, word) == []
    bob.leave(private)
    assert found(bob, word) == []
    # In a room that anybody may enter, or look into, everybody finds her; until she has left.
    for content in (
        {"preset": "public_chat"},
        {
            "initial_state": [
                {
                    "type": "m.room.history_visibility",
                    "state_key": "",
                    "content": {"history_visibility": "world_readable"},
                }
            ]
        },
    ):
        public = alice.room(**content)
        assert found(eve, word) == found(alice, word) == [shown]
        alice.leave(public)
        assert found(eve, word) == []


@covers()
def a_name_for_one_room_is_found_by_nobody(house: House) -> None:
    """T107: what somebody is called in a private room does not get out of it."""
    alice, bob, eve = house.user("alice"), house.user("bob"), house.user("eve")
    public, private = house.name("public"), house.name("private")
    call_oneself(alice, public)
    alice.room(preset="public_chat")
    room = bob.room(invite=[alice.user_id])
    alice.join(room)
    content = {"membership": "join", "displayname": private}
    alice.put_state(room, "m.room.member", content, alice.user_id)
    for user in (bob, eve):
        assert found(user, private) == []
        assert [one["display_name"] for one in found(user, public)] == [public]


@covers()
def changes_are_found_at_once(house: House) -> None:
    word = house.name("zebra")
    alice, bob = house.user("alice"), house.user("bob")
    alice.room(preset="public_chat")
    for number in range(3):
        call_oneself(alice, f"{word} {number}")
        (one,) = found(bob, word)
        assert one["display_name"] == f"{word} {number}"
    path = "/v3/profile/{}/{}"
    avatar = f"mxc://{SERVER_NAME}/x"
    body = {"avatar_url": avatar}
    assert alice.good("PUT", path, alice.user_id, "avatar_url", body=body) == {}
    assert found(bob, word)[0]["avatar_url"] == avatar
    alice.good("DELETE", path, alice.user_id, "displayname")
    assert found(bob, word) == []
    assert found(bob, alice.user_id) == [{"user_id": alice.user_id, "avatar_url": avatar}]
    alice.with_password("POST", "/v3/account/deactivate", body={})
    assert found(bob, alice.user_id) == []


@covers()
def as_many_people_as_wanted(house: House) -> None:
    word = house.name("walrus")
    alice = house.user()
    room = alice.room(preset="public_chat")
    for number in range(12):
        other = house.user(word if number == 7 else "other")
        call_oneself(other, f"the {word}" if number else word)
        other.join(room)
    answer = alice.good("POST", SEARCH, body={"search_term": word})
    assert (len(answer["results"]), answer["limited"]) == (10, True)
    answer = alice.good("POST", SEARCH, body={"search_term": word, "limit": 12})
    assert (len(answer["results"]), answer["limited"]) == (12, False)
    names = [one["display_name"] for one in answer["results"]]
    assert names[0] == word  # the whole name is what was looked for
    answer = alice.good("POST", SEARCH, body={"search_term": word, "limit": 0})
    assert answer == {"results": [], "limited": True}
    assert len(ids(found(alice, word, limit=10_000))) == 12
    alice.bad(400, "M_MISSING_PARAM", "POST", SEARCH, body={})
    for body in ({"search_term": 1}, {"search_term": "x", "limit": "1"}):
        alice.bad(400, "M_BAD_JSON", "POST", SEARCH, body=body)
    alice.bad(400, "M_BAD_JSON", "POST", SEARCH, body={"search_term": "x", "limit": -1})
    house.bad(401, "M_MISSING_TOKEN", "POST", SEARCH, body={"search_term": "x"})


@covers("POST /v3/user_directory/search", settings=LIMITED)
def finding_the_household(house: House) -> None:
    """Where registration is closed everybody belongs to the household; and T094: not too often."""
    alice, bob = house.user_by_secret("alice"), house.user_by_secret("bob")
    assert ids(found(alice, bob.localpart)) == [bob.user_id]
    for _ in range(40):
        answer = alice.ask("POST", SEARCH, body={"search_term": "x"})
        if answer.status == 429:
            break
    assert answer.errcode == "M_LIMIT_EXCEEDED"


@covers("GET /v1/mutual_rooms", f"GET {OLD_MUTUAL}")
def rooms_shared_with_somebody(house: House) -> None:
    """C12.11, T107."""
    alice, bob = house.user("alice"), house.user("bob")
    query = {"user_id": bob.user_id}
    assert alice.good("GET", MUTUAL, query=query) == {"joined": [], "count": 0}
    nobody = {"user_id": f"@nobody:{SERVER_NAME}"}
    assert alice.good("GET", MUTUAL, query=nobody) == {"joined": [], "count": 0}
    bob.room(preset="public_chat")
    rooms = [alice.room(preset="public_chat") for _ in range(102)]
    for room in rooms[1:]:
        bob.join(room)
    alice.upon(rooms[0], "invite", bob)
    first = alice.good("GET", MUTUAL, query=query)
    assert (len(first["joined"]), first["count"]) == (100, 101)
    rest = alice.good("GET", MUTUAL, query={**query, "from": first["next_batch"]})
    assert {*first["joined"], *rest["joined"]} == {*rooms[1:]}
    assert (rest["count"], "next_batch" in rest) == (101, False)
    old = alice.good("GET", OLD_MUTUAL, query=query)
    assert old["joined"] == first["joined"]
    more = {**query, "batch_token": old["next_batch_token"]}
    assert alice.good("GET", OLD_MUTUAL, query=more) == rest

    for wrong in (
        {},
        {"user_id": ""},
        {"user_id": "bob"},
        {"user_id": alice.user_id},
        {"user_id": f"@bös:{SERVER_NAME}"},
        {**query, "from": "nonsense"},
        {**query, "from": "m-1"},
        {**query, "from": ""},
    ):
        alice.bad(400, "M_INVALID_PARAM", "GET", MUTUAL, query=wrong)
    house.bad(401, "M_MISSING_TOKEN", "GET", MUTUAL, query=query)
