"""Power-level contents: the changes people make, and the odd values that servers have sent."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

NAMED = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
TYPES = (
    "m.room.topic",
    "m.room.power_levels",
    "m.room.message",
    "m.room.join_rules",
    "m.room.redaction",
    "m.room.member",
)
ODD: tuple[Any, ...] = (None, True, [], {}, "", "abc", "1.5", "0x10", "5 0", "1_0", "\u0663")
ODD_USERS = ("bob", "@bob", "b.test", "@bob:", "@bob:b test", "@:b.test", "@Bob é:b.test")
EDGES = (2**53 - 1, -(2**53) + 1)


def first_power_levels(
    rng: random.Random, number: int, creators: Sequence[str], users: Sequence[str]
) -> dict[str, Any]:
    """The power levels of a new room."""
    content: dict[str, Any] = {"users": {} if number == 12 else {creators[0]: 100}}
    for user in rng.sample(users, rng.randrange(4)):
        if number < 12 or user not in creators:
            content["users"].setdefault(user, level(rng, number))
    if rng.random() < 0.5:
        content["events"] = {"m.room.power_levels": rng.choice((50, 50, 50, 100))}
        if rng.random() < 0.3:
            content["events"][rng.choice(TYPES)] = level(rng, number)
    if rng.random() < 0.25:
        content["notifications"] = {"room": rng.choice((50, 75, 100, level(rng, number)))}
    if rng.random() < 0.5:
        content[rng.choice(NAMED)] = level(rng, number)
    if rng.random() < 0.12:
        content["ban"] = rng.choice((75, 100))
    if rng.random() < 0.02:
        content[rng.choice(NAMED)] = rng.choice(ODD)
    if number < 10 and rng.random() < 0.15:
        content["users"] = {user: f" {value}" for user, value in content["users"].items()}
    return content


def new_power_levels(
    rng: random.Random, number: int, old: Mapping[str, Any], users: Sequence[str], sender: str
) -> dict[str, Any]:
    """One to three changes to the levels in force, rarely something quite different."""
    content = {key: copied(value) for key, value in old.items()}
    if not content or rng.random() < 0.03:
        return first_power_levels(rng, number, [sender], users)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change(rng, number, content, users)
    return content


def copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def change(rng: random.Random, number: int, content: dict[str, Any], users: Sequence[str]) -> None:
    draw = rng.random()
    if draw < 0.42:
        change_entry(rng, number, content, "users", rng.choice(users))
    elif draw < 0.6:
        change_entry(rng, number, content, "events", rng.choice(TYPES))
    elif draw < 0.72:
        change_entry(rng, number, content, "notifications", rng.choice(("room", "other")))
    elif draw < 0.94:
        name = rng.choice(NAMED)
        if name in content and rng.random() < 0.3:
            del content[name]
        else:
            content[name] = level(rng, number)
    else:
        make_odd(rng, number, content)


def change_entry(
    rng: random.Random, number: int, content: dict[str, Any], name: str, key: str
) -> None:
    entries = content.get(name)
    entries = dict(entries) if isinstance(entries, Mapping) else {}
    if entries and rng.random() < 0.3:
        key = rng.choice(list(entries))
    if entries and rng.random() < 0.25:
        del entries[rng.choice(list(entries))]
    else:
        entries[key] = level(rng, number)
    content[name] = entries


def make_odd(rng: random.Random, number: int, content: dict[str, Any]) -> None:
    """Values of the wrong type; in rooms before 10 only where the rules look at them."""
    draw, odd = rng.random(), rng.choice(ODD)
    if draw < 0.5:
        change_entry(rng, number, content, "users", rng.choice(ODD_USERS))
    elif draw < 0.8:
        users = copied(content.get("users"))
        users = users if isinstance(users, dict) else {}
        users[rng.choice((*users, "@odd:a.test"))] = odd
        content["users"] = users
    elif draw < 0.85:
        content["users"] = rng.choice((None, [], "x", 5))
    elif number >= 10 and draw < 0.9:
        content[rng.choice(("events", "notifications"))] = rng.choice((odd, {"m.room.name": odd}))
    elif draw < 0.97:
        content[rng.choice(NAMED)] = odd
    else:
        content.pop("users", None)


def level(rng: random.Random, number: int) -> Any:
    """A level that is well-formed in the room version, mostly a plain integer."""
    value = rng.choice((0, 0, 10, 25, 50, 50, 50, 75, 100, 100, 101, -1))
    draw = rng.random()
    if draw > 0.15:
        return value
    if draw > 0.14:
        return rng.choice(EDGES)
    if number < 10 and draw > 0.05:
        return rng.choice((f"{value}", f" {value} ", f"{value:+}", f"{value:04}", f"\t{value}\n"))
    if number < 6:
        return value + rng.choice((0.0, 0.5, 0.999, -0.7))
    return value
