"""Sending, redacting, reading history, relations and threads."""

from __future__ import annotations

from tests.api.conformance.house import House, User
from tests.api.conformance.scenarios import covers
from tests.api.conformance.scenarios.rooms import UNKNOWN_ROOM

UNKNOWN_EVENT = "$" + 43 * "A"


def text(body: str, **more: object) -> dict[str, object]:
    """The content of a message."""
    return {"msgtype": "m.text", "body": body, **more}


@covers("PUT /v3/rooms/{roomId}/send/{eventType}/{txnId}")
def sending(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(preset="public_chat"), "/v3/rooms/{}/send/{}/{}"
    first = alice.good("PUT", path, room, "m.room.message", "t", body=text("one"))
    again = alice.good("PUT", path, room, "m.room.message", "t", body=text("two"))
    assert first == again
    other = alice.good("PUT", path, room, "org.example/odd type", "t", body={"f": {"n": [1, -2]}})
    assert other != first
    reaction = {"rel_type": "m.annotation", "event_id": first["event_id"], "key": "👍"}
    alice.send(room, "m.reaction", {"m.relates_to": reaction})
    twice = {"m.relates_to": reaction}
    alice.bad(400, "M_DUPLICATE_ANNOTATION", "PUT", path, room, "m.reaction", "u", body=twice)
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, "m.room.message", "t", body=text("x"))
    bob.bad(403, "M_FORBIDDEN", "PUT", path, UNKNOWN_ROOM, "m.room.message", "t", body=text("x"))
    for number, body in enumerate(({"n": 1.5}, {"n": 2**53}, [1], "text", 5, None, True)):
        alice.bad(400, "M_BAD_JSON", "PUT", path, room, "m.example", f"bad{number}", body=body)
    huge = text("x" * 66_000)
    alice.bad(413, "M_TOO_LARGE", "PUT", path, room, "m.room.message", "huge", body=huge)
    long_type = "m." + 255 * "x"
    alice.bad(413, "M_TOO_LARGE", "PUT", path, room, long_type, "v", body=text("x"))
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, room, "m.x", 300 * "t", body=text("x"))
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, "kitchen", "m.x", "t", body=text("x"))


@covers("PUT /v3/rooms/{roomId}/redact/{eventId}/{txnId}")
def redacting(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room, path = alice.room(preset="public_chat"), "/v3/rooms/{}/redact/{}/{}"
    bob.join(room)
    his, hers = bob.say(room, "his"), alice.say(room, "hers")
    bob.bad(403, "M_FORBIDDEN", "PUT", path, room, hers, "t", body={})
    first = bob.good("PUT", path, room, his, "t", body={"reason": "typo"})
    assert bob.good("PUT", path, room, his, "t", body={}) == first
    alice.good("PUT", path, room, hers, "u", body={})
    through_send = alice.send(room, "m.room.redaction", {"redacts": bob.say(room, "x")})
    for number, redaction in enumerate((first["event_id"], through_send)):
        shown = alice.good("GET", "/v3/rooms/{}/event/{}", room, redaction)
        assert shown["type"] == "m.room.redaction", number
    seen = alice.good("GET", "/v3/rooms/{}/event/{}", room, his)
    assert seen["content"] == {}
    assert seen["unsigned"]["redacted_because"]["content"]["reason"] == "typo"
    bob.bad(404, "M_NOT_FOUND", "PUT", path, room, UNKNOWN_EVENT, "v", body={})
    alice.good("PUT", path, room, UNKNOWN_EVENT, "v", body={})  # it may come later
    alice.bad(404, "M_NOT_FOUND", "PUT", path, alice.room(), his, "v", body={})
    alice.bad(400, "M_BAD_JSON", "PUT", path, room, his, "w", body={"reason": 5})
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, room, "one", "x", body={})
    house.user().bad(403, "M_FORBIDDEN", "PUT", path, room, his, "v", body={})


def a_conversation(house: House) -> tuple[User, User, str, list[str]]:
    """A room with some messages, whose sender and reader are in it."""
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat", name="Kitchen")
    bob.join(room)
    return alice, bob, room, [alice.say(room, f"message {number}") for number in range(12)]


