"""What redaction leaves, and when it may act, by room version [A4.08]-[A4.15], T039."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.core.redaction import redact, redacted, redaction_allowed, same_event_domain
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.core.making import CREATOR, VERSIONS, standard_room, versions

EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)

ALWAYS = {
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
}
UNTIL_10 = {"origin", "membership", "prev_state"}

# For each type: the protected keys of content, and the version from which (and until which) on.
CONTENT = {
    "m.room.member": {
        "membership": (1, 12),
        "join_authorised_via_users_server": (9, 12),
    },
    "m.room.create": {
        "creator": (1, 12),
        "room_version": (11, 12),
        "m.federate": (11, 12),
        "anything": (11, 12),
    },
    "m.room.join_rules": {"join_rule": (1, 12), "allow": (8, 12)},
    "m.room.power_levels": {
        **dict.fromkeys(
            [
                "ban",
                "events",
                "events_default",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ],
            (1, 12),
        ),
        "invite": (11, 12),
    },
    "m.room.aliases": {"aliases": (1, 5)},
    "m.room.history_visibility": {"history_visibility": (1, 12)},
    "m.room.redaction": {"redacts": (11, 12)},
    "m.room.topic": {},
    "m.room.third_party_invite": {},
    "m.room.server_acl": {},
}
EVERY_KEY = sorted(
    {key for keys in CONTENT.values() for key in keys} | {"anything", "notifications"}
)


@EVERY_VERSION
def test_only_protected_keys_stay_at_the_top_level(version):
    """[A4.08], [A4.11], [A4.13]"""
    keys = [*ALWAYS, *UNTIL_10, "unsigned", "redacts", "age", "anything"]
    kept = redact(ROOM_VERSIONS[version], {key: {} for key in keys})
    assert set(kept) == ALWAYS | (UNTIL_10 if version in versions(1, 10) else set())


@EVERY_VERSION
@pytest.mark.parametrize("type_", CONTENT)
def test_only_protected_keys_stay_in_content(version, type_):
    """[A4.09]-[A4.12]"""
    pdu = {"type": type_, "content": {key: f"value of {key}" for key in EVERY_KEY}}
    if type_ == "m.room.create" and version in versions(11):
        expected = set(EVERY_KEY)
    else:
        expected = {key for key, (a, z) in CONTENT[type_].items() if version in versions(a, z)}
    kept = redact(ROOM_VERSIONS[version], pdu)["content"]
    assert kept == {key: f"value of {key}" for key in expected}


@EVERY_VERSION
@pytest.mark.parametrize(
    ("invite", "kept"),
    [
        ({"signed": {"mxid": "x"}, "display_name": "y"}, {"signed": {"mxid": "x"}}),
        ({"signed": 5}, {"signed": 5}),
        ({"display_name": "y"}, {}),
        ({}, {}),
        (5, None),
        ([], None),
        (None, None),
    ],
)
def test_a_third_party_invite_keeps_what_was_signed_from_version_11_on(version, invite, kept):
    """[A4.11]"""
    pdu = {
        "type": "m.room.member",
        "content": {"membership": "invite", "third_party_invite": invite},
    }
    expected = {"membership": "invite"}
    if version in versions(11) and kept is not None:
        expected["third_party_invite"] = kept
    assert redact(ROOM_VERSIONS[version], pdu)["content"] == expected
    absent = {"type": "m.room.member", "content": {"membership": "invite"}}
    assert redact(ROOM_VERSIONS[version], absent)["content"] == {"membership": "invite"}
    other = {"type": "m.room.x", "content": {"third_party_invite": {"signed": 5}}}
    assert redact(ROOM_VERSIONS[version], other)["content"] == {}


def test_redaction_changes_a_copy_only():
    pdu = {"type": "m.room.member", "content": {"membership": "join", "displayname": "x"}}
    redact(ROOM_VERSIONS["12"], pdu)
    assert pdu["content"]["displayname"] == "x"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*EVERY_KEY, "third_party_invite", "signed"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
pdus = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(list(CONTENT)) | json,
        "content": json,
        "sender": json,
        "membership": json,
        "unsigned": json,
        "junk": json,
    },
)


@given(st.sampled_from(VERSIONS), pdus)
def test_redaction_is_idempotent_and_never_fails(version, pdu):
    """rooms, "Redactions" """
    rules = ROOM_VERSIONS[version]
    once = redact(rules, pdu)
    assert redact(rules, once) == once
    assert set(once) <= set(pdu) | {"content"}
    assert isinstance(once["content"], dict)


@EVERY_VERSION
def test_a_redacted_event_keeps_its_name_and_its_place(version):
    """[A4.18]"""
    room = standard_room(version)
    for event in room.events.values():
        pruned = redacted(event)
        assert pruned.event_id == event.event_id
        assert pruned.json == redact(room.rules, event.json)
        assert (pruned.type, pruned.state_key, pruned.sender) == (
            event.type,
            event.state_key,
            event.sender,
        )
        assert pruned.auth_event_ids == event.auth_event_ids
        assert pruned.room_id == event.room_id
    member = redacted(room.state["m.room.member", CREATOR])
    assert member.content == {"membership": "join"}


# --- may it act?


def redaction_by(room, sender, target, **how):
    content = {"redacts": target} if room.rules.redacts_in_content else {}
    field = None if room.rules.redacts_in_content else target
    return room.make("m.room.redaction", content, sender=sender, redacts=field, **how)


@EVERY_VERSION
@pytest.mark.parametrize(
    ("sender", "author", "allowed"),
    [
        ("@mod:one.test", "@bob:two.test", True),  # power level 50
        (CREATOR, "@bob:two.test", True),
        ("@half:two.test", "@mod:one.test", False),  # 25, another server
        ("@half:two.test", "@bob:two.test", True),  # the same server
        ("@bob:two.test", "@bob:two.test", True),
        ("@bob:two.test", "@carol:one.test", False),
        ("@outsider:three.test", "@carol:one.test", False),
    ],
)
def test_moderators_and_the_author_s_server_may_redact(version, sender, author, allowed):
    """[A4.14], [A4.15]"""
    room = standard_room(version)
    names = iter("abcd")

    def id_for(user: str):
        domain = user.partition(":")[2]
        return f"${next(names)}:{domain}" if room.rules.event_id_in_pdu else None

    target = room.make("m.room.message", {}, sender=author, event_id=id_for(author))
    event = redaction_by(room, sender, target.event_id, event_id=id_for(sender))
    assert redaction_allowed(room.rules, event, target, room.state) is allowed


@EVERY_VERSION
def test_the_domain_that_counts_is_the_event_id_s_in_old_versions(version):
    """[A4.15]"""
    room = standard_room(version)
    old = version in ("1", "2")
    how = {"event_id": "$a:same.test"} if old else {}
    target = room.make("m.room.message", {}, sender="@carol:one.test", **how)
    how = {"event_id": "$b:same.test"} if old else {}
    event = redaction_by(room, "@bob:two.test", target.event_id, **how)
    assert redaction_allowed(room.rules, event, target, room.state) is old


@EVERY_VERSION
def test_the_redact_level_counts_even_if_the_type_of_the_target_needs_more(version):
    """[A4.14]"""
    room = standard_room(version)
    room.levels(users={"@mod:one.test": 50}, redact=50, events={"m.high": 90})
    how = {"event_id": "$a:two.test"} if version in ("1", "2") else {}
    target = room.make("m.high", {}, sender="@bob:two.test", **how)
    event = redaction_by(room, "@mod:one.test", target.event_id)
    assert redaction_allowed(room.rules, event, target, room.state)
    room.levels(users={"@mod:one.test": 50}, redact=51)
    assert not redaction_allowed(room.rules, event, target, room.state)


@EVERY_VERSION
def test_a_redaction_acts_on_its_own_target_in_its_own_room_only(version):
    """T039, T005"""
    room = standard_room(version)
    target = room.make("m.room.message", {}, sender="@bob:two.test")
    other = room.make("m.room.message", {}, sender="@bob:two.test")
    event = redaction_by(room, CREATOR, target.event_id)
    assert redaction_allowed(room.rules, event, target, room.state)
    assert not redaction_allowed(room.rules, event, other, room.state)
    elsewhere = redaction_by(room, CREATOR, target.event_id, room_id="!other:one.test")
    assert not redaction_allowed(room.rules, elsewhere, target, room.state)
    assert not redaction_allowed(room.rules, event, target, {})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("$a:x", "$b:x", True),
        ("$a:x", "$b:y", False),
        ("$a:x:1", "$b:x", False),
        ("$a", "$b:x", False),
    ],
)
def test_domains_of_event_ids_are_compared_whole(one, other, same):
    assert same_event_domain(one, other) is same
