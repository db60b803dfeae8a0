"""The table of all routes for clients."""

from __future__ import annotations

from matrixbox.api.client import (
    account,
    account_data,
    dehydrated,
    devices,
    directory,
    filters,
    key_backup,
    keys,
    membership,
    messages,
    openid,
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
    spaces,
    sync,
    to_device,
    typing,
)
from matrixbox.api.pages import fallback
from matrixbox.api.routes import RouteTable

MODULES = (
    account,
    account_data,
    dehydrated,
    devices,
    directory,
    fallback,
    filters,
    key_backup,
    keys,
    membership,
    messages,
    openid,
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
    spaces,
    sync,
    to_device,
    typing,
)


def client_routes() -> RouteTable:
    """All routes for clients."""
    table = RouteTable()
    for module in MODULES:
        table.include(module.routes)
    return table
