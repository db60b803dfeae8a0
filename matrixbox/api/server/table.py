"""The table of all routes for other servers."""

from __future__ import annotations

from matrixbox.api.routes import RouteTable
from matrixbox.api.server import (
    backfill,
    devices,
    directory,
    events,
    invitations,
    keys,
    membership,
    openid,
    profiles,
    spaces,
    state,
    transactions,
    version,
    well_known,
)

MODULES = (
    backfill,
    devices,
    directory,
    events,
    invitations,
    keys,
    membership,
    openid,
    profiles,
    spaces,
    state,
    transactions,
    version,
    well_known,
)


def server_routes() -> RouteTable:
    """All routes for other servers."""
    table = RouteTable()
    for module in MODULES:
        table.include(module.routes)
    return table
