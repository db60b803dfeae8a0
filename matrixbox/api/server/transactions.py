"""Transactions of other servers.

Matrix v1.19, Server-Server API, "Transactions" ([B5.01] to [B5.04]).
"""

from __future__ import annotations

from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.bounds import BODY_FEDERATION_SEND
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable

routes = RouteTable()


@routes.put(
    "/_matrix/federation/v1/send/{txn_id}",
    auth=Auth.FEDERATION,
    body_limit=BODY_FEDERATION_SEND,
)
async def send(call: Call) -> Response:
    """Take what another server pushes; always 200 once it was read ([B5.03])."""
    body = await call.json()
    answer = await call.services.federation.inbound.take(call.origin, call.path["txn_id"], body)
    return Response(200, answer, JSON_HEADERS)
