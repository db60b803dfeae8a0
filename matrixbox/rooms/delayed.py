"""Events that a client asks to send later: scheduling them, and what can be done until then.

MSC4140.  Whether an event may be sent is decided when it is sent.  The identifier is known to who
scheduled the event and to those whom they gave it, such as the server of a call: it is enough to
restart, cancel or send.  Signing out changes nothing, since the typical delayed event says that a
call has lost its participant; when an account ends, nothing of it is sent any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from attrs import frozen

from matrixbox.core.identifiers import InvalidIdentifier, UserId, parse_user_id, server_of
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.errors import (
    BadJson,
    Conflict,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    NotFound,
    TooLarge,
)
from matrixbox.rooms.env import Env
from matrixbox.store import delayed, members, names
from matrixbox.store.caches import Session
from matrixbox.store.delayed import Delayed
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import DeviceNid, RoomNid, UserNid
from matrixbox.store.transaction import Tx

TOPIC = "delayed"
"""Rings when an event is scheduled or restarted."""

MAX_CONTENT = 65_536
MAX_TOTAL_CONTENT = 1_048_576
"""Bytes of content that wait for one user."""
MAX_ENDED = 100
"""How many that are over are remembered of one user."""
ENDED_FOR_S = 7 * 24 * 3_600
MAX_STATE_KEY = 255


@frozen
class Allowance:
    """How many events one user may schedule, and for when."""

    most: int = 100  # 0: the feature is off
    longest_ms: int = 30 * 24 * 3_600_000


@frozen
class Wish:
    """What is to be sent, and when."""

    room: RoomNid
    type: str
    state_key: str | None
    content: Mapping[str, Json]
    delay_ms: int


@frozen
class Repeatable:
    """The transaction that a request belongs to, as far as it has one."""

    device: DeviceNid
    key: bytes | None = None
    txn_id: str | None = None


def schedule(
    tx: Tx, env: Env, who: Session, wish: Wish, transaction: Repeatable, allowance: Allowance
) -> str:
    """Store an event to be sent later; its identifier.  The same transaction gives the same one.

    Raises Forbidden where the delay is too long or the user not in the room, LimitExceeded when
    too much waits already.
    """
    if transaction.key is not None:
        known = delayed.by_transaction(tx, transaction.device, transaction.key)
        if known is not None:
            return known
    require_allowance(wish.delay_ms, allowance)
    _check(env, wish)
    member = members.get(tx, wish.room, who.user)
    if member is None or member.membership not in (Membership.JOIN, Membership.INVITE):
        raise Forbidden("You are not in that room.")
    content = encode(dict(wish.content))
    if len(content) > MAX_CONTENT:
        raise TooLarge("The event is too large.")
    now_ms = env.clock.now_ms()
    count, size, next_ms = delayed.load(tx, who.user)
    if count >= allowance.most or size + len(content) > MAX_TOTAL_CONTENT:
        wait_ms = max(1, next_ms - now_ms)
        raise LimitExceeded(wait_ms, "Too many events of yours are waiting to be sent.")
    delay_id = "mbd_" + secrets.token_urlsafe(32)
    new = Delayed(
        0,
        delay_id,
        who.user,
        who.device,
        transaction.txn_id,
        wish.room,
        wish.type,
        wish.state_key,
        content,
        wish.delay_ms,
        now_ms,
        now_ms + wish.delay_ms,
    )
    delayed.add(tx, new, transaction.key)
    tx.changed(topics=(TOPIC,))
    return delay_id


def require_allowance(delay_ms: int, allowance: Allowance) -> None:
    """Raise Forbidden where events cannot be delayed, or not for so long."""
    if not allowance.most:
        raise Forbidden("This server sends nothing later than it was asked to.")
    if delay_ms > allowance.longest_ms:
        raise Forbidden(f"Events are delayed by at most {allowance.longest_ms} ms here.")


def _check(env: Env, wish: Wish) -> None:
    """Refuse now what could not be sent at any time."""
    if wish.type == "m.room.create":
        raise InvalidParam("A room is created once.")
    if wish.type == "m.room.redaction" and not isinstance(wish.content.get("redacts"), str):
        raise BadJson("A redaction names the event it redacts in `redacts`.")
    if len(wish.type.encode()) > MAX_STATE_KEY or not wish.type:
        raise InvalidParam("The type of an event has 1 to 255 bytes.")
    if wish.state_key is None:
        return
    if len(wish.state_key.encode()) > MAX_STATE_KEY:
        raise InvalidParam("A state key has at most 255 bytes.")
    if wish.type == "m.room.member":
        target = _user_id(wish.state_key)
        if wish.content.get("membership") == "invite" and server_of(target) != env.server_name:
            raise InvalidParam("Users of other servers are invited at once or not at all.")


def _user_id(text: str) -> UserId:
    try:
        return parse_user_id(text)
    except InvalidIdentifier as error:
        raise InvalidParam("The state key of a membership is a user id.") from error


# --- what can be done meanwhile


def found(tx: Tx, delay_id: str, user: UserNid | None) -> Delayed:
    """A delayed event, for its user or for somebody who has no account here.  Raises NotFound."""
    one = delayed.by_id(tx, delay_id)
    if one is None or (user is not None and one.user != user):
        raise NotFound("There is no such delayed event.")
    return one


def restart(tx: Tx, env: Env, delay_id: str, user: UserNid | None) -> None:
    """Let the delay begin anew.  Raises NotFound, Conflict when it is over."""
    one = found(tx, delay_id, user)
    if one.due_ms is None:
        raise Conflict("That event was sent or cancelled already.")
    delayed.restart(tx, one.nid, env.clock.now_ms())
    tx.changed(topics=(TOPIC,))


def cancel(tx: Tx, env: Env, delay_id: str, user: UserNid | None) -> None:
    """Never send it; once more is no error.  Raises NotFound, Conflict when it was sent."""
    one = found(tx, delay_id, user)
    if one.event_id is not None:
        raise Conflict("That event was sent already.")
    if one.due_ms is not None:
        over(tx, env, one)


def over(tx: Tx, env: Env, one: Delayed, error: bytes | None = None) -> None:
    """It will not be sent; remembered for a while."""
    delayed.end(tx, one.nid, env.clock.now_ms(), error)
    delayed.prune(tx, one.user, MAX_ENDED)


# --- what is told of them


def listed(tx: Tx, user: UserNid) -> list[Json]:
    """A user's events that are still to be sent, in that order."""
    return [shown(tx, one) for one in delayed.scheduled(tx, user)]


def shown(tx: Tx, one: Delayed) -> dict[str, Json]:
    """A delayed event as its user gets it, under the names of the proposal and those in use."""
    facts: dict[str, Json] = {
        "delay_id": one.delay_id,
        "room_id": names.room_id(tx, one.room),
        "type": one.type,
        "delay_ms": one.delay_ms,
        "delay": one.delay_ms,
        "delayed_since_ts": one.since_ms,
        "scheduled_at": one.since_ms,
        "running_since": one.since_ms,
        "content": decode_stored(one.content),
    }
    if one.state_key is not None:
        facts["state_key"] = one.state_key
    if one.ended_ms is not None:
        facts["finalised_ts"] = one.ended_ms
        if one.event_id is not None:
            facts["event_id"] = one.event_id
        if one.error is not None:
            facts["error"] = decode_stored(one.error)
    return facts
