"""Rule 10: power levels."""

from __future__ import annotations

from typing import Any

from matrixbox.core.json import RawNumber
from tests.core.auth_cases.registry import (
    BOB,
    CAROL,
    MOD,
    Verdict,
    allows,
    refuses,
)
from tests.core.making import CREATOR, Room

# --- 10. m.room.power_levels


def change(
    room: Room, old: dict[str, Any] | None, new: dict[str, Any], by: str = MOD, **how: Any
) -> Verdict:
    """MOD (50) changes power levels; both sides keep MOD at 50 unless they say otherwise."""
    if old is None:
        del room.state["m.room.power_levels", ""]
    else:
        base = {"users": {MOD: 50}, **old}
        room.put("m.room.power_levels", room.level_content(base), sender=CREATOR, key="")
    content = new if how.get("bare") else room.level_content({"users": {MOD: 50}, **new})
    return room.verdict(room.make("m.room.power_levels", content, sender=by, key=""))


NAMED = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")


@allows("10.1 named levels")
def named_levels_that_are_integers(room: Room) -> Verdict:
    levels = dict.fromkeys(NAMED, 10)
    return change(room, None, levels, by=CREATOR)


def _odd_named(name: str, value: Any, label: str) -> None:
    def build(room: Room) -> Verdict:
        return change(room, None, {name: value}, by=CREATOR)

    build.__name__ = f"{name}_is_{label}"
    refuses("10.1 named levels", "not an integer")(build)


for _name in NAMED:
    _odd_named(_name, "10", "text")
    _odd_named(_name, None, "null")
    _odd_named(_name, True, "true")


@allows("10.1 named levels", first=1, last=9)
def odd_named_levels_in_first_levels_of_old_versions(room: Room) -> Verdict:
    return change(room, None, dict.fromkeys(NAMED, "odd"), by=CREATOR)


@allows("10.2 tables")
def tables_of_integers(room: Room) -> Verdict:
    new = {"events": {"a": 1}, "notifications": {"room": 2}}
    return change(room, None, new, by=CREATOR)


def _odd_table(name: str, value: Any, label: str) -> None:
    def build(room: Room) -> Verdict:
        return change(room, None, {name: value}, by=CREATOR)

    build.__name__ = f"{name}_is_{label}"
    refuses("10.2 tables", f"{name} is not an object of integers")(build)


for _name in ("events", "notifications"):
    _odd_table(_name, {"a": 1, "b": "2"}, "with_text")
    _odd_table(_name, {"a": None}, "with_null")
    _odd_table(_name, {"a": False}, "with_false")
    _odd_table(_name, [], "list")
    _odd_table(_name, None, "null")


@allows("10.2 tables", first=1, last=9)
def odd_tables_in_first_levels_of_old_versions(room: Room) -> Verdict:
    return change(room, None, {"events": 5, "notifications": []}, by=CREATOR)


@allows("10.3 users")
def users_of_every_form(room: Room) -> Verdict:
    users = {BOB: 1, "@Old style!:a": 2, "@:a": -3}
    return change(room, None, {"users": users}, by=CREATOR)


@allows("10.3 users")
def no_users_at_all(room: Room) -> Verdict:
    return change(room, None, {}, by=CREATOR, bare=True)


def _odd_users(users: Any, label: str) -> None:
    def build(room: Room) -> Verdict:
        return change(room, None, {"users": users}, by=CREATOR, bare=True)

    build.__name__ = f"users_{label}"
    refuses("10.3 users", "users is not an object of user IDs")(build)


_odd_users([], "that_are_a_list")
_odd_users(None, "that_are_null")
_odd_users("x", "that_are_text")
_odd_users({"bob": 1}, "without_sigil")
_odd_users({"@bob": 1}, "without_server")
_odd_users({BOB: None}, "with_null")
_odd_users({BOB: True}, "with_true")
_odd_users({BOB: "abc"}, "with_text_that_is_no_integer")
_odd_users({BOB: [1]}, "with_a_list")


@allows("10.3 text")
def users_with_integers_in_text(room: Room) -> Verdict:
    return change(room, None, {"users": {BOB: " +0050 "}}, by=CREATOR)


@refuses("10.3 text", "users is not an object", first=10, last=12)
def users_with_integers_in_text_in_new_versions(room: Room) -> Verdict:
    return change(room, None, {"users": {BOB: "50"}}, by=CREATOR)


@refuses("10.3 text", "users is not an object")
def users_with_fractions_in_text(room: Room) -> Verdict:
    return change(room, None, {"users": {BOB: "50.5"}}, by=CREATOR)


@allows("10.3 floats")
def users_with_fractions(room: Room) -> Verdict:
    return change(room, None, {"users": {BOB: RawNumber("50.57")}}, by=CREATOR)


@refuses("10.3 floats", "users is not an object")
def users_with_a_number_out_of_range(room: Room) -> Verdict:
    return change(room, None, {"users": {BOB: RawNumber("1e309")}}, by=CREATOR)


@refuses("10.3 floats", "power level out of range")
def a_named_level_out_of_range(room: Room) -> Verdict:
    return change(room, None, {"ban": RawNumber("-1e309")}, by=CREATOR)


