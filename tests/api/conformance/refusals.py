"""What every endpoint refuses, whatever it does.

Matrix v1.19, Client-Server API, "API standards", "Standard error response", "Using access tokens",
"Web browser clients"; requirements C1.01 to C1.07; threats T085 to T088, T090, T091.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

from attrs import frozen

from matrixbox.api.bounds import BODY_CLIENT
from matrixbox.api.client.table import client_routes
from matrixbox.api.routes import METHODS, Auth, BodyKind, Route
from tests.api.conformance.errors import cors_problems
from tests.api.conformance.house import House, User
from tests.api.conformance.wire import NO_BODY, segment

NAMED = re.compile(r"\{([a-z_]+)\*?\}")
IDS = ("user_id", "room_id", "event_id", "room_alias", "room_id_or_alias")


@frozen
class Target:
    """One path of one route."""

    route: Route
    pattern: str

    @property
    def name(self) -> str:
        """What the target is called in lists."""
        return f"{self.route.method} {self.pattern}"

    def path(self, values: dict[str, str]) -> str:
        """The path with named values in it."""
        return NAMED.sub(lambda found: segment(values[found[1]]), self.pattern)

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return NAMED.findall(self.pattern)

    @property
    def is_json(self) -> bool:
        """Whether the endpoint reads a JSON object."""
        return self.route.body in (BodyKind.JSON, BodyKind.JSON_OR_EMPTY)


def targets() -> list[Target]:
    """Every path of every route, once for each of its forms."""
    return [
        Target(route, path)
        for route in client_routes()
        for pattern in route.patterns
        for path in _forms(pattern)
    ]


def _forms(pattern: str) -> Iterator[str]:
    """A pattern without its alternatives."""
    parts = [
        found[1].split("|") if (found := re.fullmatch(r"\[(.+)\]", part)) else [part]
        for part in pattern.removesuffix("/?").split("/")
    ]
    yield from ("/".join(chosen) for chosen in product(*parts))


@frozen
class Place:
    """Somebody, a room and what is in it: values for every name in a path."""

    user: User
    values: dict[str, str]

    @classmethod
    def of(cls, house: House) -> Place:
        """A new place."""
        user = house.user("sweeper")
        alias = user.alias()
        room = user.room(
            preset="public_chat", room_alias_name=alias[1:].partition(":")[0], name="n"
        )
        rule, kind = {"actions": [], "conditions": []}, "org.example.kind"
        for rule_id in ("own", "second"):
            user.good("PUT", "/v3/pushrules/global/override/{}", rule_id, body=rule)
        user.good("PUT", "/v3/profile/{}/displayname", user.user_id, body={"displayname": "S"})
        for where in (
            "/v3/user/{}/account_data/{}",
            f"/v3/user/{{}}/rooms/{room}/account_data/{{}}",
        ):
            user.good("PUT", where, user.user_id, kind, body={})
        user.good("POST", "/v3/user/{}/filter", user.user_id, body={})
        backup = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {}}
        user.ask("POST", "/v3/room_keys/version", body=backup)
        path = "/_matrix/client/unstable/org.matrix.msc4140/rooms/{}/delayed_event/{}/{}"
        later = {"delay_ms": 10**8, "content": {}}
        delayed = user.good("PUT", path, room, kind, "t", body=later)
        values = {
            "auth_type": "m.login.dummy",
            "delay_id": delayed["delay_id"],
            "device_id": user.device_id,
            "event_id": user.say(room),
            "event_type": "m.room.name",
            "filter_id": "0",
            "key": "displayname",
            "kind": "override",
            "receipt_type": "m.read",
            "rel_type": "m.thread",
            "room_alias": alias,
            "room_id": room,
            "room_id_or_alias": room,
            "rule_id": "own",
            "sid": "unknown",
            "state_key": "",
            "tag": "u.tag",
            "txn_id": "t",
            "type": kind,
            "user_id": user.user_id,
            "version": "1",
            "session_id": "session",
        }
        return cls(user, values)


def refused_tokens(house: House, place: Place, target: Target) -> None:
    """C1.05, C1.06: no token, a token that is none, and where a token may stand."""
    if target.route.auth is not Auth.USER:
        return
    method, path = target.route.method, target.path(place.values)
    body = {} if target.is_json else NO_BODY
    house.bad(401, "M_MISSING_TOKEN", method, path, body=body)
    wrong = house.bad(401, "M_UNKNOWN_TOKEN", method, path, body=body, token="wrong")
    assert wrong["soft_logout"] is False
    house.bad(401, "M_UNKNOWN_TOKEN", method, path, body=body, query="access_token=wrong")
    basic = {"Authorization": "Basic YTpi"}
    house.bad(401, "M_MISSING_TOKEN", method, path, body=body, headers=basic)


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"a":', "M_NOT_JSON"),
    "two keys [T085]": (b'{"a":1,"a":2}', "M_NOT_JSON"),
    "two keys inside [T085]": (b'{"a":[{"b":1,"c":{},"b":1}]}', "M_NOT_JSON"),
    "not a number [T086]": (b'{"a":NaN}', "M_NOT_JSON"),
    "infinite [T086]": (b'{"a":[-Infinity]}', "M_NOT_JSON"),
    "too large a number [T086]": (b'{"a":1e400}', "M_BAD_JSON"),
    "too large an integer [T086]": (b'{"a":9007199254740993}', "M_BAD_JSON"),
    "digits without end [T086]": (b'{"a":' + 5000 * b"1" + b"}", "M_BAD_JSON"),
    "129 levels [T087]": (b'{"a":' + 128 * b"[" + 128 * b"]" + b"}", "M_BAD_JSON"),
    "60,000 levels [T087]": (60_000 * b"[", "M_BAD_JSON"),
    "no UTF-8 [T088]": (b'{"a":"\xff"}', "M_NOT_JSON"),
    "half a pair [T088]": (rb'{"a":"\ud800"}', "M_NOT_JSON"),
    "half a pair in bytes [T088]": (b'{"a":"\xed\xa0\x80"}', "M_NOT_JSON"),
    "a byte-order mark": (b"\xef\xbb\xbf{}", "M_NOT_JSON"),
    "more after it": (b"{} {}", "M_NOT_JSON"),
    "a list [T090]": (b"[]", "M_BAD_JSON"),
    "a text [T090]": (b'"text"', "M_BAD_JSON"),
    "a number [T090]": (b"5", "M_BAD_JSON"),
    "null [T090]": (b"null", "M_BAD_JSON"),
}


def refused_bodies(house: House, place: Place, target: Target) -> None:
    """What is no JSON object is refused, with the code that says why."""
    if not target.is_json:
        return
    token = None if target.route.auth is Auth.NONE else place.user.token
    method, path = target.route.method, target.path(place.values)
    for what, (data, errcode) in BAD_BODIES.items():
        answer = house.ask(method, path, body=data, token=token)
        assert (answer.status, answer.errcode) == (400, errcode), f"{what}: {answer}"
    if target.route.body is BodyKind.JSON:
        house.bad(400, "M_NOT_JSON", method, path, body=b"", token=token)
    if target.route.body_limit <= BODY_CLIENT:
        too_long = b'{"a":"' + target.route.body_limit * b"x" + b'"}'
        house.bad(413, "M_TOO_LARGE", method, path, body=too_long, token=token)
    else:  # more than the connection takes while nobody reads: its length is enough
        length = {"Content-Length": str(target.route.body_limit + 1)}
        house.bad(413, "M_TOO_LARGE", method, path, body=b"{", token=token, headers=length)
    gzip = {"Content-Encoding": "gzip"}
    house.bad(415, "M_UNKNOWN", method, path, body={}, token=token, headers=gzip)


def refused_paths(house: House, place: Place, target: Target) -> None:
    """T091: bad encodings are refused, and ids that are none."""
    token = None if target.route.auth is Auth.NONE else place.user.token
    method = target.route.method
    body = {} if target.is_json else NO_BODY
    for name in target.parameters:
        for bad in ("%ff", "%", "%g0", "a%C3", "%ED%A0%80"):
            path = NAMED.sub(
                lambda found, name=name, bad=bad: (
                    bad if found[1] == name else segment(place.values[found[1]])
                ),
                target.pattern,
            )
            house.bad(400, "M_INVALID_PARAM", method, path, body=body, token=token)
        if name in IDS:
            for bad in ("x", "a b", "!", "@x", "#a:b c", "\0", 10_000 * "x", "$" + 300 * "x"):
                path = target.path({**place.values, name: bad})
                answer = house.ask(method, path, body=_needed(target), token=token)
                assert answer.status in (400, 414), answer
                assert answer.errcode in ("M_INVALID_PARAM", "M_MISSING_PARAM", "M_TOO_LARGE"), bad


def _needed(target: Target) -> Any:
    """A body that gets as far as the path."""
    return {"room_id": "!a:b.test", "user_id": "@a:b.test"} if target.is_json else NO_BODY


def refused_methods(house: House, place: Place, target: Target) -> None:
    """C1.07: 405 for methods that the path does not have, with those that it has."""
    path = target.path(place.values)
    table = client_routes()
    for method in sorted(METHODS):
        found = table.find(method, path)
        if getattr(found, "route", None) is None:
            ask = house.connection.ask if method == "HEAD" else house.ask
            answer = ask(method, path, token=place.user.token)
            assert answer.status == 405, answer
            assert target.route.method in answer.headers["allow"]
            assert method == "HEAD" or answer.errcode == "M_UNRECOGNIZED"
    before = house.connection.ask("OPTIONS", path)
    assert (before.status, before.raw) == (204, b"")
    assert cors_problems(before) == []


def refused_everything(house: House, place: Place, target: Target) -> None:
    """All of it."""
    refused_tokens(house, place, target)
    refused_bodies(house, place, target)
    refused_paths(house, place, target)
    refused_methods(house, place, target)
