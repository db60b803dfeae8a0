"""Sending events later.

MSC4140, as proposed and in the older form that calls use: a parameter of `/send` and `/state`
instead of an endpoint, and the action in the body instead of the path.  The identifier of a
delayed event is enough to manage it, as a call's server does that has no account here; whoever
shows a token manages only events of that user.  The parameter is never ignored: a client that says
"I am gone" in a minute would be gone at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from matrixbox.accounts.throttle import MESSAGES, Rate
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.places import known_room
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import InvalidParam, MissingParam
from matrixbox.rooms import delayed
from matrixbox.rooms.delayed import Allowance, Repeatable, Wish
from matrixbox.rooms.ingest import Transaction
from matrixbox.store import delayed as store
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

UNSTABLE = "/_matrix/client/unstable/org.matrix.msc4140"
ALL = f"{UNSTABLE}/delayed_events"
ONE = f"{ALL}/{{delay_id}}"
PARAMETERS = ("org.matrix.msc4140.delay", "delay")
ACTIONS = ("restart", "send", "cancel")
MAX_TXN_ID = 255
MAX_DELAY_ID = 255
HOUR_MS = 3_600_000

MANAGING = Rate(20, 1)  # of one event
LOOKING = Rate(60, 1)  # of one user
GUESSING = Rate(20, 10)  # identifiers that do not exist, from one address


def allowance(call: Call) -> Allowance:
    """How much may be delayed here, and for how long."""
    limits = call.services.settings.limits
    return Allowance(limits.delayed_events_per_user, limits.delayed_events_hours * HOUR_MS)


def named_transaction(call: Call, endpoint: str) -> Transaction:
    """The transaction of a request: its identifier counts for one device, endpoint and path."""
    txn_id = call.path["txn_id"]
    if len(txn_id.encode()) > MAX_TXN_ID:
        raise InvalidParam(f"A transaction identifier has at most {MAX_TXN_ID} bytes.")
    parts = "\0".join([endpoint, *(call.path[name] for name in sorted(call.path))])
    key = hashlib.blake2b(parts.encode(), digest_size=16).digest()
    return Transaction(call.requester.device, key, txn_id)


# --- the parameter of other endpoints


def delay_of(call: Call) -> int | None:
    """By how many milliseconds an event is to be delayed; None: it is to be sent now."""
    for name in PARAMETERS:
        value = call.param(name)
        if value is not None:
            delay_ms = parse.query_integer(value, name, 1, 1, 2**53)
            delayed.require_allowance(delay_ms, allowance(call))
            return delay_ms
    return None


def refuse_delay(call: Call) -> None:
    """Refuse the parameter where nothing is delayed."""
    if delay_of(call) is not None:
        raise InvalidParam("A redaction is delayed through /send.")


async def delay_message(call: Call, delay_ms: int, transaction: Transaction) -> dict[str, Json]:
    """Schedule an event that is not state; a repeated transaction needs no body."""
    repeatable = Repeatable(transaction.device, transaction.key, transaction.txn_id)
    known = call.services.store.read(store.by_transaction, transaction.device, transaction.key)
    if known is not None:
        return {"delay_id": known}
    content = await call.json()
    kind = call.path["event_type"]
    return await _schedule(call, kind, None, content, delay_ms, repeatable)


async def delay_state(call: Call, delay_ms: int, state_key: str) -> dict[str, Json]:
    """Schedule a state event."""
    content, kind = await call.json(), call.path["event_type"]
    nothing = Repeatable(call.requester.device)
    return await _schedule(call, kind, state_key, content, delay_ms, nothing)


async def _schedule(
    call: Call,
    kind: str,
    state_key: str | None,
    content: Mapping[str, Json],
    delay_ms: int,
    transaction: Repeatable,
) -> dict[str, Json]:
    wish = Wish(known_room(call), kind, state_key, content, delay_ms)
    call.services.throttle.take(MESSAGES, call.requester.user_id)
    delay_id = await call.services.write(
        delayed.schedule, call.requester, wish, transaction, allowance(call)
    )
    return {"delay_id": delay_id}


# --- endpoints of their own


@routes.put(
    f"{UNSTABLE}/rooms/{{room_id}}/delayed_event/{{event_type}}/{{txn_id}}",
    auth=Auth.USER,
    guest_ok=True,
)
async def schedule(call: Call) -> dict[str, Json]:
    """Have an event sent later."""
    transaction = named_transaction(call, "delayed")
    repeatable = Repeatable(transaction.device, transaction.key, transaction.txn_id)
    body = await call.json()
    delay_ms = parse.optional_integer(body, "delay_ms")
    content = parse.optional_object(body, "content")
    if delay_ms is None or content is None:
        raise MissingParam("`delay_ms` and `content` are needed.")
    if delay_ms < 1:
        raise InvalidParam("`delay_ms` is an integer of at least 1.")
    delayed.require_allowance(delay_ms, allowance(call))
    state_key = parse.optional_text(body, "state_key")
    kind = call.path["event_type"]
    return await _schedule(call, kind, state_key, content, delay_ms, repeatable)


@routes.get(ALL, auth=Auth.USER, guest_ok=True)
async def scheduled(call: Call) -> dict[str, Json]:
    """One's own events that are still to be sent."""
    call.services.throttle.take(LOOKING, call.requester.user_id)
    return {"delayed_events": call.services.store.read(delayed.listed, call.requester.user)}


@routes.get(ONE, auth=Auth.USER, guest_ok=True)
async def one(call: Call) -> dict[str, Json]:
    """One of them, also after it was sent, cancelled or refused."""
    call.services.throttle.take(LOOKING, call.requester.user_id)

    def read(tx: Tx) -> dict[str, Json]:
        return delayed.shown(tx, delayed.found(tx, call.path["delay_id"], call.requester.user))

    found: dict[str, Json] = call.services.store.read(read)
    return found


@routes.post(f"{ONE}/restart", auth=Auth.OPTIONAL, guest_ok=True, body=BodyKind.NONE)
async def restart(call: Call) -> dict[str, Json]:
    """Let the delay begin anew."""
    return await _manage(call, "restart")


@routes.post(f"{ONE}/send", auth=Auth.OPTIONAL, guest_ok=True, body=BodyKind.NONE)
async def send(call: Call) -> dict[str, Json]:
    """Send it now."""
    return await _manage(call, "send")


@routes.post(f"{ONE}/cancel", auth=Auth.OPTIONAL, guest_ok=True, body=BodyKind.NONE)
async def cancel(call: Call) -> dict[str, Json]:
    """Never send it."""
    return await _manage(call, "cancel")


@routes.post(ONE, auth=Auth.OPTIONAL, guest_ok=True)
async def manage(call: Call) -> dict[str, Json]:
    """The same in the older form."""
    action = parse.optional_text(await call.json(), "action")
    if action is None:
        raise MissingParam("`action` is missing.")
    if action not in ACTIONS:
        raise InvalidParam(f"`action` is one of {', '.join(ACTIONS)}.")
    return await _manage(call, action)


async def _manage(call: Call, action: str) -> dict[str, Json]:
    services, delay_id = call.services, call.path["delay_id"]
    user: UserNid | None = None if call.requester is None else call.requester.user
    services.throttle.require(GUESSING, call.address)
    if services.store.read(store.by_id, delay_id) is None:
        services.throttle.take(GUESSING, call.address)
    else:
        services.throttle.take(MANAGING, delay_id)
    if action == "restart":
        await services.write(delayed.restart, delay_id, user)
    elif action == "cancel":
        await services.write(delayed.cancel, delay_id, user)
    else:
        await services.delays.send_now(delay_id, user)
    return {}
