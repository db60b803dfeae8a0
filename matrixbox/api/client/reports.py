"""Reporting content.

Matrix v1.19, Client-Server API, "Reporting content" ([C18.05]).
"""

from __future__ import annotations

from matrixbox.accounts.throttle import REPORTS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.rooms import reports

routes = RouteTable()

BASE = "/_matrix/client/v3"


@routes.post(f"{BASE}/rooms/{{room_id}}/report/{{event_id}}", auth=Auth.USER)
async def report_event(call: Call) -> dict[str, Json]:
    """Report an event."""
    reason = parse.optional_text(await call.json(), "reason") or ""
    room_id = parse.room_id(call.path["room_id"])
    event_id = parse.event_id(call.path["event_id"])
    call.services.throttle.take(REPORTS, call.requester.user_id)
    write = call.services.write
    await write(reports.report_event, call.requester, room_id, event_id, reason)
    return {}


@routes.post(f"{BASE}/rooms/{{room_id}}/report", auth=Auth.USER)
async def report_room(call: Call) -> dict[str, Json]:
    """Report a room."""
    reason = parse.text(await call.json(), "reason")
    room_id = parse.room_id(call.path["room_id"])
    call.services.throttle.take(REPORTS, call.requester.user_id)
    await call.services.write(reports.report_room, call.requester, room_id, reason)
    return {}


@routes.post(f"{BASE}/users/{{user_id}}/report", auth=Auth.USER)
async def report_user(call: Call) -> dict[str, Json]:
    """Report a user."""
    reason = parse.text(await call.json(), "reason")
    user_id = parse.user_id(call.path["user_id"])
    call.services.throttle.take(REPORTS, call.requester.user_id)
    await call.services.write(reports.report_user, call.requester, user_id, reason)
    return {}
