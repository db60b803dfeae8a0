"""What fills gaps at which a state was told, and works out what follows, at work for a while."""

from __future__ import annotations

import trio

from matrixbox.federation.backfill import Backfill
from matrixbox.federation.bridges import Bridges
from matrixbox.rooms.revising import Revisions
from tests.rooms.far_remote import Far


async def bridge(far: Far, for_s: float) -> None:
    """Let both services run for so long."""
    house = far.house
    filling = Backfill(house.store, house.env, far.remote, far.verifier, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Bridges(house.store, house.env, filling).run)
        nursery.start_soon(Revisions(house.store, house.env).run)
        await trio.sleep(for_s)
        nursery.cancel_scope.cancel()
