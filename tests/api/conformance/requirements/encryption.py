"""C17: end-to-end encryption, and what /sync tells of it (C8.22, C8.23)."""

from __future__ import annotations

from typing import Any

from tests.api.conformance.house import House, User
from tests.api.conformance.requirements import requirement
from tests.api.conformance.scenarios.encryption import (
    BACKUP,
    CLAIM,
    KEYS,
    QUERY,
    SESSION,
    SIGNATURES,
    SIGNING,
    UPLOAD,
    VERSION,
    VERSIONS,
    Keys,
    backed_up,
)
from tests.api.conformance.server import SERVER_NAME
from tests.e2ee.people import ALGORITHM, CrossSigning

SEND = "/v3/sendToDevice/{}/{}"


def published(user: User, one_time: int = 0) -> Keys:
    """New keys of a user's session, uploaded."""
    keys = Keys(user)
    body = {"device_keys": keys.identity(), "one_time_keys": keys.prekeys(one_time)}
    user.good("POST", UPLOAD, body=body)
    return keys


def queried(asking: User, whose: User) -> Any:
    """What a user learns of another's keys."""
    return asking.good("POST", QUERY, body={"device_keys": {whose.user_id: []}})


def lists(user: User, since: str) -> tuple[list[str], list[str], str]:
    """Whose devices changed, whose are not followed any more, and the next token."""
    synced = user.sync(since)
    found = synced.get("device_lists", {"changed": [], "left": []})
    return sorted(found["changed"]), sorted(found["left"]), synced["next_batch"]


@requirement("C8.22", "C17.16", "K.15")
def messages_until_they_are_acknowledged(house: House) -> None:
    alice, bob = house.user(), house.user()
    begin = bob.sync()["next_batch"]
    for number in range(130):
        body = {"messages": {bob.user_id: {bob.device_id: {"n": number}}}}
        for _ in range(2 if number < 3 else 1):
            alice.good("PUT", SEND, "m.test", f"t{number}", body=body)
    found: list[int] = []
    since = begin
    for size in (100, 30):
        first, again = bob.sync(since), bob.sync(since)
        assert first["to_device"] == again["to_device"]
        assert len(first["to_device"]["events"]) == size
        found += [event["content"]["n"] for event in first["to_device"]["events"]]
        since = first["next_batch"]
    assert found == list(range(130))
    assert "to_device" not in bob.sync(since)
    tablet = house.login(bob)
    alice.good("PUT", SEND, "m.test", "all", body={"messages": {bob.user_id: {"*": {"n": 1}}}})
    for session in (bob, tablet):
        assert session.sync()["to_device"]["events"][-1]["content"] == {"n": 1}


@requirement("C8.23", "C17.02", "C17.05")
def device_lists(house: House) -> None:
    alice, bob, carol = house.user(), house.user(), house.user()
    room = alice.room(preset="public_chat")
    bob.join(room)
    first = bob.sync()
    assert "device_lists" not in first
    published(alice)
    published(carol)
    changed, left, since = lists(bob, first["next_batch"])
    assert (changed, left) == ([alice.user_id], [])
    path, name = "/v3/devices/{}", {"display_name": "Phone"}
    alice.good("PUT", path, alice.device_id, body=name)
    assert lists(bob, since)[:2] == ([alice.user_id], [])
    since = lists(bob, since)[2]
    carol.join(room)
    assert lists(bob, since)[0] == [carol.user_id]
    between = since
    since = lists(bob, since)[2]
    alice.leave(room)
    changed, left, since = lists(bob, since)
    assert (changed, left) == ([], [alice.user_id])
    query = {"from": between, "to": since}
    asked = bob.good("GET", "/v3/keys/changes", query=query)
    assert asked == {"changed": [carol.user_id], "left": [alice.user_id]}


@requirement("C17.01", "C17.04", "K.16")
def one_time_and_fallback_keys(house: House) -> None:
    alice, bob = house.user(), house.user()
    keys = published(alice, 2)
    fallback = keys.prekeys(1, fallback=True)
    alice.good("POST", UPLOAD, body={"fallback_keys": fallback})
    for other in ({"user_id": bob.user_id}, {"device_id": "OTHER"}):
        body = {"device_keys": {**keys.identity(), **other}}
        alice.bad(400, "M_INVALID_PARAM", "POST", UPLOAD, body=body)
    wanted = {"one_time_keys": {alice.user_id: {alice.device_id: ALGORITHM}}}
    names = []
    for left, unused in ((1, [ALGORITHM]), (0, [ALGORITHM]), (0, []), (0, [])):
        claimed = bob.good("POST", CLAIM, body=wanted)["one_time_keys"][alice.user_id]
        names += list(claimed[alice.device_id])
        synced = alice.sync()
        assert synced["device_one_time_keys_count"] == {ALGORITHM: left}
        assert synced["device_unused_fallback_key_types"] == unused
    assert names[:2] == [f"{ALGORITHM}:K0", f"{ALGORITHM}:K1"]
    assert names[2:] == 2 * list(fallback)


