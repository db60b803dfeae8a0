"""What we say about keys: our own, and those of other servers, countersigned.

Matrix v1.19, Server-Server API, "Querying Keys Through Another Server" ([B3.05], [B3.06], T049,
T050).  Only what a server has said and signed about its own keys is countersigned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import trio
from attrs import define

from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json, decode_stored
from matrixbox.core.signing import sign_json
from matrixbox.federation.keyring import Keyring
from matrixbox.federation.own_keys import OwnKeys
from matrixbox.store import server_keys
from matrixbox.store.database import Store
from matrixbox.store.server_keys import KeyAnswer

SERVERS_ASKED = 100
"""In one query; for further ones we say what is stored."""
ASKING_S = 10.0
"""For all servers of a query."""


@define(eq=False)
class Notary:
    """Tells others about keys."""

    store: Store
    clock: Clock
    keyring: Keyring
    own: OwnKeys

    async def answers(self, wanted: Mapping[ServerName, int | None]) -> Sequence[Json]:
        """What these servers said last, signed by them and by us; servers of which nothing is
        known are left out.  With each comes up to when its keys should be valid, in ms; None: now.
        """
        stale = [server for server, until in wanted.items() if not self._is_fresh(server, until)]
        await self._refresh(stale[:SERVERS_ASKED])
        found = (self._answer(server) for server in wanted)
        return [answer for answer in found if answer is not None]

    def _is_fresh(self, server: ServerName, until_ms: int | None) -> bool:
        """Whether what is stored will do: half of its life is not over, and it lasts as asked."""
        if server == self.own.server_name:
            return True
        stored = self.store.read(server_keys.answer_of, server)
        if stored is None:
            return False
        now = self.clock.now_ms()
        half_life = stored.fetched_ms + (stored.valid_until_ms - stored.fetched_ms) // 2
        return stored.valid_until_ms >= (now if until_ms is None else until_ms) and now <= half_life

    async def _refresh(self, servers: Iterable[ServerName]) -> None:
        with trio.move_on_after(ASKING_S):
            async with trio.open_nursery() as nursery:
                for server in servers:
                    nursery.start_soon(self.keyring.refresh, server)

    def _answer(self, server: ServerName) -> Json:
        if server == self.own.server_name:
            return self.own.answer()
        stored: KeyAnswer | None = self.store.read(server_keys.answer_of, server)
        if stored is None:
            return None
        said = decode_stored(stored.json, exact_numbers=True)
        assert isinstance(said, dict)
        return sign_json(said, self.own.server_name, self.own.key)