@refuses("10.3 floats", "power level out of range")
def an_event_s_level_out_of_range(room: Room) -> Verdict:
    return change(room, None, {"events": {"a": RawNumber("1e309")}}, by=CREATOR)


@refuses("10.3 floats", "power level out of range")
def a_notification_s_level_out_of_range(room: Room) -> Verdict:
    return change(room, None, {"notifications": {"a": RawNumber("1e309")}}, by=CREATOR)


@allows("10.3 floats")
def named_levels_with_fractions(room: Room) -> Verdict:
    return change(
        room, None, {"ban": RawNumber("1e2"), "events": {"a": RawNumber("0.5")}}, by=CREATOR
    )


@allows("10.4 creators")
def users_without_creators(room: Room) -> Verdict:
    return change(room, {}, {"users": {BOB: 5}}, by=CREATOR)


@refuses("10.4 creators", "a creator among the users")
def users_with_the_creator(room: Room) -> Verdict:
    return change(room, {}, {"users": {BOB: 5, CREATOR: 100}}, by=CREATOR)


@refuses("10.4 creators", "a creator among the users")
def users_with_an_additional_creator(room: Room) -> Verdict:
    other = Room(room.version, additional_creators=[BOB])
    other.member(CREATOR, "join")
    event = other.make("m.room.power_levels", {"users": {BOB: 1}}, sender=CREATOR, key="")
    return other.verdict(event)


@allows("10.4 creators", first=1, last=11)
def users_with_the_creator_in_old_versions(room: Room) -> Verdict:
    return change(room, {}, {"users": {MOD: 50, CREATOR: 100}}, by=CREATOR, bare=True)


@allows("10.5 first levels")
def first_levels_may_say_anything(room: Room) -> Verdict:
    new = {"ban": 2**53 - 1, "users": {BOB: 10**9}, "events": {"a": 10**9}}
    return change(room, None, new, by=CREATOR)


@refuses("10.5 first levels", "too low")
def first_levels_need_the_default_level_of_state(room: Room) -> Verdict:
    return change(room, None, {}, by=MOD)


def _named_cases(name: str) -> None:
    def register(rule: str, label: str, old: Any, new: Any, reason: str | None) -> None:
        def build(room: Room) -> Verdict:
            before = {} if old is None else {name: old}
            return change(room, before, {} if new is None else {name: new})

        build.__name__ = f"{name}_{label}"
        (allows(rule) if reason is None else refuses(rule, reason))(build)

    high, low = "level above the sender's can't be changed", "can't be raised above the sender's"
    register("10.6.1 named, old", "lowered_from_the_sender_s", 50, 20, None)
    register("10.6.1 named, old", "lowered_from_above", 51, 20, high)
    register("10.6.1 named, old", "removed_from_the_sender_s", 50, None, None)
    register("10.6.1 named, old", "removed_from_above", 51, None, high)
    register("10.6.1 named, old", "unchanged_above", 99, 99, None)
    register("10.6.2 named, new", "raised_to_the_sender_s", 20, 50, None)
    register("10.6.2 named, new", "raised_above", 20, 51, low)
    register("10.6.2 named, new", "added_at_the_sender_s", None, 50, None)
    register("10.6.2 named, new", "added_above", None, 51, low)


# The level for sending power levels must stay in MOD's reach.
for _name in (name for name in NAMED if name != "state_default"):
    _named_cases(_name)


@refuses("10.6.2 named, new", "can't be raised above the sender's")
def state_default_added_above(room: Room) -> Verdict:
    return change(room, {}, {"state_default": 51})


@refuses("10.6.1 named, old", "level above the sender's can't be changed")
def state_default_lowered_from_above(room: Room) -> Verdict:
    old = {"state_default": 51, "events": {"m.room.power_levels": 50}}
    return change(room, old, {"events": {"m.room.power_levels": 50}, "state_default": 0})


@allows("10.6.2 named, new", last=9)
def a_named_level_spelled_differently(room: Room) -> Verdict:
    return change(room, {"ban": 99}, {"ban": "99"})


@refuses("10.6.2 named, new", "no power level", last=9)
def an_odd_named_level_that_was_there_before(room: Room) -> Verdict:
    return change(room, {"ban": ["odd"]}, {"ban": ["odd"]})


@refuses("10.6.2 named, new", "no power level", last=9)
def an_odd_named_level_that_is_new(room: Room) -> Verdict:
    return change(room, {}, {"ban": "odd"})


@refuses("10.6.2 named, new", "no power level", last=9)
def an_odd_named_level_that_is_new_and_null(room: Room) -> Verdict:
    return change(room, {}, {"ban": None})


@refuses("10.6.2 named, new", "no power level", last=9)
def a_named_level_that_becomes_odd(room: Room) -> Verdict:
    return change(room, {"ban": 1}, {"ban": True})


@refuses("10.6.2 named, new", "no power level", last=9)
def a_named_level_that_was_odd(room: Room) -> Verdict:
    return change(room, {"ban": "odd"}, {"ban": 50})