@covers("GET /v3/rooms/{roomId}/messages")
def paging_through_history(house: House) -> None:
    alice, bob, room, sent = a_conversation(house)
    path = "/v3/rooms/{}/messages"
    found: list[str] = []
    token = ""
    while True:
        query = {"dir": "b", "limit": "5", **({"from": token} if token else {})}
        page = bob.good("GET", path, room, query=query)
        found += [event["event_id"] for event in page["chunk"]]
        if "end" not in page:
            break
        token = page["end"]
    assert len(found) == len(set(found))
    assert [event_id for event_id in reversed(found) if event_id in sent] == sent
    forwards = bob.good("GET", path, room, query={"dir": "f", "limit": "100"})["chunk"]
    assert [event["event_id"] for event in forwards] == found[::-1]
    lazy = '{"lazy_load_members":true,"types":["m.room.message"],"limit":3}'
    page = bob.good("GET", path, room, query={"dir": "b", "filter": lazy})
    assert [event["state_key"] for event in page["state"]] == [alice.user_id]
    assert len(page["chunk"]) == 3
    since = bob.sync()["next_batch"]
    last = alice.say(room, "last")
    page = bob.good("GET", path, room, query={"dir": "f", "from": since})
    assert [event["event_id"] for event in page["chunk"]] == [last]

    bob.bad(400, "M_MISSING_PARAM", "GET", path, room)
    for query in ("dir=x", "dir=b&from=x", "dir=b&to=x", "dir=b&limit=x", "dir=b&limit=0"):
        bob.bad(400, "M_INVALID_PARAM", "GET", path, room, query=query)
    bob.bad(400, "M_INVALID_PARAM", "GET", path, room, query={"dir": "b", "filter": "{"})
    stranger = house.user()
    stranger.bad(403, "M_FORBIDDEN", "GET", path, room, query="dir=b")
    stranger.bad(403, "M_FORBIDDEN", "GET", path, UNKNOWN_ROOM, query="dir=b")
    stranger.bad(400, "M_INVALID_PARAM", "GET", path, "kitchen", query="dir=b")


@covers(
    "GET /v3/rooms/{roomId}/event/{eventId}",
    "GET /v3/rooms/{roomId}/context/{eventId}",
    "GET /v1/rooms/{roomId}/timestamp_to_event",
)
def looking_up_events(house: House) -> None:
    alice, bob, room, sent = a_conversation(house)
    event, context = "/v3/rooms/{}/event/{}", "/v3/rooms/{}/context/{}"
    shown = bob.good("GET", event, room, sent[3])
    assert shown["content"]["body"] == "message 3"
    around = bob.good("GET", context, room, sent[3], query="limit=4")
    assert around["event"]["event_id"] == sent[3]
    assert [one["event_id"] for one in around["events_before"]] == [sent[2], sent[1]]
    assert [one["event_id"] for one in around["events_after"]] == [sent[4], sent[5]]
    page = bob.good("GET", "/v3/rooms/{}/messages", room, query={"dir": "f", "from": around["end"]})
    assert page["chunk"][0]["event_id"] == sent[6]
    alone = bob.good("GET", context, room, sent[3], query="limit=0")
    assert alone["events_before"] == alone["events_after"] == []
    lazy = {"limit": "4", "filter": '{"lazy_load_members":true}'}
    state = bob.good("GET", context, room, sent[3], query=lazy)["state"]
    members = [one["state_key"] for one in state if one["type"] == "m.room.member"]
    assert members == [alice.user_id]

    when = "/v1/rooms/{}/timestamp_to_event"
    first = bob.good("GET", when, room, query="ts=0&dir=f")
    assert bob.good("GET", event, room, first["event_id"])["type"] == "m.room.create"
    newest = bob.good("GET", when, room, query={"ts": str(2**52), "dir": "b"})
    assert newest["event_id"] == sent[-1]
    bob.bad(404, "M_NOT_FOUND", "GET", when, room, query="ts=0&dir=b")
    bob.bad(404, "M_NOT_FOUND", "GET", when, room, query={"ts": str(2**52), "dir": "f"})
    for query in ("dir=f&ts=x", "dir=x&ts=0", "dir=f&ts=-1"):
        bob.bad(400, "M_INVALID_PARAM", "GET", when, room, query=query)
    for query in ("dir=f", "ts=0"):
        bob.bad(400, "M_MISSING_PARAM", "GET", when, room, query=query)

    stranger = house.user()
    for path in (event, context):
        bob.bad(404, "M_NOT_FOUND", "GET", path, room, UNKNOWN_EVENT)
        bob.bad(404, "M_NOT_FOUND", "GET", path, bob.room(), sent[3])
        stranger.bad(404, "M_NOT_FOUND", "GET", path, room, sent[3])
        stranger.bad(404, "M_NOT_FOUND", "GET", path, UNKNOWN_ROOM, sent[3])
        bob.bad(400, "M_INVALID_PARAM", "GET", path, room, "one")
        bob.bad(400, "M_INVALID_PARAM", "GET", path, "kitchen", sent[3])
    for query in ("limit=x", "limit=-1", "filter=x"):
        bob.bad(400, "M_INVALID_PARAM", "GET", context, room, sent[3], query=query)
    stranger.bad(403, "M_FORBIDDEN", "GET", when, room, query="ts=0&dir=f")


