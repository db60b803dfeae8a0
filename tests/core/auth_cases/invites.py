"""Rule 5.4: invites."""

from __future__ import annotations

from typing import Any

from matrixbox.core import signing
from tests.core.auth_cases.registry import (
    BOB,
    CAROL,
    MOD,
    NEW,
    Verdict,
    allows,
    membership,
    refuses,
)
from tests.core.making import CREATOR, Room

# --- 5.4 invite

KEYS = [signing.SigningKey(str(number), bytes([number]) * 32) for number in range(3)]
SIGNED = {"mxid": NEW, "token": "abc"}


def third_party(
    room: Room,
    signed: Any = SIGNED,
    *,
    invite: dict[str, Any] | None = None,
    by: str = BOB,
    key: signing.SigningKey = KEYS[0],
    sender: str = BOB,
    how: dict[str, Any] | None = None,
) -> Verdict:
    """An invite that turns the third-party invite "abc" by `sender` into one for NEW."""
    content = {"public_key": KEYS[0].verify_key_base64} if invite is None else invite
    room.put("m.room.third_party_invite", content, sender=sender, key="abc")
    if isinstance(signed, dict):
        signed = signing.sign_json(signed, "id.test", key)
    body = {"third_party_invite": {"signed": signed, "display_name": "n"}} if how is None else how
    return membership(room, NEW, "invite", by=by, **body)


@allows("5.4.1.1 third party banned")
def third_party_invite_of_somebody_who_left(room: Room) -> Verdict:
    room.member(NEW, "leave", by=CREATOR)
    return third_party(room)


@allows("5.4.1.1 third party banned")
def third_party_invite_by_somebody_without_any_power(room: Room) -> Verdict:
    # Neither membership nor level of the sender count on this path.
    room.levels(invite=100)
    room.member(BOB, "leave")
    return third_party(room)


@refuses("5.4.1.1 third party banned", "invited user is banned")
def third_party_invite_of_somebody_banned(room: Room) -> Verdict:
    room.member(NEW, "ban", by=CREATOR)
    return third_party(room)


@allows("5.4.1.2 third party signed")
def third_party_invite_with_signed(room: Room) -> Verdict:
    return third_party(room)


@refuses("5.4.1.2 third party signed", "without signed")
def third_party_invite_without_signed(room: Room) -> Verdict:
    return third_party(room, how={"third_party_invite": {"display_name": "n"}})


@refuses("5.4.1.2 third party signed", "without signed")
def third_party_invite_that_is_null(room: Room) -> Verdict:
    return third_party(room, how={"third_party_invite": None})


@refuses("5.4.1.2 third party signed", "without signed")
def third_party_invite_whose_signed_is_text(room: Room) -> Verdict:
    return third_party(room, "mxid token")


@allows("5.4.1.3 third party mxid and token")
def third_party_invite_with_mxid_and_token(room: Room) -> Verdict:
    return third_party(room, {**SIGNED, "more": 5})


@refuses("5.4.1.3 third party mxid and token", "without signed")
def third_party_invite_without_mxid(room: Room) -> Verdict:
    return third_party(room, {"token": "abc"})


@refuses("5.4.1.3 third party mxid and token", "without signed")
def third_party_invite_without_token(room: Room) -> Verdict:
    return third_party(room, {"mxid": NEW})


@allows("5.4.1.4 third party user")
def third_party_invite_of_the_user_who_was_signed_for(room: Room) -> Verdict:
    return third_party(room)


@refuses("5.4.1.4 third party user", "for another user")
def third_party_invite_of_another_user(room: Room) -> Verdict:
    return third_party(room, {**SIGNED, "mxid": CAROL})


@refuses("5.4.1.4 third party user", "for another user")
def third_party_invite_of_an_odd_user(room: Room) -> Verdict:
    return third_party(room, {**SIGNED, "mxid": [NEW]})


@allows("5.4.1.5 third party token")
def third_party_invite_with_a_known_token(room: Room) -> Verdict:
    return third_party(room)


@refuses("5.4.1.5 third party token", "no such third-party invite")
def third_party_invite_with_an_unknown_token(room: Room) -> Verdict:
    return third_party(room, {**SIGNED, "token": "def"})


@refuses("5.4.1.5 third party token", "no such third-party invite")
def third_party_invite_with_an_odd_token(room: Room) -> Verdict:
    return third_party(room, {**SIGNED, "token": ["abc"]})


@allows("5.4.1.6 third party sender")
def third_party_invite_by_its_sender(room: Room) -> Verdict:
    return third_party(room, by=CAROL, sender=CAROL)


@refuses("5.4.1.6 third party sender", "of another sender")
def third_party_invite_by_somebody_else(room: Room) -> Verdict:
    return third_party(room, by=CREATOR)


@allows("5.4.1.7 third party keys")
def third_party_invite_signed_by_one_of_several_keys(room: Room) -> Verdict:
    keys = [{"public_key": key.verify_key_base64} for key in KEYS]
    return third_party(room, invite={"public_keys": keys}, key=KEYS[2])


