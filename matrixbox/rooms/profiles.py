"""Profiles of our users, and what rooms show of them.

Matrix v1.19, Client-Server API, "Profiles" ([C15.01] to [C15.04], [C10.07]).
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.identifiers import RoomId, UserId, is_namespaced
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.errors import Forbidden, InvalidParam, KeyTooLarge, NotFound, ProfileTooLarge
from matrixbox.observe import log
from matrixbox.rooms import ingest, resolution
from matrixbox.rooms.build import Draft
from matrixbox.rooms.env import Env
from matrixbox.rooms.membership import MEMBER, profile_content
from matrixbox.rooms.state import CurrentState
from matrixbox.store import account_data, accounts, members, names
from matrixbox.store.accounts import AccountState
from matrixbox.store.caches import Session
from matrixbox.store.database import Store
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

MAX_KEY_BYTES = 255
MAX_PROFILE_BYTES = 65_535
SHOWN_IN_ROOMS = ("displayname", "avatar_url")


def get(tx: Tx, user: UserNid) -> dict[str, Json]:
    """The whole profile."""
    return {key: decode_stored(json) for key, json in account_data.profile(tx, user).items()}


def of_account(tx: Tx, user_id: UserId) -> dict[str, Json]:
    """The whole profile of a user of this server; raises NotFound."""
    user = names.user_nid(tx, user_id)
    account = None if user is None else accounts.get(tx, user)
    if account is None or account.state is AccountState.DEACTIVATED:
        raise NotFound("There is no such user here.")
    return get(tx, account.user)


def check_key(key: str) -> None:
    """Raise KeyTooLarge or InvalidParam unless a profile field may be called so ([C15.02])."""
    if len(key.encode()) > MAX_KEY_BYTES:
        raise KeyTooLarge("The name of a profile field has at most 255 bytes.")
    if not is_namespaced(key):
        raise InvalidParam("The name of a profile field holds only a-z, 0-9 and . _ -")


def set_field(tx: Tx, user: UserNid, key: str, value: Json) -> None:
    """Set one field.  Raises ProfileTooLarge ([C15.02])."""
    fields: dict[str, Json] = {**get(tx, user), key: value}
    if len(encode(fields)) > MAX_PROFILE_BYTES:
        raise ProfileTooLarge("A profile has less than 64 KiB.")
    account_data.set_profile_field(tx, user, key, encode(value))


def remove_field(tx: Tx, user: UserNid, key: str) -> None:
    """Remove one field, present or not."""
    account_data.remove_profile_field(tx, user, key)


async def change(
    store: Store, env: Env, who: Session, key: str, value: Json, *, keep: bool
) -> None:
    """Set (or, without ``keep``, remove) a field, and let the user's rooms know of it.

    Each room is a transaction of its own, so that a user of many rooms holds up nobody.
    """
    check_key(key)
    if keep:
        await store.write(set_field, who.user, key, value)
    else:
        await store.write(remove_field, who.user, key)
    if key in SHOWN_IN_ROOMS:
        for room_id in store.read(members.joined_rooms, who.user):
            await resolution.write(store, show_in_room, env, who, room_id)


def show_in_room(tx: Tx, env: Env, who: Session, room_id: RoomId) -> None:
    """Bring the user's membership event in a room up to the profile."""
    room = names.room_nid(tx, room_id)
    assert room is not None
    present = CurrentState(tx, room).get((MEMBER, who.user_id))
    if present is None or present.content.get("membership") != "join":
        return
    shown = profile_content(tx, who.user)
    kept = {
        key: value
        for key, value in present.content.items()
        if key not in SHOWN_IN_ROOMS and key != "join_authorised_via_users_server"
    }
    content: Mapping[str, Json] = {**kept, **shown}
    if content != present.content:
        try:
            ingest.send(tx, env, room, Draft(MEMBER, who.user_id, content, who.user_id))
        except Forbidden as error:
            # Under odd join rules even members cannot join anew; the other rooms still can know.
            log.info("profile not shown in room", room_id=room_id, reason=str(error))


def require_own(who: Session, user_id: UserId) -> None:
    """Raise Forbidden unless the profile is the caller's."""
    if who.user_id != user_id:
        raise Forbidden("Only the own profile can be changed.")
