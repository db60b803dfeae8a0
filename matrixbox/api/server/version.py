"""What this server is.

Matrix v1.19, Server-Server API, "Server implementation" ([B13.11]).
"""

from __future__ import annotations

from matrixbox import __version__
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json

routes = RouteTable()


@routes.get("/_matrix/federation/v1/version", auth=Auth.NONE)
async def version(call: Call) -> dict[str, Json]:
    """Name and version."""
    return {"server": {"name": "matrixbox", "version": __version__}}
