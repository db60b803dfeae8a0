"""The parts of federation that handlers and services work with; built in ``serve.network``."""

from __future__ import annotations

from attrs import frozen

from matrixbox.e2ee.asking import KeyService
from matrixbox.federation.backfill import Backfill
from matrixbox.federation.client import Destinations, FederationClient
from matrixbox.federation.edus import EduReceiver
from matrixbox.federation.farewells import Farewells
from matrixbox.federation.inbound import Inbound
from matrixbox.federation.joins import Joins
from matrixbox.federation.keyring import Keyring
from matrixbox.federation.memberships import Memberships
from matrixbox.federation.missed import Missed
from matrixbox.federation.notary import Notary
from matrixbox.federation.owed_joins import OwedJoins
from matrixbox.federation.own_keys import OwnKeys
from matrixbox.federation.queries import Queries
from matrixbox.federation.remotes import RoomRemotes
from matrixbox.federation.sender import Sender
from matrixbox.federation.spaces import Spaces
from matrixbox.federation.transport import Transport
from matrixbox.federation.undecided import Undecided


@frozen
class Federation:
    """Everything that speaks to other servers."""

    transport: Transport
    destinations: Destinations
    sender: Sender
    edus: EduReceiver
    missed: Missed
    client: FederationClient
    own_keys: OwnKeys
    keyring: Keyring
    remotes: RoomRemotes
    inbound: Inbound
    joins: Joins
    owed_joins: OwedJoins
    farewells: Farewells
    undecided: Undecided
    memberships: Memberships
    queries: Queries
    backfill: Backfill
    spaces: Spaces
    notary: Notary
    keys: KeyService
