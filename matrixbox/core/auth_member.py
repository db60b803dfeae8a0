"""The authorisation rules for membership.

Matrix v1.19, rooms/v12 "Authorisation rules", rule 5 (rule 4 of versions 6 to 11, 5 of versions 1
to 5) [A5.05]-[A5.14].  The numbers are those of version 8 and later, where 5.2 exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from matrixbox.core.events import (
    CREATE,
    JOIN_RULES,
    Event,
    PowerLevels,
    StateMap,
    creators_of,
    join_rule_of,
    membership_of,
)
from matrixbox.core.hashes import decode_base64
from matrixbox.core.identifiers import is_user_id, server_of
from matrixbox.core.json import Json
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import signatures_by, signed_bytes, verify
from matrixbox.core.verdict import NotAllowed

# Signatures times keys that one third-party invite may make us try, each about 60 microseconds.
MAX_VERIFICATIONS = 1024


def check_member(rules: RoomRules, event: Event, state: StateMap, levels: PowerLevels) -> None:
    """Raise NotAllowed unless `state` allows this `m.room.member` event: rule 5."""
    # 5.1
    if event.state_key is None or "membership" not in event.content:
        raise NotAllowed("a member event without state_key or membership")
    # 5.2, from v8 on: on any membership [K.10]
    if rules.restricted and "join_authorised_via_users_server" in event.content:
        _check_authorising_signature(event)
    membership = event.content["membership"]
    # 5.3
    if membership == "join":
        _check_join(rules, event, state, levels)
    # 5.4
    elif membership == "invite":
        _check_invite(event, event.state_key, state, levels)
    # 5.5
    elif membership == "leave":
        _check_leave(rules, event, event.state_key, state, levels)
    # 5.6
    elif membership == "ban":
        _check_ban(event, event.state_key, state, levels)
    # 5.7, from v7 on
    elif membership == "knock" and rules.knock:
        _check_knock(rules, event, state)
    # 5.8
    else:
        raise NotAllowed("an unknown membership")


def _membership(state: StateMap, user_id: str) -> str | None:
    """A user's current membership, None if there never was one."""
    return membership_of(state.get(("m.room.member", user_id)))


def _join_rule(state: StateMap) -> str | None:
    """The join rule in force, None if it is no text.

    The text does not say what holds without one; servers take `invite`, or else the members of a
    new room could not change their names before the first join rules.
    """
    event = state.get(JOIN_RULES)
    return "invite" if event is None or "join_rule" not in event.content else join_rule_of(event)


def _check_authorising_signature(event: Event) -> None:
    """5.2.1: the authorising user's server has signed.

    That the signature is good is part of receipt check 2 (`signing.required_signers`), where the
    keys are known; here a signature has to be there at all.
    """
    user = event.content["join_authorised_via_users_server"]
    if not is_user_id(user) or not signatures_by(event.json, server_of(user)):
        raise NotAllowed("the authorising server has not signed")


def _check_join(rules: RoomRules, event: Event, state: StateMap, levels: PowerLevels) -> None:
    create = state[CREATE]
    # 5.3.1 The creator's first join: from v11 on the create event's sender, before its `creator`.
    creators = {create.sender} if rules.privileged_creators else creators_of(create)
    if _has_only_parent(event, create) and event.state_key in creators:
        return
    # 5.3.2
    if event.sender != event.state_key:
        raise NotAllowed("nobody can make others join")
    membership = _membership(state, event.sender)
    # 5.3.3
    if membership == "ban":
        raise NotAllowed("the sender is banned")
    join_rule = _join_rule(state)
    # 5.3.4
    if join_rule == "invite" or (join_rule == "knock" and rules.knock):
        if membership in ("invite", "join"):
            return
    # 5.3.5, from v8 on
    elif _is_restricted(rules, join_rule):
        # 5.3.5.1
        if membership in ("join", "invite"):
            return
        # 5.3.5.2
        authorising = event.content.get("join_authorised_via_users_server")
        if (
            not isinstance(authorising, str)
            or _membership(state, authorising) != "join"
            or levels.user(authorising) < levels.invite
        ):
            raise NotAllowed("no member who may invite has authorised this join")
        # 5.3.5.3
        return
    # 5.3.6
    elif join_rule == "public":
        return
    # 5.3.7
    raise NotAllowed("the join rule does not allow this join")


def _has_only_parent(event: Event, create: Event) -> bool:
    """Whether `prev_events` is the create event alone; naming it twice is not that to anybody."""
    prev_events = event.json.get("prev_events")
    only = isinstance(prev_events, list) and len(prev_events) == 1
    return only and event.prev_event_ids == (create.event_id,)


def _is_restricted(rules: RoomRules, join_rule: str | None) -> bool:
    return (join_rule == "restricted" and rules.restricted) or (
        join_rule == "knock_restricted" and rules.knock_restricted
    )