def _table_cases(table: str) -> None:
    def register(rule: str, label: str, old: Any, new: Any, reason: str | None) -> None:
        def build(room: Room) -> Verdict:
            before = {} if old is None else {table: {"m.x": old, "m.same": 99}}
            after = {} if new is None else {table: {"m.x": new}}
            if old is not None:
                after = {table: {**after.get(table, {}), "m.same": 99}}
            return change(room, before, after)

        build.__name__ = f"{table}_{label}"
        (allows(rule) if reason is None else refuses(rule, reason))(build)

    high, low = "level above the sender's can't be changed", "can't be raised above the sender's"
    register(f"10.7 {table}, old", "lowered_from_the_sender_s", 50, 20, None)
    register(f"10.7 {table}, old", "lowered_from_above", 51, 20, high)
    register(f"10.7 {table}, old", "removed_from_the_sender_s", 50, None, None)
    register(f"10.7 {table}, old", "removed_from_above", 51, None, high)
    register(f"10.7 {table}, old", "unchanged_above", 99, 99, None)
    register(f"10.8 {table}, new", "raised_to_the_sender_s", 20, 50, None)
    register(f"10.8 {table}, new", "raised_above", 20, 51, low)
    register(f"10.8 {table}, new", "added_at_the_sender_s", None, 50, None)
    register(f"10.8 {table}, new", "added_above", None, 51, low)


_table_cases("events")
_table_cases("notifications")


@allows("10.7 notifications, old", first=1, last=5)
def notifications_are_free_in_old_versions(room: Room) -> Verdict:
    return change(room, {"notifications": {"room": 99}}, {"notifications": {"room": "odd"}})


@allows("10.8 notifications, new", first=1, last=5)
def notifications_may_be_odd_in_old_versions(room: Room) -> Verdict:
    return change(room, {}, {"notifications": {"room": 99}})


@refuses("10.8 events, new", "events is not an object", last=9)
def events_that_become_odd(room: Room) -> Verdict:
    return change(room, {}, {"events": None})


@refuses("10.8 notifications, new", "notifications is not an object", first=6, last=9)
def notifications_that_become_odd(room: Room) -> Verdict:
    return change(room, {}, {"notifications": []})


@refuses("10.8 events, new", "no power level", last=9)
def an_odd_level_of_an_event(room: Room) -> Verdict:
    return change(room, {}, {"events": {"m.x": "odd"}})


@allows("10.7 events, old", last=9)
def events_that_were_odd(room: Room) -> Verdict:
    return change(room, {"events": 5}, {"events": {"m.x": 50}})


def users(room: Room, old: dict[str, Any], new: dict[str, Any]) -> Verdict:
    return change(room, {"users": {MOD: 50, **old}}, {"users": {MOD: 50, **new}})


@allows("10.9 users, old")
def changing_somebody_just_below(room: Room) -> Verdict:
    return users(room, {BOB: 49}, {BOB: 1})


@allows("10.9 users, old")
def removing_somebody_just_below(room: Room) -> Verdict:
    return users(room, {BOB: 49}, {})


@allows("10.9 users, old")
def leaving_an_equal_alone(room: Room) -> Verdict:
    return users(room, {BOB: 50, CAROL: 99}, {BOB: 50, CAROL: 99})


@allows("10.9 users, old")
def lowering_oneself(room: Room) -> Verdict:
    return users(room, {}, {MOD: 10})


@allows("10.9 users, old")
def removing_oneself(room: Room) -> Verdict:
    return change(room, {"users": {MOD: 50}}, {"users": {BOB: 1}})


@refuses("10.9 users, old", "sender's level or above can't be changed")
def changing_an_equal(room: Room) -> Verdict:
    return users(room, {BOB: 50}, {BOB: 49})


@refuses("10.9 users, old", "sender's level or above can't be changed")
def removing_an_equal(room: Room) -> Verdict:
    return users(room, {BOB: 50}, {})


@refuses("10.9 users, old", "sender's level or above can't be changed")
def raising_somebody_above(room: Room) -> Verdict:
    return users(room, {BOB: 60}, {BOB: 61})


@allows("10.10 users, new")
def raising_somebody_to_one_s_own_level(room: Room) -> Verdict:
    return users(room, {BOB: 1}, {BOB: 50})


@allows("10.10 users, new")
def adding_somebody_at_one_s_own_level(room: Room) -> Verdict:
    return users(room, {}, {BOB: 50})


@refuses("10.10 users, new", "can't be raised above the sender")
def raising_somebody_above_oneself(room: Room) -> Verdict:
    return users(room, {BOB: 1}, {BOB: 51})


@refuses("10.10 users, new", "can't be raised above the sender")
def adding_somebody_above_oneself(room: Room) -> Verdict:
    return users(room, {}, {BOB: 51})


@refuses("10.10 users, new", "can't be raised above the sender")
def raising_oneself(room: Room) -> Verdict:
    return users(room, {}, {MOD: 51})


@allows("10.10 users, new", first=12)
def a_creator_may_raise_anybody(room: Room) -> Verdict:
    return change(room, {}, {"users": {BOB: 2**53 - 1}, "ban": 2**53 - 1}, by=CREATOR)
