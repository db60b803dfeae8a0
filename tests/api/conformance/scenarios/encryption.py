"""Keys, key backups, messages between devices."""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import House, User
from tests.api.conformance.scenarios import covers
from tests.api.conformance.scenarios.rooms import UNKNOWN_ROOM
from tests.api.conformance.server import SERVER_NAME
from tests.e2ee.people import ALGORITHM, CrossSigning, new_key, signed

UPLOAD, QUERY, CLAIM = "/v3/keys/upload", "/v3/keys/query", "/v3/keys/claim"
NOBODY = f"@nobody:{SERVER_NAME}"


class Keys:
    """The keys of one session."""

    def __init__(self, user: User, device_id: str | None = None) -> None:
        self.user, self.key = user, new_key()
        self.device_id = device_id or user.device_id
        self.name = f"ed25519:{self.device_id}"
        self.count = 0

    def sign(self, value: Any) -> Any:
        """Something signed by the device."""
        return signed(value, self.user.user_id, self.name, self.key)

    def identity(self) -> Any:
        """The device's own keys."""
        public = self.key.verify_key_base64
        return self.sign(
            {
                "user_id": self.user.user_id,
                "device_id": self.device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {self.name: public, f"curve25519:{self.device_id}": public},
            }
        )

    def prekeys(self, count: int, **more: Any) -> Any:
        """Keys to be handed out."""
        first, self.count = self.count, self.count + count
        return {
            f"{ALGORITHM}:K{number}": self.sign({"key": new_key().verify_key_base64, **more})
            for number in range(first, self.count)
        }


