"""Whatever stands in events, the authorisation rules give a verdict (T009, T025, T090)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.auth import select_auth_keys
from matrixbox.core.events import MalformedEvent
from matrixbox.core.json import RawNumber
from matrixbox.core.redaction import redaction_allowed
from matrixbox.core.signing import required_signers
from tests.core.making import CREATOR, VERSIONS, Room, standard_room

BOB = "@bob:two.test"
NAMES = str.split(
    "membership join_rule users events notifications ban kick redact invite users_default"
    " events_default state_default third_party_invite signed mxid token signatures public_key"
    " public_keys join_authorised_via_users_server m.federate creator additional_creators"
    " room_version redacts history_visibility"
)
TYPES = str.split(
    "m.room.create m.room.member m.room.power_levels m.room.join_rules m.room.third_party_invite"
    " m.room.aliases m.room.redaction m.room.message"
)
USERS = [CREATOR, BOB, "@carol:one.test", "@new:three.test"]
WORDS = ["join", "invite", "leave", "ban", "knock", "public", "restricted", "knock_restricted"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-200, 200)
    | st.sampled_from([*WORDS, *USERS, "abc", "50", " 5 ", "1e5", ""])
    | st.sampled_from([RawNumber("50.5"), RawNumber("1e999"), RawNumber("9" * 30), 2**60]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, *USERS, "ed25519:1"]), inner, max_size=4)
    ),
    max_leaves=8,
)
contents = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)


def put_anything(data: st.DataObject, room: Room) -> None:
    """Replace parts of the state by events with odd contents."""
    for type_, key in (
        ("m.room.power_levels", ""),
        ("m.room.join_rules", ""),
        ("m.room.member", BOB),
        ("m.room.third_party_invite", "abc"),
        ("m.room.create", ""),
    ):
        if data.draw(st.booleans()):
            try:
                room.put(type_, data.draw(contents), sender=CREATOR, key=key)
            except MalformedEvent:
                continue


@given(st.data(), st.sampled_from(VERSIONS))
def test_any_content_in_any_event_gives_a_verdict(data: st.DataObject, version: str):
    """T025"""
    room = standard_room(version)
    put_anything(data, room)
    type_ = data.draw(st.sampled_from(TYPES))
    content = data.draw(contents)
    try:
        event = room.make(
            type_,
            content,
            sender=data.draw(st.sampled_from(USERS)),
            key=data.draw(st.none() | st.sampled_from([*USERS, "", "abc", "two.test"])),
            prev=[room.create] if data.draw(st.booleans()) else None,
            signatures=data.draw(
                st.just({}) | st.dictionaries(st.sampled_from(["two.test"]), values)
            ),
            redacts=data.draw(values) if type_ == "m.room.redaction" else None,
        )
    except MalformedEvent:
        return
    assert isinstance(room.verdict(event), str | None)
    cited = [room.events[id_] for id_ in event.auth_event_ids]
    assert isinstance(room.citations_verdict(event, cited, room.create), str | None)
    assert all(isinstance(server, str) for server in required_signers(room.rules, event))
    assert redaction_allowed(room.rules, event, room.last_made(), room.state) in (True, False)


@given(
    st.sampled_from(VERSIONS), st.sampled_from(TYPES), contents, st.none() | st.sampled_from(USERS)
)
def test_selection_never_fails_and_names_each_place_once(version, type_, content, key):
    room = Room(version)
    keys = select_auth_keys(room.rules, type_, BOB, key, content)
    assert len(set(keys)) == len(keys)
    assert all(isinstance(part, str) for found in keys for part in found)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_rules_look_only_at_what_selection_names(version):
    """State resolution relies on it: it hands over these places and no others."""

    class Watched(dict):
        def __init__(self, state, allowed):
            super().__init__(state)
            self.allowed = allowed

        def get(self, key, default=None):
            assert key in self.allowed, key
            return super().get(key, default)

        def __getitem__(self, key):
            assert key in self.allowed, key
            return super().__getitem__(key)

    room = standard_room(version)
    signatures = {"one.test": {"ed25519:1": "x"}}
    for sender in USERS:
        for key in (None, "", *USERS):
            for type_ in TYPES:
                for word in (*WORDS, None):
                    content = {
                        "membership": word,
                        "join_authorised_via_users_server": CREATOR,
                        "users": {},
                    }
                    event = room.make(type_, content, sender=sender, key=key, signatures=signatures)
                    keys = select_auth_keys(room.rules, type_, sender, key, content)
                    allowed = {*keys, ("m.room.create", "")}
                    room.verdict(event, Watched(room.state, allowed))
