"""Sliding sync in both forms, and following threads.

MSC4186, MSC4306, MSC4308.  The files say nothing of them, so the shape of each answer is checked
here.
"""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import House, User
from tests.api.conformance.scenarios import covers

OLD = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
NEW = "/_matrix/client/v4/sync"
THREAD = "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"
THREADS = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"

EXTENSIONS = {
    name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")
}
COMMON = {
    "name": (str, type(None)),
    "avatar": (str, type(None)),
    "heroes": (list,),
    "is_dm": (bool,),
    "initial": (bool,),
    "required_state": (list,),
    "timeline": (list,),
    "prev_batch": (str,),
    "limited": (bool,),
    "num_live": (int,),
    "joined_count": (int,),
    "invited_count": (int,),
    "bump_stamp": (int,),
}
OF_OLD = {
    **COMMON,
    "invite_state": (list,),
    "unstable_expanded_timeline": (bool,),
    "notification_count": (int,),
    "highlight_count": (int,),
}
OF_NEW = {
    **COMMON,
    "stripped_state": (list,),
    "expanded_timeline": (bool,),
    "membership": (str,),
    "lists": (list,),
}


def checked(answer: Any, shape: dict[str, tuple[type, ...]]) -> Any:
    """The answer, once everything in it is what the proposal says."""
    assert {"pos", "lists", "rooms", "extensions"} <= set(answer) <= {
        "pos", "lists", "rooms", "extensions", "txn_id",
    }  # fmt: skip
    assert isinstance(answer["pos"], str)
    for found in answer["lists"].values():
        assert set(found) == {"count"}
    for room in answer["rooms"].values():
        for name, value in room.items():
            assert type(value) in shape[name], (name, value)
        for event in [*room.get("timeline", []), *room.get("required_state", [])]:
            assert "room_id" not in event
            assert {"type", "sender", "content", "event_id", "origin_server_ts"} <= set(event)
        for hero in room.get("heroes", []):
            assert "user_id" in hero
            assert set(hero) <= {"user_id", "displayname", "avatar_url"}
    return answer


def old(user: User, pos: str | None = None, timeout: int = 0, **body: Any) -> Any:
    """A call in the form that clients use."""
    query = {"timeout": str(timeout)} if pos is None else {"timeout": str(timeout), "pos": pos}
    answer = user.ask("POST", OLD, body=body, query=query, described=False)
    assert answer.status == 200, answer
    return checked(answer.json, OF_OLD)


def new(user: User, **body: Any) -> Any:
    """A call in the merged form."""
    answer = user.ask("POST", NEW, body=body, described=False)
    assert answer.status == 200, answer
    return checked(answer.json, OF_NEW)


def rooms_list(limit: int = 5, last: int = 19, **more: Any) -> dict[str, Any]:
    """A list as Element X asks for it."""
    state = [
        ["m.room.name", ""],
        ["m.room.encryption", ""],
        ["m.room.member", "$LAZY"],
        ["m.room.member", "$ME"],
        ["m.space.child", "*"],
    ]
    room = {"timeline_limit": limit, "required_state": state}
    return {"all_rooms": {"ranges": [[0, last]], **room, **more}}


