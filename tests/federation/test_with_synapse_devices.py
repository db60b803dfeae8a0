"""Devices, keys and messages between them, between a server of ours and a real Synapse.

[B7.04] to [B7.08], [B13.04], [B13.05], [C8.22], [C8.23], [C17.02] to [C17.04], [C17.16].
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.e2ee.people import ALGORITHM, CrossSigning
from tests.federation.keys import Keys
from tests.federation.pair import Pair, Person, eventually


def device_of(person: Person) -> str:
    """The id of the session's device."""
    return str(person.request("GET", "/account/whoami")["device_id"])


def publish(person: Person, one_time: int = 0) -> Keys:
    """New keys of a person's device."""
    keys = Keys(person.user_id, device_of(person))
    body = {"device_keys": keys.identity(), "one_time_keys": keys.prekeys(one_time)}
    person.request("POST", "/keys/upload", body)
    return keys


def query(asking: Person, whose: Person) -> Any:
    """What somebody learns of another's keys, by kind; nothing where their server failed.

    Synapse fails now and then while it fetches the same list for another reason.
    """
    found = asking.request("POST", "/keys/query", {"device_keys": {whose.user_id: []}})
    if found["failures"]:
        return dict.fromkeys(("device_keys", "master_keys", "self_signing_keys"))
    return {
        kind: found.get(kind, {}).get(whose.user_id)
        for kind in ("device_keys", "master_keys", "self_signing_keys")
    }


def devices(asking: Person, whose: Person) -> dict[str, Any]:
    """The keys of devices, without names."""
    found = query(asking, whose)["device_keys"] or {}
    return {
        name: {key: value for key, value in keys.items() if key != "unsigned"}
        for name, keys in found.items()
    }


class Follower:
    """Somebody who looks again at whom /sync names."""

    def __init__(self, who: Person) -> None:
        self.who, self.since = who, who.sync()["next_batch"]
        self.changed: set[str] = set()
        self.left: set[str] = set()
        self.messages: list[Any] = []

    def look(self) -> None:
        """One call of /sync."""
        answer = self.who.sync(self.since)
        self.since = answer["next_batch"]
        lists = answer.get("device_lists", {})
        self.changed |= set(lists.get("changed", []))
        self.left |= set(lists.get("left", []))
        self.messages += answer.get("to_device", {}).get("events", [])

    def hears_of(self, whose: Person) -> None:
        """Wait until somebody is named among the changed."""

        def named() -> bool:
            self.look()
            return whose.user_id in self.changed

        eventually(named, f"{self.who.user_id} hears of {whose.user_id}")
        self.changed.discard(whose.user_id)


def together(pair: Pair, first: str) -> tuple[Person, Person, str]:
    """People of both sides in one room."""
    here, there = pair.sides(first)
    alice, bob = here.person("alice"), there.person("bob")
    room = alice.create_room()
    bob.join(room, via=here)
    pair.agree(room, alice, bob)
    return alice, bob, room


def test_keys_are_seen_and_followed(pair: Pair, first: str) -> None:
    """[B7.04], [B7.06], [B13.04]: new devices, new names, removed ones."""
    alice, bob, _ = together(pair, first)
    follower = Follower(bob)
    keys = publish(alice)
    follower.hears_of(alice)
    eventually(lambda: devices(bob, alice) == {keys.device_id: keys.identity()}, "the first device")
    password = "a long password" if alice.side is pair.ours else "secret"
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": password,
    }
    again = alice.side.request("POST", "/_matrix/client/v3/login", login)
    tablet = Person(alice.side, again["user_id"], again["access_token"])
    more = publish(tablet)
    follower.hears_of(alice)
    both = {keys.device_id: keys.identity(), more.device_id: more.identity()}
    eventually(lambda: devices(bob, alice) == both, "the second device")
    tablet.request("POST", "/logout", {})
    follower.hears_of(alice)
    eventually(lambda: devices(bob, alice) == {keys.device_id: keys.identity()}, "one device again")


