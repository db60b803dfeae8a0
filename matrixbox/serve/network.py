"""Everything that speaks to other servers: built here, and kept running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from matrixbox.config import Settings
from matrixbox.core.identifiers import ServerName
from matrixbox.e2ee.asking import KeyService
from matrixbox.e2ee.device_lists import Announcer
from matrixbox.e2ee.incoming import DeviceNews
from matrixbox.e2ee.one_time_keys import ClaimRates
from matrixbox.e2ee.remote_lists import RemoteLists
from matrixbox.federation.arrivals import Arrivals
from matrixbox.federation.backfill import Backfill
from matrixbox.federation.bridges import Bridges
from matrixbox.federation.client import FederationClient
from matrixbox.federation.completions import Completions
from matrixbox.federation.destinations import Destinations
from matrixbox.federation.edus import EduReceiver
from matrixbox.federation.farewells import Farewells
from matrixbox.federation.inbound import Inbound
from matrixbox.federation.joins import Joins
from matrixbox.federation.key_remotes import KeyRemotes
from matrixbox.federation.keyring import Keyring
from matrixbox.federation.memberships import Memberships
from matrixbox.federation.missed import Missed
from matrixbox.federation.network import NetworkTransport, new_transport
from matrixbox.federation.notary import Notary
from matrixbox.federation.owed_joins import OwedJoins
from matrixbox.federation.own_keys import OwnKeys
from matrixbox.federation.parts import Federation
from matrixbox.federation.policies import PolicyRemotes
from matrixbox.federation.queries import Queries
from matrixbox.federation.reachability import Reachability
from matrixbox.federation.remotes import RoomRemotes
from matrixbox.federation.sender import Sender
from matrixbox.federation.spaces import Spaces
from matrixbox.federation.transport import Transport
from matrixbox.federation.undecided import Undecided
from matrixbox.rooms.receiving import Receiver
from matrixbox.rooms.revising import Revisions
from matrixbox.serve.base import Base
from matrixbox.store import presence as stored_presence
from matrixbox.store import server_keys
from matrixbox.tasks import Offload, in_thread, keep_running

Service = Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_network(
    settings: Settings,
    base: Base,
    transport: Transport | None = None,
    *,
    offload: Offload = in_thread,
) -> AsyncIterator[Federation]:
    """Everything that speaks to other servers, its tasks running inside the block.

    A simulation brings its own transport, and does what is heavy without threads (`at_once`).
    """
    if transport is None:
        transport = new_transport(settings.outbound, base.env.server_name, base.parts)
    federation = _build(settings, base, transport, offload)
    own_name = base.env.server_name
    reachability = Reachability(own_name, federation.sender.destinations, base.parts)
    async with trio.open_nursery() as nursery:
        for name, service in [
            *_services(federation),
            ("federation.reachability", reachability.run),
        ]:
            nursery.start_soon(partial(keep_running, service, name=name), name=name)
        try:
            yield federation
        finally:
            nursery.cancel_scope.cancel()


def _build(settings: Settings, base: Base, transport: Transport, offload: Offload) -> Federation:
    env, store = base.env, base.store
    longest_s = float(settings.outbound.backoff_max_seconds)
    destinations = Destinations(store, env.clock, longest_s)
    destinations.load()
    client = FederationClient(env.server_name, env.key, transport, destinations, offload)
    own = OwnKeys(env.server_name, env.key, store.read(server_keys.old_keys), env.clock)
    notaries = [ServerName(name) for name in settings.outbound.key_notaries]
    keyring = Keyring(store, env.clock, client, own, notaries, offload)
    remotes, queries = RoomRemotes(client), Queries(client)
    asked = KeyRemotes(client)
    lists = RemoteLists(store, asked, env.clock)
    env.policies.remote = PolicyRemotes(client)
    receiver = Receiver(store, env, remotes, keyring, env.policies.remote)
    arrivals = Arrivals(store, env, base.folder.path, offload)
    unchecked = Undecided(store, env, keyring)
    completions = Completions(store, env, client, remotes, keyring, arrivals, unchecked.begin)
    joins = Joins(store, env, client, keyring, receiver, arrivals, completions, unchecked.begin)
    owed_joins = OwedJoins(store, env, keyring, joins)
    joins.on_owed.append(owed_joins.owe)
    farewells = Farewells(store, env, joins)
    receiver.on_unaware.append(farewells.say)
    keyring.on_keys += [unchecked.keys_came, owed_joins.keys_came]
    destinations.on_sign_of_life += [unchecked.is_alive, owed_joins.is_alive]
    sender = Sender(store, env, client, destinations)
    env.typing.on_change = sender.typing
    if env.presence is not None:
        env.presence.on_change = sender.present
        sender.presence_of = env.presence.pushed
    edus = EduReceiver(store, env, DeviceNews(store, env.server_name, env.clock, lists))
    return Federation(
        transport=transport,
        destinations=destinations,
        sender=sender,
        missed=Missed(store, env.server_name, client, destinations, remotes, receiver),
        edus=edus,
        client=client,
        own_keys=own,
        keyring=keyring,
        remotes=remotes,
        inbound=Inbound(store, receiver, edus),
        queries=queries,
        backfill=Backfill(store, env, remotes, keyring, queries),
        spaces=Spaces(store, env.server_name, queries),
        joins=joins,
        owed_joins=owed_joins,
        farewells=farewells,
        undecided=unchecked,
        memberships=Memberships(store, env, client, keyring, joins, owed_joins),
        notary=Notary(store, env.clock, keyring, own),
        keys=KeyService(store, env.server_name, asked, lists, ClaimRates(env.clock)),
    )


def _services(federation: Federation) -> Iterator[tuple[str, Service]]:
    """What runs for as long as the server does, by name."""
    yield "federation.keys", federation.keyring.run
    yield "federation.destinations", federation.sender.destinations.run
    yield "federation.sender", federation.sender.run
    yield "federation.missed", federation.missed.run
    yield "federation.edus", federation.edus.run
    store, presence = federation.edus.store, federation.edus.env.presence
    forget = partial(store.write, stored_presence.clear)
    yield "rooms.presence", forget if presence is None else presence.run
    yield "federation.receiver", federation.inbound.receiver.run
    backfill = federation.backfill
    yield "federation.bridges", Bridges(store, backfill.env, backfill).run
    yield "rooms.revisions", Revisions(store, backfill.env).run
    yield "federation.joins", federation.joins.run
    yield "federation.completions", federation.joins.completions.run
    yield "federation.owed_joins", federation.owed_joins.run
    yield "federation.farewells", federation.farewells.run
    yield "federation.undecided", federation.undecided.run
    yield "e2ee.lists", federation.keys.lists.run
    announcer = Announcer(federation.keys.store, federation.keys.own)
    yield "e2ee.announcements", announcer.run
    if isinstance(federation.transport, NetworkTransport):
        yield "federation.connections", federation.transport.run