@allows("5.4.1.7 third party keys")
def third_party_invite_signed_by_the_single_key_of_several(room: Room) -> Verdict:
    keys = [{"public_key": KEYS[1].verify_key_base64}]
    content = {"public_key": KEYS[0].verify_key_base64, "public_keys": keys}
    return third_party(room, invite=content)


@allows("5.4.1.7 third party keys")
def third_party_invite_among_odd_keys_and_signatures(room: Room) -> Verdict:
    odd = [None, 5, {}, {"public_key": 5}, {"public_key": "Z"}, {"public_key": "short"}]
    good = {"public_key": KEYS[0].verify_key_base64}
    signatures = {"x": 5, "y": {"ed25519:1": "Z", "ed25519:2": 5, "rsa:1": "x", "ed25519:3": "x"}}
    signed = {**SIGNED, "signatures": signatures}
    return third_party(room, signed, invite={"public_key": 5, "public_keys": [*odd, good]})


@allows("5.4.1.7 third party keys")
def third_party_invite_signed_by_a_key_in_the_url_safe_alphabet(room: Room) -> Verdict:
    text = KEYS[0].verify_key_base64.replace("+", "-").replace("/", "_") + "="
    return third_party(room, invite={"public_key": text})


@refuses("5.4.1.7 third party keys", "no key of the third-party invite")
def third_party_invite_signed_by_another_key(room: Room) -> Verdict:
    return third_party(room, key=KEYS[1])


@refuses("5.4.1.7 third party keys", "no key of the third-party invite")
def third_party_invite_that_was_changed(room: Room) -> Verdict:
    signed = {**signing.sign_json(SIGNED, "id.test", KEYS[0]), "more": 5}
    return third_party(room, signed, key=KEYS[1])


@refuses("5.4.1.7 third party keys", "no key of the third-party invite")
def third_party_invite_without_keys(room: Room) -> Verdict:
    return third_party(room, invite={"public_keys": {"public_key": KEYS[0].verify_key_base64}})


@refuses("5.4.1.7 third party keys", "no key of the third-party invite")
def third_party_invite_with_odd_signatures(room: Room) -> Verdict:
    body = {"third_party_invite": {"signed": {**SIGNED, "signatures": []}}}
    return third_party(room, how=body)


@refuses("5.4.1.7 third party keys", "too many")
def third_party_invite_with_a_thousand_keys_and_more_signatures(room: Room) -> Verdict:
    keys = [{"public_key": signing.encode_base64(bytes([n]) * 32)} for n in range(205)]
    signatures = {f"ed25519:{n}": signing.encode_base64(bytes([n]) * 64) for n in range(1, 5)}
    signed = {**SIGNED, "signatures": {"id.test": signatures}}
    return third_party(room, signed, invite={"public_keys": keys})


@allows("5.4.1.7 third party keys")
def third_party_invite_with_as_many_keys_and_signatures_as_are_tried(room: Room) -> Verdict:
    keys = [{"public_key": signing.encode_base64(bytes([n]) * 32)} for n in range(255)]
    keys.append({"public_key": KEYS[0].verify_key_base64})
    signatures = {f"ed25519:{n}": signing.encode_base64(bytes([n]) * 64) for n in range(1, 4)}
    signed = {**SIGNED, "signatures": {"id.test": signatures}}
    return third_party(room, signed, invite={"public_keys": keys})


@allows("5.4.2 inviter joined")
def inviting_as_a_member(room: Room) -> Verdict:
    return membership(room, NEW, "invite", by=BOB)


@refuses("5.4.2 inviter joined", "sender is not joined")
def inviting_from_outside(room: Room) -> Verdict:
    return membership(room, CAROL, "invite", by=NEW)


@refuses("5.4.2 inviter joined", "sender is not joined")
def inviting_when_only_invited(room: Room) -> Verdict:
    room.member(BOB, "invite", by=CREATOR)
    return membership(room, NEW, "invite", by=BOB)


@allows("5.4.3 invited")
def inviting_somebody_who_left(room: Room) -> Verdict:
    room.member(NEW, "leave")
    return membership(room, NEW, "invite", by=BOB)


@allows("5.4.3 invited")
def inviting_again(room: Room) -> Verdict:
    room.member(NEW, "invite", by=BOB)
    return membership(room, NEW, "invite", by=BOB)


@refuses("5.4.3 invited", "joined or banned")
def inviting_a_member(room: Room) -> Verdict:
    return membership(room, CAROL, "invite", by=BOB)


@refuses("5.4.3 invited", "joined or banned")
def inviting_somebody_banned(room: Room) -> Verdict:
    room.member(NEW, "ban", by=CREATOR)
    return membership(room, NEW, "invite", by=BOB)


@allows("5.4.4 invite level")
def inviting_with_just_enough_power(room: Room) -> Verdict:
    room.levels(invite=50, users={MOD: 50})
    return membership(room, NEW, "invite", by=MOD)


@refuses("5.4.4 invite level", "may not invite")
def inviting_with_too_little_power(room: Room) -> Verdict:
    room.levels(invite=51, users={MOD: 50})
    return membership(room, NEW, "invite", by=MOD)
