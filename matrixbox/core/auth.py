"""The authorisation rules.

Matrix v1.19, rooms/v1 to v12, "Authorisation rules"; Server-Server API, "Auth events selection"
[A5.01]-[A5.25].  Steps carry the numbers of version 12; the numbers in brackets are those of
version 6 to 11, where rule 2 of version 12 does not exist (in 1 to 5, everything from rule 4 on is
one higher again because of the rule about `m.room.aliases`).  Rule 5, about members, is in
auth_member.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from matrixbox.core.auth_member import check_member
from matrixbox.core.events import (
    CREATE,
    JOIN_RULES,
    POWER_LEVELS,
    Event,
    PowerLevels,
    StateKey,
    StateMap,
    creators_of,
    membership_of,
    power_levels,
)
from matrixbox.core.identifiers import EventId, is_user_id, server_of
from matrixbox.core.json import Json, RawNumber
from matrixbox.core.levels import read_level
from matrixbox.core.redaction import same_event_domain
from matrixbox.core.room_versions import RoomRules, rules_of_create
from matrixbox.core.verdict import NotAllowed

__all__ = ["NotAllowed", "check_auth", "check_auth_events", "select_auth_keys"]

_LEVELS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")


def select_auth_keys(
    rules: RoomRules,
    event_type: str,
    sender: str,
    state_key: str | None,
    content: Mapping[str, Json],
) -> tuple[StateKey, ...]:
    """The places in the room state whose events an event cites as `auth_events`.

    Server-Server API, "Auth events selection" [A5.25].  Each key once, in a fixed order.
    """
    if event_type == "m.room.create":
        return ()
    keys = [POWER_LEVELS, ("m.room.member", sender)]
    if not rules.room_id_is_create_hash:
        keys.insert(0, CREATE)
    if event_type != "m.room.member":
        return tuple(keys)
    membership = content.get("membership")
    if state_key is not None and state_key != sender:
        keys.append(("m.room.member", state_key))
    if membership in ("join", "invite", "knock"):
        keys.append(JOIN_RULES)
    if membership == "invite":
        token = _third_party_token(content)
        if token is not None:
            keys.append(("m.room.third_party_invite", token))
    if membership == "join" and rules.restricted:
        authorising = content.get("join_authorised_via_users_server")
        if isinstance(authorising, str) and ("m.room.member", authorising) not in keys:
            keys.append(("m.room.member", authorising))
    return tuple(keys)


def _third_party_token(content: Mapping[str, Json]) -> str | None:
    """content.third_party_invite.signed.token, if it is there."""
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, Mapping) else None
    token = signed.get("token") if isinstance(signed, Mapping) else None
    return token if isinstance(token, str) else None


def check_auth_events(
    rules: RoomRules,
    event: Event,
    auth_events: Sequence[Event],
    is_rejected: Callable[[EventId], bool],
    create: Event | None,
) -> None:
    """Raise NotAllowed unless the event cites what it may and must cite: rules 2 and 3.

    `auth_events` are the events of `event.auth_event_ids`, all of them (fetch what is missing
    first: T027); `create` is the room's create event, None if it is unknown or not accepted.
    """
    if event.overlong:
        raise NotAllowed("an identifier is longer than 255 bytes")
    if event.type == "m.room.create":
        return  # rule 1 decides about these alone
    # 2. From v12 on: the room_id names an accepted create event.
    if rules.room_id_is_create_hash:
        _check_room_id(event, create)
        if create is not None and is_rejected(create.event_id):
            raise NotAllowed("the room's create event was rejected")
    # 3.1 [2.1] No two entries for one type and state_key.
    if len(set(event.auth_event_ids)) != len(event.auth_event_ids):
        raise NotAllowed("an auth event is cited twice")
    cited = {(auth.type, auth.state_key) for auth in auth_events}
    if len(cited) != len(auth_events):
        raise NotAllowed("two auth events for the same type and state_key")
    # 3.2 [2.2] Only entries that auth events selection names.
    selected = select_auth_keys(rules, event.type, event.sender, event.state_key, event.content)
    if not cited <= set(selected):
        raise NotAllowed("an auth event that the event does not need")
    # 3.3 [2.3] None was rejected.
    if any(is_rejected(auth.event_id) for auth in auth_events):
        raise NotAllowed("an auth event was rejected")
    # [2.4] Before v12: the create event is one of them.
    if not rules.room_id_is_create_hash and CREATE not in cited:
        raise NotAllowed("the create event is not among the auth events")
    # 3.5 [2.5] All are of the event's room.
    if any(auth.room_id != event.room_id for auth in auth_events):
        raise NotAllowed("an auth event of another room")


def _check_room_id(event: Event, create: Event | None) -> None:
    """Rule 2 of version 12, but for the rejection of the create event."""
    if create is None or create.type != "m.room.create" or create.room_id != event.room_id:
        raise NotAllowed("the room_id does not name a create event")


def check_auth(rules: RoomRules, event: Event, state: StateMap) -> None:
    """Raise NotAllowed unless `state` allows `event`: rules 1 and 4 to 11.

    `state` holds the room's create event under ("m.room.create", "") in every version [A6.07].
    """
    # 1. m.room.create
    if event.type == "m.room.create":
        _check_create(rules, event)
        return
    create = state.get(CREATE)
    if create is None:
        raise NotAllowed("the room has no create event")
    # 2. (the rest of it is in check_auth_events)
    if rules.room_id_is_create_hash:
        _check_room_id(event, create)
    # 4. [3.] Rooms that are not federated.
    if create.content.get("m.federate") is False and (
        server_of(event.sender) != server_of(create.sender)
    ):
        raise NotAllowed("the room is not federated")
    # v1 to v5: 4. m.room.aliases
    if rules.aliases_rule and event.type == "m.room.aliases":
        _check_aliases(event)
        return
    levels = power_levels(rules, create, state.get(POWER_LEVELS), strict=True)
    # 5. [4.] m.room.member
    if event.type == "m.room.member":
        check_member(rules, event, state, levels)
        return
    # 6. [5.] The sender is joined.
    if membership_of(state.get(("m.room.member", event.sender))) != "join":
        raise NotAllowed("the sender is not joined")
    sender_level = levels.user(event.sender)
    # 7. [6.] m.room.third_party_invite
    if event.type == "m.room.third_party_invite":
        if sender_level < levels.invite:
            raise NotAllowed("the sender may not invite")
        return
    # 8. [7.] The required power level.
    if levels.required_for(event.type, is_state=event.state_key is not None) > sender_level:
        raise NotAllowed("the sender's power level is too low for this type of event")
    # 9. [8.] State that belongs to a user.
    state_key = event.state_key
    if state_key is not None and state_key.startswith("@") and state_key != event.sender:
        raise NotAllowed("the state belongs to another user")
    # 10. [9.] m.room.power_levels
    if event.type == "m.room.power_levels":
        _check_power_levels(rules, event, state.get(POWER_LEVELS), create, levels)
    # v1, v2: 11. m.room.redaction
    elif rules.redaction_rule and event.type == "m.room.redaction":
        _check_redaction(event, levels, sender_level)
    # 11. [10.] Otherwise, allow.


def _check_create(rules: RoomRules, event: Event) -> None:
    # 1.1 It has no prev_events.
    if event.prev_event_ids:
        raise NotAllowed("a create event with prev_events")
    # 1.2 The room ID is the sender's, or from v12 on the event's own.
    if rules.room_id_is_create_hash:
        if "room_id" in event.json:
            raise NotAllowed("a create event with a room_id")
    elif event.room_id.partition(":")[2] != server_of(event.sender):
        raise NotAllowed("the room ID is of another server than the creator")
    # 1.3 A known room version.
    if rules_of_create(event.content) is None:
        raise NotAllowed("an unknown room version")
    # v1 to v10: 1.4 A creator.
    if not rules.creator_is_sender and "creator" not in event.content:
        raise NotAllowed("a create event without creator")
    # v12: 1.4 additional_creators are user IDs.
    if rules.privileged_creators and "additional_creators" in event.content:
        additional = event.content["additional_creators"]
        if not isinstance(additional, list) or not all(map(is_user_id, additional)):
            raise NotAllowed("additional_creators is not a list of user IDs")
    # 1.5 Otherwise, allow.


def _check_aliases(event: Event) -> None:
    """Rule 4 of versions 1 to 5."""
    # 4.1
    if event.state_key is None:
        raise NotAllowed("aliases without state_key")
    # 4.2
    if server_of(event.sender) != event.state_key:
        raise NotAllowed("aliases of another server")
    # 4.3 Otherwise, allow.


def _check_redaction(event: Event, levels: PowerLevels, sender_level: float) -> None:
    """Rule 11 of versions 1 and 2 [A4.15]."""
    # 11.1
    if sender_level >= levels.redact:
        return
    # 11.2
    if event.redacts is not None and same_event_domain(event.redacts, event.event_id):
        return
    # 11.3
    raise NotAllowed("the sender may not redact")


def _check_power_levels(
    rules: RoomRules, event: Event, old: Event | None, create: Event, levels: PowerLevels
) -> None:
    """Rule 10 [9; 10 in versions 1 to 5]; [A5.18]-[A5.20]."""
    _check_power_levels_format(rules, event)
    new = event.content
    # 10.4, from v12 on: creators are above every level and can't be listed.
    if rules.privileged_creators and not creators_of(create).isdisjoint(_table(new, "users")):
        raise NotAllowed("a creator among the users")
    # 10.5 No previous event: allow.
    if old is None:
        return
    sender_level = levels.user(event.sender)
    # 10.6 Named levels that were added, changed or removed.
    _check_changes(rules, _named(old.content), _named(new), sender_level)
    # 10.7, 10.8 Entries of events, and from v6 on of notifications.
    for table in ("events", "notifications") if rules.notifications_checked else ("events",):
        _check_changes(rules, _table(old.content, table), _new_table(new, table), sender_level)
    # 10.9, 10.10 Entries of users.
    _check_user_changes(rules, event, _table(old.content, "users"), sender_level)
    # 10.11 Otherwise, allow.


def _check_power_levels_format(rules: RoomRules, event: Event) -> None:
    content = event.content
    # 10.1, from v10 on: the named levels are integers.
    if rules.integer_power_levels and not all(
        type(level) is int for level in _named(content).values()
    ):
        raise NotAllowed("a power level that is not an integer")
    # 10.2, from v10 on: events and notifications are objects of integers.
    if rules.integer_power_levels:
        for table in ("events", "notifications"):
            if not _is_table_of_levels(rules, content.get(table, {})):
                raise NotAllowed(f"{table} is not an object of integers")
    # 10.3 [9.1] users is an object of user IDs with levels.
    users = content.get("users", {})
    if not _is_table_of_levels(rules, users) or not all(map(is_user_id, _table(content, "users"))):
        raise NotAllowed("users is not an object of user IDs with levels")
    # fragments/v1-floaty-power-levels: a number beyond the range of a double rejects the event.
    if rules.float_power_levels:
        tables = (_named(content), _table(content, "events"), _table(content, "notifications"))
        for levels in tables:
            for level in levels.values():
                if isinstance(level, RawNumber | float) and read_level(rules, level) is None:
                    raise NotAllowed("a power level out of range")


def _is_table_of_levels(rules: RoomRules, table: Json) -> bool:
    return isinstance(table, Mapping) and all(
        read_level(rules, level) is not None for level in table.values()
    )


def _named(content: Mapping[str, Json]) -> Mapping[str, Json]:
    """The named levels that are present."""
    return {name: content[name] for name in _LEVELS if name in content}


def _table(content: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """The entries of a table; none if it is not an object."""
    table = content.get(name)
    return table if isinstance(table, Mapping) else {}


def _new_table(content: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """The same of a new event, where up to v9 a wrong type can't be compared with anything."""
    if not isinstance(content.get(name, {}), Mapping):
        raise NotAllowed(f"{name} is not an object")
    return _table(content, name)