@covers(
    "POST /v3/keys/upload",
    "POST /v3/keys/query",
    "POST /v3/keys/claim",
    "GET /v3/keys/changes",
)
def device_keys(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    room = alice.room(preset="public_chat")
    bob.join(room)
    since = bob.sync()["next_batch"]
    keys = Keys(alice)
    body = {
        "device_keys": keys.identity(),
        "one_time_keys": keys.prekeys(2),
        "fallback_keys": keys.prekeys(1, fallback=True),
    }
    for _ in range(2):
        counts = alice.good("POST", UPLOAD, body=body)["one_time_key_counts"]
        assert counts == {ALGORITHM: 2}
    assert alice.good("POST", UPLOAD, body={}) == {"one_time_key_counts": counts}
    changed = {"changed": [alice.user_id], "left": []}
    synced = bob.sync(since)
    assert synced["device_lists"] == changed
    query = {"from": since, "to": synced["next_batch"]}
    assert bob.good("GET", "/v3/keys/changes", query=query) == changed

    body = {"device_keys": {alice.user_id: [], NOBODY: ["X"]}, "timeout": 1000}
    found = bob.good("POST", QUERY, body=body)
    assert found["device_keys"] == {alice.user_id: {alice.device_id: keys.identity()}}
    wanted = {"one_time_keys": {alice.user_id: {alice.device_id: ALGORITHM}}}
    names = [
        next(iter(bob.good("POST", CLAIM, body=wanted)["one_time_keys"][alice.user_id].values()))
        for _ in range(3)
    ]
    assert [next(iter(name)) for name in names] == [f"{ALGORITHM}:K{number}" for number in range(3)]
    synced = alice.sync()
    assert synced["device_one_time_keys_count"] == {ALGORITHM: 0}
    assert synced["device_unused_fallback_key_types"] == []
    _refused_keys(alice, bob, keys, since)


def _refused_keys(alice: User, bob: User, keys: Keys, since: str) -> None:
    other = Keys(alice).prekeys(5)
    alice.good("POST", UPLOAD, body={"one_time_keys": other})
    again = {"one_time_keys": {**Keys(alice).prekeys(4)}}
    alice.bad(400, "M_INVALID_PARAM", "POST", UPLOAD, body=again)
    identity = keys.identity()
    for body, errcode in (
        ({"device_keys": []}, "M_BAD_JSON"),
        ({"device_keys": {**identity, "user_id": bob.user_id}}, "M_INVALID_PARAM"),
        ({"device_keys": {**identity, "device_id": "OTHER"}}, "M_INVALID_PARAM"),
        ({"device_keys": {**identity, "signatures": {alice.user_id: {}}}}, "M_INVALID_PARAM"),
        ({"device_keys": {**identity, "keys": []}}, "M_BAD_JSON"),
        ({"one_time_keys": []}, "M_BAD_JSON"),
        ({"one_time_keys": {"x": "y"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {f"{ALGORITHM}:x": {"key": 5}}}, "M_BAD_JSON"),
        ({"fallback_keys": {f"{ALGORITHM}:x": 5}}, "M_BAD_JSON"),
    ):
        alice.bad(400, errcode, "POST", UPLOAD, body=body)
    many = {f"@u{number}:{SERVER_NAME}": [] for number in range(300)}
    for body, errcode in (
        ({}, "M_MISSING_PARAM"),
        ({"device_keys": []}, "M_BAD_JSON"),
        ({"device_keys": {"alice": []}}, "M_INVALID_PARAM"),
        ({"device_keys": {alice.user_id: [5]}}, "M_BAD_JSON"),
        ({"device_keys": {}, "timeout": -1}, "M_INVALID_PARAM"),
        ({"device_keys": {}, "timeout": "x"}, "M_BAD_JSON"),
        ({"device_keys": many}, "M_INVALID_PARAM"),
    ):
        bob.bad(400, errcode, "POST", QUERY, body=body)
    for body, errcode in (
        ({}, "M_MISSING_PARAM"),
        ({"one_time_keys": {alice.user_id: []}}, "M_BAD_JSON"),
        ({"one_time_keys": {alice.user_id: {"X": 5}}}, "M_BAD_JSON"),
        ({"one_time_keys": {"alice": {}}}, "M_INVALID_PARAM"),
    ):
        bob.bad(400, errcode, "POST", CLAIM, body=body)
    for query, errcode in (
        ({"from": since}, "M_MISSING_PARAM"),
        ({"to": since}, "M_MISSING_PARAM"),
        ({"from": "x", "to": since}, "M_INVALID_PARAM"),
        ({"from": since, "to": "x"}, "M_INVALID_PARAM"),
    ):
        bob.bad(400, errcode, "GET", "/v3/keys/changes", query=query)


SIGNING, SIGNATURES = "/v3/keys/device_signing/upload", "/v3/keys/signatures/upload"


@covers("POST /v3/keys/device_signing/upload", "POST /v3/keys/signatures/upload")
def cross_signing(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    keys, mine = Keys(alice), CrossSigning(alice.user_id)
    alice.good("POST", UPLOAD, body={"device_keys": keys.identity()})
    alice.bad(400, "M_MISSING_PARAM", "POST", SIGNING, body={})
    for _ in range(2):
        assert alice.good("POST", SIGNING, body=mine.upload()) == {}
    other = CrossSigning(alice.user_id)
    assert alice.with_password("POST", SIGNING, body=other.upload()) == {}
    for change in (
        {"master_key": 5},
        {"master_key": {**other.public("master"), "usage": []}},
        {"self_signing_key": {**other.public("self_signing"), "user_id": bob.user_id}},
    ):
        answer = alice.ask("POST", SIGNING, body=change)
        assert (answer.status, answer.errcode in ("M_BAD_JSON", "M_INVALID_PARAM")) == (400, True)
    wrong = {"user_signing_key": mine.public("user_signing")}
    alice.bad(400, "M_INVALID_SIGNATURE", "POST", SIGNING, body=wrong)
    taken = CrossSigning(bob.user_id)
    name = taken.master.verify_key_base64
    login = {
        "type": "m.login.password",
        "user": bob.user_id,
        "password": "correct horse battery staple",
        "device_id": name,
    }
    house.good("POST", "/v3/login", body=login)
    bob.bad(403, "M_FORBIDDEN", "POST", SIGNING, body=taken.upload())

    device = other.sign(keys.identity(), "self_signing")
    body: Any = {alice.user_id: {alice.device_id: device, "NONE": device}, NOBODY: {"x": {}}}
    failures = alice.good("POST", SIGNATURES, body=body)["failures"]
    assert failures[alice.user_id]["NONE"]["errcode"] == "M_NOT_FOUND"
    assert failures[NOBODY]["x"]["errcode"] == "M_NOT_FOUND"
    found = bob.good("POST", QUERY, body={"device_keys": {alice.user_id: []}})
    assert found["device_keys"][alice.user_id] == {alice.device_id: device}
    assert found["master_keys"] == {alice.user_id: other.public("master")}
    assert "user_signing_keys" not in found or found["user_signing_keys"] == {}
    alice.bad(400, "M_INVALID_PARAM", "POST", SIGNATURES, body={alice.user_id: []})
    alice.bad(400, "M_INVALID_PARAM", "POST", SIGNATURES, body={"alice": {}})


@covers("PUT /v3/sendToDevice/{eventType}/{txnId}")
def to_device(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    path, since = "/v3/sendToDevice/{}/{}", bob.sync()["next_batch"]
    body = {"messages": {bob.user_id: {"*": {"n": 1}}, NOBODY: {"*": {}}}}
    for _ in range(2):
        assert alice.good("PUT", path, "m.new/type", "t1", body=body) == {}
    events = bob.sync(since)["to_device"]["events"]
    assert events == [{"type": "m.new/type", "sender": alice.user_id, "content": {"n": 1}}]
    for body, errcode in (
        ({}, "M_MISSING_PARAM"),
        ({"messages": []}, "M_BAD_JSON"),
        ({"messages": {"bob": {}}}, "M_INVALID_PARAM"),
        ({"messages": {bob.user_id: []}}, "M_BAD_JSON"),
        ({"messages": {bob.user_id: {"*": 5}}}, "M_BAD_JSON"),
    ):
        alice.bad(400, errcode, "PUT", path, "m.new", "t2", body=body)
    alice.bad(400, "M_INVALID_PARAM", "PUT", path, "m.new", 300 * "x", body={"messages": {}})
    large = {"messages": {bob.user_id: {"*": {"x": 70_000 * "x"}}}}
    alice.bad(413, "M_TOO_LARGE", "PUT", path, "m.new", "t3", body=large)


VERSIONS, VERSION = "/v3/room_keys/version", "/v3/room_keys/version/{}"
KEYS, ROOM, SESSION = "/v3/room_keys/keys", "/v3/room_keys/keys/{}", "/v3/room_keys/keys/{}/{}"
BACKUP = {
    "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
    "auth_data": {"public_key": "abcdefg", "signatures": {}},
}


def backed_up(first: int) -> Any:
    """A session, better the lower the number."""
    data = {"ephemeral": "a", "ciphertext": "b", "mac": "c"}
    return {
        "first_message_index": first,
        "forwarded_count": 0,
        "is_verified": False,
        "session_data": data,
    }


@covers(
    "POST /v3/room_keys/version",
    "GET /v3/room_keys/version",
    "GET /v3/room_keys/version/{version}",
    "PUT /v3/room_keys/version/{version}",
    "DELETE /v3/room_keys/version/{version}",
)
def key_backup_versions(house: House) -> None:
    alice = house.user("alice")
    alice.bad(404, "M_NOT_FOUND", "GET", VERSIONS)
    version = alice.good("POST", VERSIONS, body=BACKUP)["version"]
    found = alice.good("GET", VERSIONS)
    assert found == {**BACKUP, "version": version, "count": 0, "etag": found["etag"]}
    assert alice.good("GET", VERSION, version) == found
    body = {**BACKUP, "auth_data": {"public_key": "other", "signatures": {}}}
    assert alice.good("PUT", VERSION, version, body={**body, "version": version}) == {}
    assert alice.good("GET", VERSION, version)["auth_data"] == body["auth_data"]
    alice.bad(400, "M_INVALID_PARAM", "PUT", VERSION, version, body={**body, "version": "x"})
    wrong = {**body, "algorithm": "other"}
    alice.bad(400, "M_INVALID_PARAM", "PUT", VERSION, version, body=wrong)
    alice.bad(404, "M_NOT_FOUND", "PUT", VERSION, "99", body=body)
    for body, errcode in (({}, "M_MISSING_PARAM"), ({**BACKUP, "auth_data": []}, "M_BAD_JSON")):
        alice.bad(400, errcode, "POST", VERSIONS, body=body)
        alice.bad(400, errcode, "PUT", VERSION, version, body=body)
    alice.bad(404, "M_NOT_FOUND", "GET", VERSION, "99")
    alice.bad(404, "M_NOT_FOUND", "DELETE", VERSION, "99")
    for _ in range(2):
        assert alice.good("DELETE", VERSION, version) == {}
    alice.bad(404, "M_NOT_FOUND", "GET", VERSION, version)


@covers(
    "PUT /v3/room_keys/keys",
    "GET /v3/room_keys/keys",
    "DELETE /v3/room_keys/keys",
    "PUT /v3/room_keys/keys/{roomId}",
    "GET /v3/room_keys/keys/{roomId}",
    "DELETE /v3/room_keys/keys/{roomId}",
    "PUT /v3/room_keys/keys/{roomId}/{sessionId}",
    "GET /v3/room_keys/keys/{roomId}/{sessionId}",
    "DELETE /v3/room_keys/keys/{roomId}/{sessionId}",
)
def key_backup_keys(house: House) -> None:
    alice = house.user("alice")
    old = {"version": alice.good("POST", VERSIONS, body=BACKUP)["version"]}
    new = {"version": alice.good("POST", VERSIONS, body=BACKUP)["version"]}
    room, other = f"!room:{SERVER_NAME}", f"!other:{SERVER_NAME}"
    sessions = {"sessions": {"a/b": backed_up(5), "c": backed_up(5)}}
    bodies: dict[str, Any] = {
        KEYS: {"rooms": {room: sessions, other: {"sessions": {"d": backed_up(1)}}}},
        ROOM: sessions,
        SESSION: backed_up(5),
    }
    places = {KEYS: (), ROOM: (room,), SESSION: (room, "a/b")}
    first = alice.good("PUT", KEYS, body=bodies[KEYS], query=new)
    assert first["count"] == 3
    for path, where in places.items():
        assert alice.good("PUT", path, *where, body=bodies[path], query=new) == first
        assert alice.good("GET", path, *where, query=new) == bodies[path]
        wrong = alice.bad(
            403, "M_WRONG_ROOM_KEYS_VERSION", "PUT", path, *where, body=bodies[path], query=old
        )
        assert wrong["current_version"] == new["version"]
        alice.bad(400, "M_MISSING_PARAM", "PUT", path, *where, body=bodies[path])
        alice.bad(400, "M_BAD_JSON", "PUT", path, *where, body={"rooms": 5}, query=new)
        for method in ("GET", "DELETE"):
            alice.bad(400, "M_MISSING_PARAM", method, path, *where)
            alice.bad(404, "M_NOT_FOUND", method, path, *where, query={"version": "99"})
    better = alice.good("PUT", SESSION, room, "c", body=backed_up(4), query=new)
    assert better["etag"] != first["etag"]
    assert alice.good("GET", ROOM, UNKNOWN_ROOM, query=new) == {"sessions": {}}
    alice.bad(404, "M_NOT_FOUND", "GET", SESSION, room, "none", query=new)
    counts = [
        alice.good("DELETE", SESSION, room, "a/b", query=new)["count"],
        alice.good("DELETE", ROOM, room, query=new)["count"],
        alice.good("DELETE", KEYS, query=new)["count"],
    ]
    assert counts == [2, 1, 0]
    assert alice.good("GET", KEYS, query=new) == {"rooms": {}}
    stranger = house.user("stranger")
    for path, where in places.items():
        stranger.bad(404, "M_NOT_FOUND", "PUT", path, *where, body=bodies[path], query=new)


DEHYDRATED = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


@covers(
    f"PUT {DEHYDRATED}",
    f"GET {DEHYDRATED}",
    f"DELETE {DEHYDRATED}",
    f"POST {DEHYDRATED}/{{deviceId}}/events",
    f"GET {DEHYDRATED}/{{deviceId}}/events",
    "POST /_matrix/client/unstable/keys/device_signing/upload",
    "POST /_matrix/client/unstable/keys/signatures/upload",
)
def dehydrated_device(house: House) -> None:
    alice, bob = house.user("alice"), house.user("bob")
    mine = CrossSigning(alice.user_id)
    unstable = "/_matrix/client/unstable/keys"
    alice.good("POST", f"{unstable}/device_signing/upload", body=mine.upload())
    alice.good("POST", f"{unstable}/signatures/upload", body={})
    events = f"{DEHYDRATED}/{{}}/events"
    alice.bad(404, "M_NOT_FOUND", "GET", DEHYDRATED)
    alice.bad(404, "M_NOT_FOUND", "DELETE", DEHYDRATED)
    alice.bad(404, "M_NOT_FOUND", "POST", events, "SLEEPER", body={})
    for name in ("FIRST", "SLEEPER"):
        keys = Keys(alice, name)
        body = {
            "device_id": name,
            "initial_device_display_name": "Dehydrated device",
            "device_data": {"algorithm": "m.dehydration.v1.olm", "account": "x"},
            "device_keys": keys.identity(),
            "one_time_keys": keys.prekeys(2),
            "fallback_keys": keys.prekeys(1, fallback=True),
        }
        assert alice.good("PUT", DEHYDRATED, body=body) == {"device_id": name}
    expected = {"device_id": "SLEEPER", "device_data": body["device_data"]}
    assert alice.good("GET", DEHYDRATED) == expected
    found = bob.good("POST", QUERY, body={"device_keys": {alice.user_id: []}})
    assert set(found["device_keys"][alice.user_id]) == {"SLEEPER"}
    message = {"messages": {alice.user_id: {"SLEEPER": {"n": 1}}}}
    bob.good("PUT", "/v3/sendToDevice/{}/{}", "m.x", "t1", body=message)
    waiting = alice.good("POST", events, "SLEEPER", body={})
    assert [event["content"] for event in waiting["events"]] == [{"n": 1}]
    for path, more in (
        ("POST", {"body": {"next_batch": waiting["next_batch"]}}),
        ("GET", {"query": {"from": waiting["next_batch"]}}),
    ):
        rest = alice.good(path, events, "SLEEPER", **more)
        assert rest == {"events": [], "next_batch": waiting["next_batch"]}
    assert alice.good("POST", events, "SLEEPER", body={}) == waiting, "they are kept"
    alice.bad(403, "M_FORBIDDEN", "POST", events, "FIRST", body={})
    alice.bad(400, "M_INVALID_PARAM", "POST", events, "SLEEPER", body={"next_batch": "x"})
    alice.bad(400, "M_MISSING_PARAM", "PUT", DEHYDRATED, body={"device_id": "X"})
    taken = {**body, "device_id": alice.device_id, "device_keys": Keys(alice).identity()}
    alice.bad(403, "M_FORBIDDEN", "PUT", DEHYDRATED, body=taken)
    assert alice.good("DELETE", DEHYDRATED) == {"device_id": "SLEEPER"}
    alice.bad(404, "M_NOT_FOUND", "GET", DEHYDRATED)
