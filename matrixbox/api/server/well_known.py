"""Where other servers are told to go.

Matrix v1.19, Server-Server API, "Resolving server names", step 3 [B2.12].
"""

from __future__ import annotations

from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import NotFound

routes = RouteTable()


@routes.get("/.well-known/matrix/server", auth=Auth.NONE)
async def well_known_server(call: Call) -> dict[str, Json]:
    """Where this server is, if that is not where its name says."""
    name = call.services.settings.server.federation_name
    if not name:
        raise NotFound("This server does not delegate")
    return {"m.server": name}