def _check_changes(
    rules: RoomRules, old: Mapping[str, Json], new: Mapping[str, Json], sender_level: float
) -> None:
    """Refuse alterations from or to a level above the sender's (10.6, 10.7, 10.8)."""
    for _, before, after in _alterations(rules, old, new):
        # the current value
        if before is not None and before > sender_level:
            raise NotAllowed("a level above the sender's can't be changed")
        # the new value
        if after is not None and after > sender_level:
            raise NotAllowed("a level can't be raised above the sender's")


def _check_user_changes(
    rules: RoomRules, event: Event, old: Mapping[str, Json], sender_level: float
) -> None:
    for user, before, after in _alterations(rules, old, _table(event.content, "users")):
        # 10.9 Another user of the sender's level or above can't be changed or removed.
        if before is not None and before >= sender_level and user != event.sender:
            raise NotAllowed("a user of the sender's level or above can't be changed")
        # 10.10 Nobody can be raised above the sender.
        if after is not None and after > sender_level:
            raise NotAllowed("a user can't be raised above the sender")


def _alterations(
    rules: RoomRules, old: Mapping[str, Json], new: Mapping[str, Json]
) -> Iterator[tuple[str, int | None, int | None]]:
    """The entries that were added, changed or removed: name, level before, level after.

    None stands for an entry that is absent.  Up to v9 the format rules cover only `users`; a value
    that can't be read as a level can't be shown not to be higher than the sender's, and is refused.
    """
    for name in old.keys() | new.keys():
        before = read_level(rules, old.get(name))
        after = read_level(rules, new.get(name))
        if (before is None and name in old) or (after is None and name in new):
            raise NotAllowed("a value that is no power level")
        if before != after:
            yield name, before, after
