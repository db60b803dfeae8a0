"""Reporting content.

Matrix v1.19, Client-Server API, "Reporting content" ([C18.05]).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVarTuple, Unpack

from matrixbox.accounts.throttle import REPORTS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.rooms import reports
from matrixbox.rooms.env import Env
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx

What = TypeVarTuple("What")

routes = RouteTable()

BASE = "/_matrix/client/v3"


@routes.post(f"{BASE}/rooms/{{room_id}}/report/{{event_id}}", auth=Auth.USER)
async def report_event(call: Call) -> dict[str, Json]:
    """Report an event."""
    reason = parse.optional_text(await call.json(), "reason") or ""
    room_id = parse.room_id(call.path["room_id"])
    event_id = parse.event_id(call.path["event_id"])
    return await _report(call, reports.report_event, room_id, event_id, reason)


@routes.post(f"{BASE}/rooms/{{room_id}}/report", auth=Auth.USER)
async def report_room(call: Call) -> dict[str, Json]:
    """Report a room."""
    reason = parse.text(await call.json(), "reason")
    room_id = parse.room_id(call.path["room_id"])
    return await _report(call, reports.report_room, room_id, reason)


@routes.post(f"{BASE}/users/{{user_id}}/report", auth=Auth.USER)
async def report_user(call: Call) -> dict[str, Json]:
    """Report a user."""
    reason = parse.text(await call.json(), "reason")
    user_id = parse.user_id(call.path["user_id"])
    return await _report(call, reports.report_user, user_id, reason)


async def _report(
    call: Call,
    report: Callable[[Tx, Env, Session, Unpack[What]], None],
    *what: *What,
) -> dict[str, Json]:
    """Store a report of the caller, who makes only so many."""
    call.services.throttle.take(REPORTS, call.requester.user_id)
    await call.services.write(report, call.requester, *what)
    return {}