def test_cross_signing_keys_and_signatures_arrive(pair: Pair, first: str) -> None:
    """[B7.07], [C17.08], [C17.10]."""
    alice, bob, _ = together(pair, first)
    keys = publish(alice)
    follower = Follower(bob)
    devices(bob, alice)
    mine = CrossSigning(alice.user_id)
    alice.request("POST", "/keys/device_signing/upload", mine.upload())
    follower.hears_of(alice)
    eventually(
        lambda: (
            query(bob, alice)["master_keys"] == mine.public("master")
            and query(bob, alice)["self_signing_keys"] == mine.public("self_signing")
        ),
        "the public keys",
    )
    signed = mine.sign(keys.identity(), "self_signing")
    body = {alice.user_id: {keys.device_id: signed}}
    assert alice.request("POST", "/keys/signatures/upload", body).get("failures", {}) == {}
    follower.hears_of(alice)
    eventually(lambda: devices(bob, alice) == {keys.device_id: signed}, "the signature")
    theirs = CrossSigning(bob.user_id)
    publish(bob)
    bob.request("POST", "/keys/device_signing/upload", theirs.upload())
    vouched = theirs.sign(mine.public("master"), "user_signing")
    body = {alice.user_id: {mine.master.verify_key_base64: vouched}}
    assert bob.request("POST", "/keys/signatures/upload", body).get("failures", {}) == {}
    assert query(bob, alice)["master_keys"] == vouched


def test_one_time_keys_are_claimed_once(pair: Pair, first: str) -> None:
    """[C17.04], [B13.05]."""
    alice, bob, _ = together(pair, first)
    keys = publish(alice, 3)
    wanted = {"one_time_keys": {alice.user_id: {keys.device_id: ALGORITHM}}}
    claimed = []
    for _ in range(4):
        found = bob.request("POST", "/keys/claim", wanted)
        assert found["failures"] == {}
        given = found["one_time_keys"].get(alice.user_id, {}).get(keys.device_id, {})
        claimed += list(given)
    assert len(set(claimed)) == len(claimed) == 3
    counts = alice.sync()["device_one_time_keys_count"]
    assert counts.get(ALGORITHM, 0) == 0


def test_messages_arrive_once_and_in_order(pair: Pair, first: str) -> None:
    """[B7.08], [C17.16]: also to all devices, and while the other side was away."""
    alice, bob, _ = together(pair, first)
    follower = Follower(bob)
    device = device_of(bob)

    def send(number: int, name: str) -> None:
        body = {"messages": {bob.user_id: {name: {"n": number}}}}
        alice.request("PUT", f"/sendToDevice/m.test/{quote(f't{number}')}", body)

    for number in range(5):
        send(number, device if number % 2 else "*")
        send(number, device if number % 2 else "*")

    def arrived(count: int) -> bool:
        follower.look()
        return len(follower.messages) >= count

    eventually(lambda: arrived(5), "five messages")
    with pair.split():
        for number in range(5, 8):
            send(number, device)
    eventually(lambda: arrived(8), "eight messages")
    follower.look()
    assert [event["content"]["n"] for event in follower.messages] == list(range(8))
    assert {event["sender"] for event in follower.messages} == {alice.user_id}


def test_a_change_while_servers_were_apart_is_made_good(pair: Pair, first: str) -> None:
    """[B7.04], [C8.23]."""
    alice, bob, _ = together(pair, first)
    publish(bob)
    follower = Follower(bob)
    devices(bob, alice)
    with pair.split():
        keys = publish(alice)
    follower.hears_of(alice)
    eventually(lambda: devices(bob, alice) == {keys.device_id: keys.identity()}, "the new device")


def test_who_leaves_is_not_followed_any_more(pair: Pair, first: str) -> None:
    """[C8.23]: and is looked at anew when a room is shared again."""
    alice, bob, room = together(pair, first)
    publish(alice)
    follower = Follower(bob)
    devices(bob, alice)
    alice.leave(room)

    def gone() -> bool:
        follower.look()
        return alice.user_id in follower.left

    eventually(gone, "alice is not followed any more")
    keys = publish(alice)
    alice.join(room, via=bob.side)
    follower.hears_of(alice)
    eventually(lambda: devices(bob, alice) == {keys.device_id: keys.identity()}, "the newest keys")
