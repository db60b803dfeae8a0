"""The table of all routes for clients."""

from __future__ import annotations

from matrixbox.api.client import (
    account,
    account_data,
    addresses,
    calls,
    dehydrated,
    delayed,
    devices,
    directory,
    filters,
    key_backup,
    keys,
    membership,
    messages,
    moderation,
    old_sync,
    openid,
    presence,
    profiles,
    push_rules,
    pushers,
    receipts,
    registering,
    relations,
    reports,
    room_state,
    rooms,
    sending,
    server,
    session,
    shared_secret,
    sliding_sync,
    spaces,
    sync,
    thread_subscriptions,
    to_device,
    typing,
    user_directory,
)
from matrixbox.api.pages import confirming, fallback, signing_in
from matrixbox.api.routes import RouteTable

MODULES = (
    account,
    account_data,
    addresses,
    calls,
    confirming,
    dehydrated,
    delayed,
    devices,
    directory,
    fallback,
    filters,
    key_backup,
    keys,
    membership,
    messages,
    moderation,
    old_sync,
    openid,
    presence,
    profiles,
    push_rules,
    pushers,
    receipts,
    registering,
    relations,
    reports,
    room_state,
    rooms,
    sending,
    server,
    session,
    shared_secret,
    signing_in,
    sliding_sync,
    spaces,
    sync,
    thread_subscriptions,
    to_device,
    typing,
    user_directory,
)


def client_routes() -> RouteTable:
    """All routes for clients."""
    table = RouteTable()
    for module in MODULES:
        table.include(module.routes)
    return table


def with_old_names(table: RouteTable) -> RouteTable:
    """The whole table, which also answers under the version that some clients still use."""
    table.alias("/_matrix/client", "r0", "v3")
    return table