@covers(f"POST {OLD}")
def sliding_sync_as_clients_use_it(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    quiet = alice.room(name="Quiet", topic="nothing")
    room = alice.room(preset="public_chat")
    bob.join(room)
    bob.say(room, "hello")
    answer = old(alice, lists=rooms_list(), extensions=EXTENSIONS, txn_id="t1", conn_id="room-list")
    assert answer["txn_id"] == "t1"
    assert answer["lists"] == {"all_rooms": {"count": 2}}
    assert set(answer["rooms"]) == {quiet, room}
    assert answer["rooms"][quiet]["name"] == "Quiet"
    shown = answer["rooms"][room]
    assert shown["initial"] is True
    assert [hero["user_id"] for hero in shown["heroes"]] == [bob.user_id]
    assert (shown["joined_count"], shown["notification_count"]) == (2, 1)
    kinds = {(event["type"], event["state_key"]) for event in shown["required_state"]}
    assert {("m.room.member", alice.user_id), ("m.room.member", bob.user_id)} <= kinds
    found = answer["extensions"]
    assert {"to_device", "e2ee", "account_data"} <= set(found)
    assert found["e2ee"]["device_unused_fallback_key_types"] == []
    assert "m.push_rules" in {event["type"] for event in found["account_data"]["global"]}

    same = {"lists": rooms_list(), "extensions": EXTENSIONS, "conn_id": "room-list"}
    nothing = old(alice, answer["pos"], timeout=1, **same)
    assert nothing["rooms"] == {}
    sent = bob.say(room, "again")
    bob.good("POST", "/v3/rooms/{}/receipt/m.read/{}", room, sent, body={})
    bob.good("PUT", "/v3/rooms/{}/typing/{}", room, bob.user_id, body={"typing": True})
    for _ in range(2):  # the first answer is lost
        answer = old(alice, nothing["pos"], timeout=5000, **same)
        timeline = answer["rooms"][room]["timeline"]
        assert [event["event_id"] for event in timeline] == [sent]
        assert answer["rooms"][room]["num_live"] == 1
        assert answer["extensions"]["receipts"]["rooms"][room]["content"].keys() == {sent}
        typing = answer["extensions"]["typing"]["rooms"][room]
        assert typing["content"] == {"user_ids": [bob.user_id]}
    page = {"dir": "b", "from": answer["pos"], "limit": "1"}
    assert alice.good("GET", "/v3/rooms/{}/messages", room, query=page)["chunk"]

    opened = {room: {"timeline_limit": 20, "required_state": [["*", "*"]]}}
    more = old(alice, answer["pos"], **same, room_subscriptions=opened)["rooms"][room]
    assert more["unstable_expanded_timeline"] is True
    assert len(more["timeline"]) > 5
    assert "m.room.power_levels" in {event["type"] for event in more["required_state"]}

    invited = bob.room(invite=[alice.user_id], name="Party")
    answer = old(alice, nothing["pos"], **same)
    kinds = {event["type"] for event in answer["rooms"][invited]["invite_state"]}
    assert {"m.room.create", "m.room.member", "m.room.name"} <= kinds
    assert "timeline" not in answer["rooms"][invited]


@covers(f"POST {OLD}")
def wrong_requests_of_sliding_sync(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    pos = old(alice, lists=rooms_list())["pos"]
    for who, wrong in ((bob, pos), (alice, "x1_1_1_1"), (alice, "s1_1")):
        query = {"pos": wrong}
        who.bad(400, "M_UNKNOWN_POS", "POST", OLD, body={}, query=query, described=False)
    room = {"timeline_limit": 1, "required_state": []}
    for body, code in (
        ({"lists": []}, "M_BAD_JSON"),
        ({"lists": {"a": 1}}, "M_BAD_JSON"),
        ({"lists": {"a": {"required_state": []}}}, "M_MISSING_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1}}}, "M_MISSING_PARAM"),
        ({"lists": {"a": {**room, "timeline_limit": -1}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {**room, "timeline_limit": True}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**room, "ranges": [[0]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**room, "ranges": [["0", 1]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**room, "ranges": [[3, 2]]}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {**room, "ranges": [[0, 1]] * 11}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {**room, "required_state": [["a"]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**room, "required_state": [["a", 1]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**room, "required_state": [["a", "b"]] * 201}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {**room, "filters": {"is_dm": "yes"}}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**room, "filters": {"room_types": [1]}}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**room, "filters": {"tags": ["x"] * 201}}}}, "M_INVALID_PARAM"),
        ({"lists": {f"list {number}": room for number in range(101)}}, "M_INVALID_PARAM"),
        ({"room_subscriptions": {f"!{n}:a.b": room for n in range(101)}}, "M_INVALID_PARAM"),
        ({"extensions": {"typing": {"enabled": 1}}}, "M_BAD_JSON"),
        ({"extensions": {"to_device": {"enabled": True, "since": "x"}}}, "M_INVALID_PARAM"),
        ({"extensions": {"to_device": {"enabled": True, "limit": 0}}}, "M_INVALID_PARAM"),
        ({"conn_id": 256 * "x"}, "M_INVALID_PARAM"),
    ):
        alice.bad(400, code, "POST", OLD, body=body, described=False)
    far = {"ranges": [[10**9, 10**9 + 5], [0, 2**53 - 1]], **room}
    assert old(alice, lists={"far": far})["lists"] == {"far": {"count": 0}}
    unknown = {"unknown": {"enabled": True}, "typing": {"enabled": False}}
    assert old(alice, extensions=unknown)["extensions"] == {}
    for wrong in ("soon", "-1"):
        query = {"timeout": wrong}
        alice.bad(400, "M_INVALID_PARAM", "POST", OLD, body={}, query=query, described=False)
    query = {"set_presence": "asleep"}
    alice.bad(400, "M_INVALID_PARAM", "POST", OLD, body={}, query=query, described=False)


@covers(f"POST {NEW}")
def sliding_sync_as_it_was_merged(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat", name="Kitchen", topic="soup")
    bob.join(room)
    required = {"include": [{}], "exclude": [{"type": "m.room.create"}], "lazy_members": True}
    lists = {"all": {"timeline_limit": 2, "required_state": required, "range": [0, 9]}}
    answer = new(alice, lists=lists, conn_id="main", set_presence="offline")
    shown = answer["rooms"][room]
    assert (shown["membership"], shown["lists"], shown["name"]) == ("join", ["all"], "Kitchen")
    kinds = {event["type"] for event in shown["required_state"]}
    assert {"m.room.topic", "m.room.member"} <= kinds
    assert "m.room.create" not in kinds
    alice.put_state(room, "m.room.name", {})
    again = new(alice, lists=lists, conn_id="main", pos=answer["pos"], timeout=10_000)
    assert again["rooms"][room]["name"] is None
    assert "notification_count" not in again["rooms"][room]
    typing = {"org.matrix.msc4508.typing": {"enabled": True}}
    bob.good("PUT", "/v3/rooms/{}/typing/{}", room, bob.user_id, body={"typing": True})
    found = new(alice, lists=lists, conn_id="main", pos=again["pos"], extensions=typing)
    assert room in found["extensions"]["org.matrix.msc4508.typing"]["rooms"]
    alice.upon(room, "kick", bob)
    kicked = new(bob, lists=lists)["rooms"][room]
    assert (kicked["membership"], kicked["timeline"][-1]["type"]) == ("leave", "m.room.member")
    for body, code in (
        ({"set_presence": "asleep"}, "M_INVALID_PARAM"),
        ({"timeout": -1}, "M_INVALID_PARAM"),
        ({"timeout": "1"}, "M_BAD_JSON"),
        ({"pos": 5}, "M_BAD_JSON"),
        ({"pos": "5"}, "M_UNKNOWN_POS"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": []}}}, "M_BAD_JSON"),
        ({"lists": {"a": {**lists["all"], "range": [1]}}}, "M_BAD_JSON"),
    ):
        alice.bad(400, code, "POST", NEW, body=body, described=False)


@covers(f"GET {THREAD}", f"PUT {THREAD}", f"DELETE {THREAD}", f"GET {THREADS}")
def following_threads(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    root, other = alice.say(room, "root"), alice.say(room, "other")
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    reply = bob.say(room, "reply", **relation)

    def ask(method: str, *where: str, **more: Any) -> Any:
        return alice.ask(method, THREAD, *(where or (room, root)), described=False, **more)

    def refused(status: int, code: str, method: str, *where: str, **more: Any) -> None:
        where = where or (room, root)
        alice.bad(status, code, method, THREAD, *where, described=False, **more)

    refused(404, "M_NOT_FOUND", "GET")
    assert ask("DELETE").status == 200
    code = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"
    refused(400, code, "PUT", body={"automatic": other})
    refused(404, "M_NOT_FOUND", "PUT", body={"automatic": "$unknown"})
    refused(404, "M_NOT_FOUND", "PUT", room, "$unknown", body={})
    assert ask("PUT", body={"automatic": reply}).json == {}
    assert ask("GET").json == {"automatic": True}
    assert ask("PUT").json == {}
    assert ask("PUT", body={"automatic": reply}).json == {}
    assert ask("GET").json == {"automatic": False}
    assert ask("PUT", room, other).status == 200

    extension = {"io.element.msc4308.thread_subscriptions": {"enabled": True, "limit": 1}}
    answer = old(alice, extensions=extension)
    found = answer["extensions"]["io.element.msc4308.thread_subscriptions"]
    assert set(found["subscribed"][room]) == {other}
    query = {"dir": "b", "from": found["prev_batch"]}
    page = alice.ask("GET", THREADS, query=query, described=False).json
    assert {"automatic": False, "bump_stamp": int(found["prev_batch"])} in [
        *page["subscribed"][room].values()
    ]
    assert ask("DELETE").json == {}
    refused(404, "M_NOT_FOUND", "GET")
    code = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"
    refused(409, code, "PUT", body={"automatic": reply})
    found = old(alice, answer["pos"], extensions=extension)["extensions"]
    found = found["io.element.msc4308.thread_subscriptions"]
    assert set(found["unsubscribed"][room]) == {root}
    page = alice.ask("GET", THREADS, query={"to": answer["pos"]}, described=False).json
    assert set(page) == {"unsubscribed"}
    page = alice.ask("GET", THREADS, query={"limit": "1"}, described=False).json
    assert set(page) == {"unsubscribed", "end"}
    later = bob.say(room, "another reply", **relation)
    assert ask("PUT", body={"automatic": later}).status == 200
    for query in ({"dir": "f"}, {"from": "x"}, {"limit": "0"}):
        alice.bad(400, "M_INVALID_PARAM", "GET", THREADS, query=query, described=False)


@covers("GET /v3/pushrules/global/{kind}/{ruleId}/enabled")
def rules_about_followed_threads(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    assert house.good("GET", "/_matrix/client/versions")["unstable_features"]["org.matrix.msc4306"]
    room = alice.room(preset="public_chat")
    bob.join(room)
    root = alice.say(room, "root")
    path = "/v3/pushrules/global/{}/{}"
    rule = ".io.element.msc4306.rule.subscribed_thread"
    bob.bad(404, "M_NOT_FOUND", "GET", path, "postcontent", rule)
    since = bob.sync()["next_batch"]
    bob.good("PUT", THREAD, room, root, body={})
    news = bob.ask("GET", "/v3/sync", query={"since": since}, described=False).json
    (event,) = news["account_data"]["events"]
    shown = event["content"]["global"]["postcontent"]
    assert [one["enabled"] for one in shown] == [True, True]
    found = bob.ask("GET", path, "postcontent", rule, described=False).json
    assert found in shown
    body = {"actions": ["notify"], "conditions": []}
    more = {"body": body, "described": False}
    bob.bad(400, "M_INVALID_PARAM", "PUT", path, "postcontent", "mine", **more)
    enabled = {"body": {"enabled": False}, "described": False}
    assert bob.ask("PUT", f"{path}/enabled", "postcontent", rule, **enabled).status == 200
    assert bob.good("GET", f"{path}/enabled", "override", ".m.rule.master") == {"enabled": False}
    shown = bob.ask("GET", "/v3/pushrules/", described=False).json["global"]["postcontent"]
    assert [one["enabled"] for one in shown] == [True, False]