RELATIONS = "/v1/rooms/{}/relations/{}"


@covers(
    "GET /v1/rooms/{roomId}/relations/{eventId}",
    "GET /v1/rooms/{roomId}/relations/{eventId}/{relType}",
    "GET /v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}",
)
def relations(house: House) -> None:
    alice, bob, room, sent = a_conversation(house)
    root = sent[0]
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    replies = [bob.say(room, f"reply {number}", **thread) for number in range(3)]
    new = text("edited")
    replace = {"m.relates_to": {"rel_type": "m.replace", "event_id": root}}
    edit = alice.say(room, "* edited", **{"m.new_content": new}, **replace)
    reaction = {"rel_type": "m.annotation", "event_id": root, "key": "👍"}
    reacted = bob.send(room, "m.reaction", {"m.relates_to": reaction})
    mention = {"m.relates_to": {"rel_type": "m.reference", "event_id": root}}
    referred = bob.say(room, "see above", **mention)

    def related(*path: str, **query: str) -> list[str]:
        pattern = RELATIONS + "/{}" * (len(path) - 1)
        chunk = alice.good("GET", pattern, room, *path, query=query)["chunk"]
        return [event["event_id"] for event in chunk]

    assert related(root, limit="50") == [referred, reacted, edit, *replies[::-1]]
    assert related(root, "m.thread", dir="f") == replies
    assert related(root, "m.annotation", "m.reaction") == [reacted]
    assert related(root, "m.annotation", "m.room.message") == []
    nested = {"m.relates_to": {"rel_type": "m.annotation", "event_id": replies[0], "key": "👍"}}
    deep = alice.send(room, "m.reaction", nested)
    whole = alice.good("GET", RELATIONS, room, root, query="recurse=true&limit=50")
    assert deep in [event["event_id"] for event in whole["chunk"]]
    assert whole["recursion_depth"] >= 3
    page = alice.good("GET", RELATIONS, room, root, query="limit=2&dir=f")
    rest = alice.good(
        "GET", RELATIONS, room, root, query={"limit": "9", "dir": "f", "from": page["next_batch"]}
    )
    ids = [event["event_id"] for event in (*page["chunk"], *rest["chunk"])]
    assert ids == [*replies, edit, reacted, referred]

    shown = bob.good("GET", "/v3/rooms/{}/event/{}", room, root)["unsigned"]["m.relations"]
    assert shown["m.replace"]["event_id"] == edit
    assert shown["m.thread"]["latest_event"]["event_id"] == replies[-1]
    assert shown["m.thread"]["count"] == 3
    assert shown["m.reference"] == {"chunk": [{"event_id": referred}]}
    assert "m.annotation" not in shown

    for query in ("dir=x", "from=x", "limit=x", "recurse=perhaps"):
        alice.bad(400, "M_INVALID_PARAM", "GET", RELATIONS, room, root, query=query)
    stranger = house.user()
    for pattern in (RELATIONS, RELATIONS + "/m.thread", RELATIONS + "/m.thread/m.room.message"):
        alice.bad(404, "M_NOT_FOUND", "GET", pattern, room, UNKNOWN_EVENT)
        stranger.bad(404, "M_NOT_FOUND", "GET", pattern, room, root)
        stranger.bad(404, "M_NOT_FOUND", "GET", pattern, UNKNOWN_ROOM, root)


@covers("GET /v1/rooms/{roomId}/threads")
def threads(house: House) -> None:
    alice, bob, room, sent = a_conversation(house)
    root, threads = sent[0], "/v1/rooms/{}/threads"
    reply = bob.say(room, "reply", **_in_thread(root))
    other = alice.say(room, "in another", **_in_thread(sent[1]))
    listed = alice.good("GET", threads, room)["chunk"]
    assert [event["event_id"] for event in listed] == [sent[1], root]
    assert listed[0]["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"] == other
    mine = bob.good("GET", threads, room, query="include=participated")["chunk"]
    assert [event["event_id"] for event in mine] == [root]
    page = alice.good("GET", threads, room, query="limit=1")
    rest = alice.good("GET", threads, room, query={"limit": "1", "from": page["next_batch"]})
    assert rest["chunk"][0]["event_id"] == root

    for query in ("include=x", "from=x", "limit=x"):
        alice.bad(400, "M_INVALID_PARAM", "GET", threads, room, query=query)
    house.user().bad(403, "M_FORBIDDEN", "GET", threads, room)
    nested_thread = text("x", **_in_thread(reply))
    path = "/v3/rooms/{}/send/{}/{}"
    alice.bad(400, "M_UNKNOWN", "PUT", path, room, "m.room.message", "n", body=nested_thread)


def _in_thread(root: str) -> dict[str, object]:
    return {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
