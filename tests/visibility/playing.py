"""A server on which stories have been played, and everybody in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trio
from attrs import evolve

from matrixbox.api.client import room_state
from matrixbox.api.server import state as server_state
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import hash_and_sign_event
from matrixbox.federation import completions, remotes
from matrixbox.federation import joins as federation_joins
from matrixbox.federation.transport import Request
from tests.federation.towns import Country, FakeServer, country
from tests.visibility.pushed import pusher
from tests.visibility.site import q
from tests.visibility.story import GUESTS, HOME, READERS, SERVERS, STRETCHES, Story
from tests.visibility.world import World


def _signed_invite(far: FakeServer, request: Request, body: Any) -> Any:
    rules = ROOM_VERSIONS[body["room_version"]]
    return {"event": hash_and_sign_event(rules, body["event"], far.name, far.key)}


# How long is waited for the members of rooms that were joined without them; and for a server that
# tells of them when all have looked, and is not to be left alone for it.
PATIENCE = (
    (remotes, "STATE_IDS_LIMITS", evolve(remotes.STATE_IDS_LIMITS, total_s=3600, idle_s=3600)),
    (federation_joins, "MEMBERS_S", 0.01),
    (federation_joins, "WAIT_FOR_MEMBERS_S", 0.01),
    (room_state, "MEMBERS_S", 0.01),
    (server_state, "MEMBERS_S", 0.01),
    (completions, "PAUSES_S", (0.1,)),
)


@asynccontextmanager
async def world(folder: Path, stories: Sequence[Story]) -> AsyncIterator[World]:
    """A world in which the stories have been played to the end."""
    with ExitStack() as impatient:
        for module, name, value in PATIENCE:
            impatient.enter_context(patch.object(module, name, value))
        async with country(folder) as land:
            yield await _played(land, stories)


async def _played(land: Country, stories: Sequence[Story]) -> World:
    town = await land.town(HOME)
    made = World(land, town, await town.register("ann"), await town.register("pest"))
    for name in READERS:
        if name in GUESTS:
            made.readers[name] = await town.register_guest()
            continue
        made.readers[name] = who = await town.register(name)
        await made.do(who, "POST", "/v3/pushers/set", pusher(name))
    assert town.base is not None
    made.gateway.start(land.nursery, town.base)
    for name in SERVERS:
        far = made.servers[name] = land.fake(name)
        far.answers["invite"] = partial(_signed_invite, far)
        far.answers["send"] = {"pdus": {}}
    ignorer = made.readers["ignorer"]
    path = f"/v3/user/{q(ignorer.user_id)}/account_data/m.ignored_user_list"
    await made.do(ignorer, "PUT", path, {"ignored_users": {f"@pest:{HOME}": {}}})
    for story in stories:
        await made.begin(story)
    for number in range(STRETCHES):
        for site in made.sites:
            await made.stretch(site, number)
        await made.look(number)
    await made.finish()
    await trio.sleep(0.3)  # what goes to others goes
    return made