def _check_invite(event: Event, target: str, state: StateMap, levels: PowerLevels) -> None:
    # 5.4.1
    if "third_party_invite" in event.content:
        _check_third_party_invite(event, target, state)
        return
    # 5.4.2
    if _membership(state, event.sender) != "join":
        raise NotAllowed("the sender is not joined")
    # 5.4.3
    if _membership(state, target) in ("join", "ban"):
        raise NotAllowed("the invited user is joined or banned")
    # 5.4.4, 5.4.5
    if levels.user(event.sender) < levels.invite:
        raise NotAllowed("the sender may not invite")


def _check_third_party_invite(event: Event, target: str, state: StateMap) -> None:
    # 5.4.1.1
    if _membership(state, target) == "ban":
        raise NotAllowed("the invited user is banned")
    # 5.4.1.2
    invite = event.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, Mapping) else None
    # 5.4.1.3
    if not isinstance(signed, Mapping) or "mxid" not in signed or "token" not in signed:
        raise NotAllowed("a third-party invite without signed mxid and token")
    # 5.4.1.4
    if signed["mxid"] != target:
        raise NotAllowed("the third-party invite is for another user")
    # 5.4.1.5
    token = signed["token"]
    third_party = (
        state.get(("m.room.third_party_invite", token)) if isinstance(token, str) else None
    )
    if third_party is None:
        raise NotAllowed("no such third-party invite")
    # 5.4.1.6
    if third_party.sender != event.sender:
        raise NotAllowed("the third-party invite is of another sender")
    # 5.4.1.7, 5.4.1.8
    if not _is_signed_by_any(signed, third_party.content):
        raise NotAllowed("no key of the third-party invite has signed")


def _is_signed_by_any(signed: Mapping[str, Json], invite: Mapping[str, Json]) -> bool:
    """5.4.1.7: any signature on `signed` matches any public key of the invite."""
    keys = frozenset(_public_keys(invite))
    signatures = frozenset(_signatures(signed))
    if len(keys) * len(signatures) > MAX_VERIFICATIONS:
        raise NotAllowed("a third-party invite with too many keys and signatures")
    message = signed_bytes(signed)
    return any(verify(key, message, signature) for key in keys for signature in signatures)


def _public_keys(invite: Mapping[str, Json]) -> Iterator[bytes]:
    # 5.4.1.7.1
    yield from _decoded(invite.get("public_key"))
    # 5.4.1.7.2
    more = invite.get("public_keys")
    for entry in more if isinstance(more, list) else ():
        if isinstance(entry, Mapping):
            yield from _decoded(entry.get("public_key"))


def _signatures(signed: Mapping[str, Json]) -> Iterator[bytes]:
    servers = signed.get("signatures")
    for server in servers if isinstance(servers, Mapping) else ():
        for signature in signatures_by(signed, server).values():
            yield from _decoded(signature)


def _decoded(value: Json) -> Iterator[bytes]:
    """The bytes of a base64 string; nothing for what is none."""
    if isinstance(value, str):
        try:
            yield decode_base64(value)
        except ValueError:
            return


def _check_leave(
    rules: RoomRules, event: Event, target: str, state: StateMap, levels: PowerLevels
) -> None:
    # 5.5.1
    if event.sender == target:
        if _membership(state, target) not in (
            ("invite", "join", "knock") if rules.knock else ("invite", "join")
        ):
            raise NotAllowed("the sender is not in the room")
        return
    # 5.5.2
    if _membership(state, event.sender) != "join":
        raise NotAllowed("the sender is not joined")
    sender_level = levels.user(event.sender)
    # 5.5.3
    if _membership(state, target) == "ban" and sender_level < levels.ban:
        raise NotAllowed("the sender may not lift bans")
    # 5.5.4, 5.5.5
    if sender_level < levels.kick or levels.user(target) >= sender_level:
        raise NotAllowed("the sender may not remove this user")


def _check_ban(event: Event, target: str, state: StateMap, levels: PowerLevels) -> None:
    # 5.6.1
    if _membership(state, event.sender) != "join":
        raise NotAllowed("the sender is not joined")
    sender_level = levels.user(event.sender)
    # 5.6.2, 5.6.3
    if sender_level < levels.ban or levels.user(target) >= sender_level:
        raise NotAllowed("the sender may not ban this user")


def _check_knock(rules: RoomRules, event: Event, state: StateMap) -> None:
    join_rule = _join_rule(state)
    # 5.7.1
    if join_rule != "knock" and not (join_rule == "knock_restricted" and rules.knock_restricted):
        raise NotAllowed("the join rule does not allow knocking")
    # 5.7.2
    if event.sender != event.state_key:
        raise NotAllowed("nobody can knock for others")
    # 5.7.3, 5.7.4
    if _membership(state, event.sender) in ("ban", "invite", "join"):
        raise NotAllowed("the sender is banned, invited or joined")