@requirement("C17.03", "C17.10")
def who_sees_which_keys(house: House) -> None:
    alice, bob = house.user(), house.user()
    keys, mine = published(alice), CrossSigning(alice.user_id)
    alice.good("PUT", "/v3/devices/{}", alice.device_id, body={"display_name": "Phone"})
    alice.good("POST", SIGNING, body=mine.upload())
    theirs = CrossSigning(bob.user_id)
    bob.good("POST", SIGNING, body=theirs.upload())
    vouched = theirs.sign(mine.public("master"), "user_signing")
    body = {alice.user_id: {mine.master.verify_key_base64: vouched}}
    assert bob.good("POST", SIGNATURES, body=body)["failures"] == {}
    seen = queried(bob, alice)
    device = {**keys.identity(), "unsigned": {"device_display_name": "Phone"}}
    assert seen["device_keys"] == {alice.user_id: {alice.device_id: device}}
    assert seen["master_keys"] == {alice.user_id: vouched}
    assert seen["self_signing_keys"] == {alice.user_id: mine.public("self_signing")}
    assert seen["user_signing_keys"] == seen["failures"] == {}
    own = queried(alice, alice)
    assert own["master_keys"] == {alice.user_id: mine.public("master")}
    assert own["user_signing_keys"] == {alice.user_id: mine.public("user_signing")}
    nobody = f"@nobody:{SERVER_NAME}"
    assert nobody not in bob.good("POST", QUERY, body={"device_keys": {nobody: []}})["device_keys"]


@requirement("C17.06", "C17.07", "C17.08")
def cross_signing_keys(house: House) -> None:
    alice, bob = house.user(), house.user()
    room = alice.room(preset="public_chat")
    bob.join(room)
    since = bob.sync()["next_batch"]
    mine, other = CrossSigning(alice.user_id), CrossSigning(alice.user_id)
    for _ in range(2):
        alice.good("POST", SIGNING, body=mine.upload())
    assert lists(bob, since)[0] == [alice.user_id]
    refused = alice.ask("POST", SIGNING, body=other.upload())
    assert (refused.status, "flows" in refused.json) == (401, True)
    alice.with_password("POST", SIGNING, body=other.upload())
    wrong = {"self_signing_key": mine.public("self_signing")}
    alice.bad(400, "M_INVALID_SIGNATURE", "POST", SIGNING, body=wrong)
    bob.bad(400, "M_MISSING_PARAM", "POST", SIGNING, body={})
    login = {
        "type": "m.login.password",
        "user": alice.user_id,
        "password": "correct horse battery staple",
        "device_id": other.master.verify_key_base64,
    }
    house.bad(400, "M_INVALID_PARAM", "POST", "/v3/login", body=login)


@requirement("C17.09")
def signatures(house: House) -> None:
    alice = house.user()
    keys, mine = published(alice), CrossSigning(alice.user_id)
    alice.good("POST", SIGNING, body=mine.upload())
    signed = mine.sign(keys.identity(), "self_signing")
    changed = mine.sign({**keys.identity(), "x": 1}, "self_signing")
    for value, expected in ((changed, "M_INVALID_SIGNATURE"), (signed, None)):
        body = {alice.user_id: {alice.device_id: value}}
        failures = alice.good("POST", SIGNATURES, body=body)["failures"]
        found = failures.get(alice.user_id, {}).get(alice.device_id, {})
        assert found.get("errcode") == expected
    assert queried(alice, alice)["device_keys"][alice.user_id][alice.device_id] == signed


@requirement("C17.11", "C17.12", "C17.13", "C17.14")
def key_backups(house: House) -> None:
    alice = house.user()
    old = alice.good("POST", VERSIONS, body=BACKUP)["version"]
    new = alice.good("POST", VERSIONS, body=BACKUP)["version"]
    room, query = f"!room:{SERVER_NAME}", {"version": new}
    assert alice.good("GET", KEYS, query=query) == {"rooms": {}}
    etags = []
    for first, kept in ((5, 5), (6, 5), (4, 4), (4, 4)):
        answer = alice.good("PUT", SESSION, room, "s", body=backed_up(first), query=query)
        etags.append(answer["etag"])
        assert answer["count"] == 1
        shown = alice.good("GET", SESSION, room, "s", query=query)
        assert shown["first_message_index"] == kept
        assert alice.good("GET", VERSION, new)["etag"] == answer["etag"]
    assert etags[0] == etags[1] != etags[2] == etags[3]
    verified = {**backed_up(9), "is_verified": True}
    alice.good("PUT", SESSION, room, "s", body=verified, query=query)
    alice.good("PUT", SESSION, room, "s", body=backed_up(0), query=query)
    assert alice.good("GET", SESSION, room, "s", query=query) == verified
    body, where = backed_up(1), {"version": old}
    wrong = alice.bad(
        403, "M_WRONG_ROOM_KEYS_VERSION", "PUT", SESSION, room, "s", body=body, query=where
    )
    assert wrong["current_version"] == new
    alice.bad(404, "M_NOT_FOUND", "GET", SESSION, room, "none", query=query)
    for _ in range(2):
        alice.good("DELETE", VERSION, new)
    alice.bad(404, "M_NOT_FOUND", "DELETE", VERSION, "99")


@requirement("C17.15")
def keys_of_a_removed_device(house: House) -> None:
    alice, bob = house.user(), house.user()
    tablet = house.login(alice)
    published(tablet, 3)
    alice.with_password("DELETE", "/v3/devices/{}", tablet.device_id, body={})
    assert queried(bob, alice)["device_keys"] == {alice.user_id: {}}
    wanted = {"one_time_keys": {alice.user_id: {tablet.device_id: ALGORITHM}}}
    assert bob.good("POST", CLAIM, body=wanted)["one_time_keys"] == {}


@requirement("C17.17", "C17.18")
def what_is_only_stored(house: House) -> None:
    alice = house.user()
    kind, content = "m.secret_storage.key.abc", {"algorithm": "m.secret_storage.v1.aes-hmac-sha2"}
    path = "/v3/user/{}/account_data/{}"
    alice.good("PUT", path, alice.user_id, kind, body=content)
    assert alice.good("GET", path, alice.user_id, kind) == content
    encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room = alice.room(initial_state=[{**encryption, "state_key": ""}])
    alice.say(room, "plain text")
