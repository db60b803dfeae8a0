"""C13, C15, and the limits of T081: receipts, typing, profiles, account data, tags."""

from __future__ import annotations

from tests.api.conformance.house import PASSWORD, House
from tests.api.conformance.requirements import requirement
from tests.api.conformance.scenarios.events import UNKNOWN_EVENT
from tests.api.conformance.scenarios.rooms import UNKNOWN_ROOM

RECEIPT, MARKERS = "/v3/rooms/{}/receipt/{}/{}", "/v3/rooms/{}/read_markers"
DATA, ROOM_DATA = "/v3/user/{}/account_data/{}", "/v3/user/{}/rooms/{}/account_data/{}"
PROFILE = "/v3/profile/{}/{}"
BY_THREAD = '{"room":{"timeline":{"unread_thread_notifications":true}}}'


def in_thread(root: str) -> dict[str, object]:
    """The part of a content that puts it into a thread."""
    return {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}


@requirement("C13.01", "C13.03")
def receipts_of_threads(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    root, other = alice.say(room), alice.say(room)
    reply = alice.say(room, **in_thread(root))
    reacted = {"m.relates_to": {"rel_type": "m.annotation", "event_id": reply, "key": "k"}}
    deep = alice.send(room, "m.reaction", reacted)
    # What relates to the root in another way is shown with the thread by some clients.
    about = {"m.relates_to": {"rel_type": "m.reference", "event_id": root}}
    aside = alice.send(room, "m.room.message", {"msgtype": "m.text", "body": "b", **about})
    reacted = {"m.relates_to": {"rel_type": "m.annotation", "event_id": aside, "key": "k"}}
    beside = alice.send(room, "m.reaction", reacted)
    for event, thread in (
        (root, "main"),
        (other, "main"),
        (reply, root),
        (deep, root),
        (aside, "main"),
        (beside, root),
    ):
        body = {"thread_id": thread}
        assert bob.good("POST", RECEIPT, room, "m.read", event, body=body) == {}
    for event, thread in (
        (reply, "main"),
        (other, root),
        (reply, other),
        (deep, "main"),
        (beside, other),
    ):
        body = {"thread_id": thread}
        bob.bad(400, "M_INVALID_PARAM", "POST", RECEIPT, room, "m.read", event, body=body)
    for thread in ("", 5, [], {}, True):
        body = {"thread_id": thread}
        bob.bad(400, "M_INVALID_PARAM", "POST", RECEIPT, room, "m.read", other, body=body)
    body = {"thread_id": "main"}
    bob.bad(400, "M_INVALID_PARAM", "POST", RECEIPT, room, "m.fully_read", other, body=body)
    for kind in ("m.unheard", "read"):
        bob.bad(400, "M_INVALID_PARAM", "POST", RECEIPT, room, kind, other, body={})
    bob.bad(404, "M_NOT_FOUND", "POST", RECEIPT, room, "m.read", UNKNOWN_EVENT, body={})


@requirement("C13.02")
def receipts_do_not_go_back(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    first, second = alice.say(room), alice.say(room)
    bob.good("POST", RECEIPT, room, "m.read", second, body={})
    bob.good("POST", RECEIPT, room, "m.read", first, body={})
    shown = alice.sync()["rooms"]["join"][room]["ephemeral"]["events"]
    content = next(event["content"] for event in shown if event["type"] == "m.receipt")
    assert bob.user_id in content[second]["m.read"]
    assert first not in content


def unread(user, room: str, filter_: str = BY_THREAD):
    """The counts of a room: of the main timeline, and by thread."""
    part = user.sync(filter=filter_)["rooms"]["join"][room]
    threads = part.get("unread_thread_notifications", {})
    assert threads or "unread_thread_notifications" not in part
    counts = {root: thread["notification_count"] for root, thread in threads.items()}
    return part["unread_notifications"]["notification_count"], counts


@requirement("C13.04", "C8.18", "K.19")
def receipts_and_counts(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    root = alice.say(room)
    replies = [alice.say(room, **in_thread(root)) for _ in range(2)]
    last = alice.say(room)
    assert unread(bob, room) == (2, {root: 2})
    assert unread(bob, room, "{}") == (4, {})
    bob.good("POST", RECEIPT, room, "m.read", replies[0], body={"thread_id": root})
    assert unread(bob, room) == (2, {root: 1})
    bob.good("POST", RECEIPT, room, "m.read", last, body={"thread_id": "main"})
    assert unread(bob, room)[0] == 0
    since = bob.sync()["next_batch"]
    bob.good("POST", RECEIPT, room, "m.read", last, body={})
    news = bob.sync(since)["rooms"]["join"][room]
    assert news["unread_notifications"]["notification_count"] == 0
    assert unread(bob, room) == (0, {})
    alice.say(room)
    bob.say(room)
    assert unread(bob, room)[0] == 0  # who answers has read
    alice.say(room, **in_thread(root))
    about = {"m.relates_to": {"rel_type": "m.reference", "event_id": root}}
    aside = alice.send(room, "m.room.message", {"msgtype": "m.text", "body": "b", **about})
    assert unread(bob, room) == (1, {root: 1})
    bob.good("POST", RECEIPT, room, "m.read", aside, body={"thread_id": root})
    assert unread(bob, room) == (1, {})  # the receipt is the thread's, wherever it stands


@requirement("C13.05")
def private_receipts(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    first, second = alice.say(room), alice.say(room)
    since = alice.sync()["next_batch"]
    bob.good("POST", RECEIPT, room, "m.read.private", second, body={})
    bob.good("POST", RECEIPT, room, "m.read", first, body={})
    assert unread(bob, room)[0] == 0
    events = alice.sync(since)["rooms"]["join"][room]["ephemeral"]["events"]
    assert [set(event["content"]) for event in events] == [{first}]
    assert second not in str(alice.sync()["rooms"]["join"][room]["ephemeral"])
    assert "m.read.private" in str(bob.sync()["rooms"]["join"][room]["ephemeral"])


@requirement("C13.06")
def markers(house: House) -> None:
    alice = house.user()
    room = alice.room()
    event = alice.say(room)
    assert alice.good("POST", MARKERS, room, body={"m.fully_read": event}) == {}
    mine = alice.user_id
    found = alice.good("GET", ROOM_DATA, mine, room, "m.fully_read")
    assert found == {"event_id": event}
    alice.bad(405, "M_BAD_JSON", "PUT", ROOM_DATA, mine, room, "m.fully_read", body={})
    alice.good("PUT", ROOM_DATA, mine, room, "m.marked_unread", body={"unread": True})


@requirement("C13.07")
def typing(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(preset="public_chat"), "/v3/rooms/{}/typing/{}"
    bob.join(room)
    for user in (alice, bob):
        user.good("PUT", path, room, user.user_id, body={"typing": True, "timeout": 30_000})
    shown = alice.sync()["rooms"]["join"][room]["ephemeral"]["events"]
    names = next(e["content"]["user_ids"] for e in shown if e["type"] == "m.typing")
    assert set(names) == {alice.user_id, bob.user_id}
    since = alice.sync()["next_batch"]
    bob.good("PUT", path, room, bob.user_id, body={"typing": True, "timeout": 1})
    ended = alice.sync(since, timeout="5000")
    while not ended.get("rooms", {}).get("join", {}).get(room, {}).get("ephemeral"):
        ended = alice.sync(ended["next_batch"], timeout="5000")
    last = ended["rooms"]["join"][room]["ephemeral"]["events"][-1]
    assert last["content"]["user_ids"] in ([alice.user_id], [alice.user_id, bob.user_id])
    body = {"typing": True}
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, alice.user_id, body=body)
    bob.leave(room)
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, bob.user_id, body=body)


@requirement("C15.01")
def profiles_are_read(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    assert bob.good("GET", "/v3/profile/{}", alice.user_id) == {}
    bob.bad(404, "M_NOT_FOUND", "GET", "/v3/profile/{}", "@nobody:home.test")
    assert house.good("GET", "/v3/profile/{}", alice.user_id) == {}  # as the configuration has it


@requirement("C15.02", "C15.03")
def profile_fields(house: House) -> None:
    alice = house.user()
    mine, long = alice.user_id, "org." + 251 * "x"
    alice.good("PUT", PROFILE, mine, long, body={long: 1})
    alice.bad(400, "M_KEY_TOO_LARGE", "PUT", PROFILE, mine, long + "x", body={long + "x": 1})
    alice.bad(400, "M_MISSING_PARAM", "PUT", PROFILE, mine, "org.a", body={"org.b": 1})
    alice.bad(400, "M_MISSING_PARAM", "PUT", PROFILE, mine, "org.a", body={})
    huge = {"org.a": 66_000 * "x"}
    alice.bad(400, "M_PROFILE_TOO_LARGE", "PUT", PROFILE, mine, "org.a", body=huge)
    alice.good("PUT", PROFILE, mine, "org.null", body={"org.null": None})
    assert alice.good("GET", PROFILE, mine, "org.null") == {"org.null": None}
    for _ in range(2):
        assert alice.good("DELETE", PROFILE, mine, "org.null") == {}
    alice.bad(404, "M_NOT_FOUND", "GET", PROFILE, mine, "org.null")


@requirement("C15.04")
def only_two_fields_go_into_rooms(house: House) -> None:
    alice = house.user()
    room, mine = alice.room(), alice.user_id
    for key, value in (("displayname", "A"), ("m.tz", "Europe/Berlin"), ("org.a", "b")):
        alice.good("PUT", PROFILE, mine, key, body={key: value})
    assert alice.state(room, "m.room.member", mine) == {"membership": "join", "displayname": "A"}


@requirement("C15.05", "C15.06")
def account_data(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    phone = house.login(alice)
    room, mine = alice.room(), alice.user_id
    since = phone.sync()["next_batch"]
    for kind in ("m.direct", "m.secret_storage.default_key", "m.cross_signing.master", "org.a"):
        alice.good("PUT", DATA, mine, kind, body={"k": kind})
    told = phone.sync(since)["account_data"]["events"]
    assert {event["type"] for event in told} >= {"m.direct", "org.a"}
    for kind in ("m.fully_read", "m.push_rules"):
        alice.bad(405, "M_BAD_JSON", "PUT", DATA, mine, kind, body={})
        alice.bad(405, "M_BAD_JSON", "PUT", ROOM_DATA, mine, room, kind, body={})
    alice.bad(400, "M_BAD_JSON", "PUT", DATA, mine, "org.a", body=[])
    alice.bad(404, "M_NOT_FOUND", "GET", DATA, mine, "org.none")
    alice.bad(400, "M_INVALID_PARAM", "GET", ROOM_DATA, mine, "kitchen", "org.a")
    alice.bad(404, "M_NOT_FOUND", "GET", ROOM_DATA, mine, UNKNOWN_ROOM, "org.a")
    bob.bad(403, "M_FORBIDDEN", "GET", DATA, mine, "m.direct")
    bob.bad(403, "M_FORBIDDEN", "PUT", DATA, mine, "m.direct", body={})


@requirement("C15.07")
def invitations_can_be_blocked(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, kind = alice.room(), "m.invite_permission_config"
    early = alice.room(invite=[bob.user_id])
    bob.good("PUT", DATA, bob.user_id, kind, body={"default_action": "block"})
    body = {"user_id": bob.user_id}
    alice.bad(403, "M_INVITE_BLOCKED", "POST", "/v3/rooms/{}/invite", room, body=body)
    invite = {"membership": "invite"}
    path = "/v3/rooms/{}/state/m.room.member/{}"
    alice.bad(403, "M_INVITE_BLOCKED", "PUT", path, room, bob.user_id, body=invite)
    new = {"invite": [bob.user_id]}
    alice.bad(403, "M_INVITE_BLOCKED", "POST", "/v3/createRoom", body=new)
    assert early not in bob.sync().get("rooms", {}).get("invite", {})
    bob.good("PUT", DATA, bob.user_id, kind, body={"default_action": "allow"})
    assert early in bob.sync()["rooms"]["invite"]


@requirement("C15.08")
def tags(house: House) -> None:
    alice = house.user()
    room, path = alice.room(), "/v3/user/{}/rooms/{}/tags/{}"
    alice.good("PUT", path, alice.user_id, room, "u.a", body={"order": 0.5})
    alice.good("PUT", path, alice.user_id, room, "m.favourite", body={"order": 1})
    found = alice.sync()["rooms"]["join"][room]["account_data"]["events"]
    tags_ = {"u.a": {"order": 0.5}, "m.favourite": {"order": 1}}
    assert {"type": "m.tag", "content": {"tags": tags_}} in found
    alice.bad(400, "M_BAD_JSON", "PUT", path, alice.user_id, room, "u.a", body={"order": "1"})


@requirement("C15.09", "C8.29")
def ignored_users(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    kind = "m.ignored_user_list"
    alice.good("PUT", DATA, alice.user_id, kind, body={"ignored_users": {bob.user_id: {}}})
    since = alice.sync()["next_batch"]
    bob.say(room)
    invited = bob.room(invite=[alice.user_id])
    name = {"displayname": "Bob"}
    bob.good("PUT", PROFILE, bob.user_id, "displayname", body=name)
    after = alice.sync(since)
    events = after["rooms"]["join"][room]["timeline"]["events"]
    assert [event["type"] for event in events] == ["m.room.member"]
    assert invited not in after["rooms"].get("invite", {})
    assert unread(alice, room)[0] == 0
    alice.good("PUT", DATA, alice.user_id, kind, body={"ignored_users": {}})
    heard = bob.say(room)
    news = alice.sync(after["next_batch"])["rooms"]["join"][room]["timeline"]["events"]
    assert [event["event_id"] for event in news] == [heard]


@requirement("T081")
def what_a_user_stores_is_counted(house: House) -> None:
    alice = house.user()
    mine = alice.user_id
    define = "/v3/user/{}/filter"
    for number in range(200):
        body = {"room": {"timeline": {"limit": number + 1}}}
        alice.good("POST", define, mine, body=body)
    last = {"room": {"timeline": {"limit": 999}}}
    alice.bad(400, "M_INVALID_PARAM", "POST", define, mine, body=last)
    alice.good("POST", define, mine, body={"room": {"timeline": {"limit": 1}}})  # known already

    rule, path = {"actions": [], "pattern": "x"}, "/v3/pushrules/global/content/{}"
    for number in range(500):
        alice.good("PUT", path, str(number), body=rule)
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, "more", body=rule)
    alice.good("PUT", path, "499", body=rule)
    long = {"actions": [], "pattern": 257 * "x"}
    alice.bad(400, "M_BAD_JSON", "PUT", path, "499", body=long)

    for number in range(1000):
        alice.good("PUT", DATA, mine, f"org.{number}", body={})
    alice.bad(400, "M_INVALID_PARAM", "PUT", DATA, mine, "org.more", body={})
    alice.good("PUT", DATA, mine, "org.0", body={"again": True})


@requirement("T081")
def devices_are_counted(house: House) -> None:
    alice = house.user()
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": PASSWORD,
    }
    for _ in range(199):
        house.good("POST", "/v3/login", body=body)
    house.bad(403, "M_FORBIDDEN", "POST", "/v3/login", body=body)
    house.good("POST", "/v3/login", body={**body, "device_id": alice.device_id})
