"""The table of all routes for clients."""

from __future__ import annotations

from matrixbox.api.client import (
    account,
    account_data,
    devices,
    directory,
    filters,
    membership,
    messages,
    profiles,
    push_rules,
    receipts,
    relations,
    room_state,
    rooms,
    sending,
    server,
    session,
    shared_secret,
    sync,
    typing,
)
from matrixbox.api.pages import fallback
from matrixbox.api.routes import RouteTable

MODULES = (
    account,
    account_data,
    devices,
    directory,
    fallback,
    filters,
    membership,
    messages,
    profiles,
    push_rules,
    receipts,
    relations,
    room_state,
    rooms,
    sending,
    server,
    session,
    shared_secret,
    sync,
    typing,
)


def client_routes() -> RouteTable:
    """All routes for clients."""
    table = RouteTable()
    for module in MODULES:
        table.include(module.routes)
    return table
