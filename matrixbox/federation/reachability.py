"""Whether other servers reach this one: they take what it sends, and do they ever call?

The specification is silent (T156).  A closed port, a router, a wrong delegation or a certificate
that others do not believe lets everything out and nothing in, and nobody in the house sees why
their messages get no answer.  Servers that take our transactions while nobody calls us for an hour
are the sign of it; the next call of any server ends it.
"""

from __future__ import annotations

import trio
from attrs import define, field

from matrixbox.core.identifiers import ServerName
from matrixbox.federation.destinations import Destinations
from matrixbox.observe.health import Parts

PART = "being reached by other servers"
SILENT_S = 3_600.0
LEAST_DELIVERIES = 3
"""Transactions that others took, at least: a single one needs no answer."""
LOOK_EVERY_S = 60.0


@define(eq=False)
class Reachability:
    """Notices when only one direction works, and tells."""

    own_name: ServerName
    destinations: Destinations
    parts: Parts
    _since: float | None = None  # the first delivery since somebody called
    _count: int = 0
    _takers: set[ServerName] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.destinations.on_delivery.append(self._delivered)
        self.destinations.on_call.append(self._called)

    async def run(self) -> None:
        """Look now and then, for as long as the server runs."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Tell when it has been too silent."""
        if self._since is None or self._count < LEAST_DELIVERIES:
            return
        if trio.current_time() - self._since >= SILENT_S:
            self.parts.broken(PART, self._advice())

    def _advice(self) -> str:
        return (
            f"no other server has called for an hour, although {len(self._takers)} of them take "
            "what is sent: look whether the port for other servers (8448, or the one that "
            f"https://{self.own_name}/.well-known/matrix/server names) is open and led to this "
            "machine, and whether the certificate there is good"
        )

    def _delivered(self, server: ServerName) -> None:
        if self._since is None:
            self._since = trio.current_time()
        self._count += 1
        if len(self._takers) < 1_000:
            self._takers.add(server)

    def _called(self, server: ServerName) -> None:
        self._since, self._count = None, 0
        self._takers.clear()
        self.parts.works(PART)
