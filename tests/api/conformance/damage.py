"""Requests that are right but for something: any node of a body, part of a path, parameter.

Drawn from a seeded generator instead of by Hypothesis: a request costs the server about a
millisecond, and making one must not cost ten.  A failing request is shown as it was sent, and is
sent again by the same seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any
from urllib.parse import quote

from attrs import define

from tests.api.conformance import seeds
from tests.api.conformance.refusals import NAMED, Target
from tests.api.conformance.seeds import Setting
from tests.api.conformance.wire import NO_BODY, segment

TEXTS = [
    *("", " ", "\0", "a\0b", "\r\n", "\ufeff", "\u202e", "\U0001f600", "e\u0301", "\ud800"),
    *("@", "!", "$", "#", ":", "@:", "@a", "@a:", "@a:b", "@A b:home.test", "!a", "!a:b", "#a:b"),
    *("@" + 300 * "a" + ":b", "$" + 43 * "a", "$" + 300 * "a", "!" + 43 * "a", "@a:[::1]:8448"),
    *("../..", "a/b", "%2F", "{}", "[]", "null", "true", "0", "-1", "1e400", 20 * "9", "\u00b2"),
    *("m.room.member", "m.room.create", "m.room.power_levels", "m.room.redaction", "m.login.dummy"),
    *("join", "invite", "knock", "leave", "ban", "restricted", "m.replace", "m.annotation", "12"),
    *("m.room.canonical_alias", "m.room.join_rules", "m.room.history_visibility", "m.push_rules"),
    70_000 * "x",
]
SHORT_TEXTS = TEXTS[:-1]
NUMBERS = [
    *(0, -1, 1, True, False, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**30, -(10**400)),
    *(0.5, -0.0, 1e300, 1e-300, 1.0),
]
DEEP: Any = json.loads(60 * "[" + 60 * "]")
SEGMENTS = [
    *("", ".", "..", "%2e%2e", "%2F", "%00", "%ff", "%", "%zz", "+", "a+b", "%C0%80", "*"),
    *(segment(text) for text in SHORT_TEXTS if text != "\ud800"),
    2_000 * "%41",
]
BYTES = [b'"a":1,', b"NaN", b"1e999", rb"\ud83d", b"\x00", 70 * b"[", b",", b"\\", b"\xff", b"{"]


@define
class Damage:
    """Makes wrong requests from right ones."""

    random: Random

    def request(self, target: Target, setting: Setting) -> tuple[str, str, Any]:
        """A path, a query and a body (perhaps as bytes), of which some part is wrong."""
        what = self.random.choice(("path", "query", "body", "body", "body"))
        path, query = target.path(setting.place.values), seeds.query(target)
        body: Any = NO_BODY
        if target.is_json:
            body = setting.filled(self.random.choice(seeds.bodies(target)))
        if what == "path" and target.parameters:
            path = self.path(target, setting.place.values)
        elif body is NO_BODY or what == "query":
            query = self.query(query)
        elif self.random.random() < 0.15:
            body = self.data(json.dumps(body).encode())
        else:
            body = self.value(body)
        raw_query = seeds.raw_query(query)
        if self.random.random() < 0.05:
            raw_query += f"&{self.random.choice(SEGMENTS)}=%ff"
        return path, raw_query, body

    def path(self, target: Target, values: dict[str, str]) -> str:
        """The path of a target with one or more odd segments."""
        names = target.parameters
        if self.random.random() < 0.8:
            names = [self.random.choice(names)]
        odd = {name: self.segment() for name in names}
        return NAMED.sub(lambda found: odd.get(found[1], segment(values[found[1]])), target.pattern)

    def segment(self) -> str:
        """An odd segment, encoded or not."""
        if self.random.random() < 0.3:
            return quote(self.random.randbytes(self.random.randint(1, 8)), safe="")
        return self.random.choice(SEGMENTS)

    def query(self, right: dict[str, Any]) -> dict[str, Any]:
        """Parameters of which some are odd, JSON ones also inside."""
        query = dict(right)
        known = [*right, "access_token", "x"] if not right else [*right]
        for key in self.random.sample(known, self.random.randint(1, len(known))):
            value = right.get(key)
            if isinstance(value, dict) and self.random.random() < 0.7:
                query[key] = self.value(value)
            elif self.random.random() < 0.4:
                query[key] = self.token()
            else:
                query[key] = self.any()
        return query

    def token(self) -> str:
        """Something like a token of /sync or of pagination."""
        numbers = (0, 1, 5, 2**31, 10**15, 2**63, 2**64, 10**40, -1)
        first, second = self.random.choice(numbers), self.random.choice(numbers)
        return f"{self.random.choice('stp')}{first}{self.random.choice(('_', '', '_-'))}{second}"

    def value(self, right: Any) -> Any:
        """A JSON value of which one to three nodes are replaced, removed, or have new company."""
        value = deepcopy(right)
        for _ in range(self.random.choice((1, 1, 2, 3))):
            way = self.random.choice([*nodes(value)])
            if not way:
                if self.random.random() < 0.2:
                    return self.any()
                if isinstance(value, dict):
                    value[self.random.choice(SHORT_TEXTS)] = self.any()
                continue
            parent = value
            for key in way[:-1]:
                parent = parent[key]
            if self.random.random() < 0.2:
                del parent[way[-1]]
            else:
                parent[way[-1]] = self.any()
        return value

    def any(self, depth: int = 2) -> Any:
        """Any JSON value."""
        kind = self.random.random()
        if kind < 0.35:
            return self.random.choice(TEXTS if self.random.random() < 0.02 else SHORT_TEXTS)
        if kind < 0.6 or not depth:
            return self.random.choice(NUMBERS)
        if kind < 0.7:
            return None
        if kind < 0.72:
            return deepcopy(DEEP)  # a later replacement may reach into it
        count = self.random.randint(0, 3)
        if kind < 0.86:
            return [self.any(depth - 1) for _ in range(count)]
        return {self.random.choice(SHORT_TEXTS): self.any(depth - 1) for _ in range(count)}

    def data(self, right: bytes) -> bytes:
        """Bytes of which some are others, too many, or missing."""
        at = self.random.randint(0, len(right))
        upto = min(len(right), at + self.random.choice((0, 0, 1, 4, 1000)))
        put = self.random.choice((b"", *BYTES, self.random.randbytes(3)))
        return right[:at] + put + right[upto:]


def nodes(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every node of a JSON value, the root first."""
    yield above
    if isinstance(value, dict):
        for key, member in value.items():
            yield from nodes(member, (*above, key))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from nodes(member, (*above, number))
