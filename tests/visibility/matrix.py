"""The matrix: every reader, story and endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.visibility import client, client_rooms, servers, syncing
from tests.visibility.cells import Cell, Look, NotForGuests, Report
from tests.visibility.playing import world
from tests.visibility.story import READERS, SERVERS, STORIES, Story
from tests.visibility.world import World

CLIENT: dict[str, Cell] = {**client.CELLS, **client_rooms.CELLS, **syncing.CELLS}


async def _try(look: Any, function: Callable[[Any], Awaitable[None]]) -> None:
    """An answer that lacks what every answer has is one that was not given."""
    try:
        with suppress(NotForGuests):
            await function(look)
    except (KeyError, IndexError, StopIteration) as error:
        look.hole(f"an answer without {error!r}")


async def run(here: World, wanted: Collection[str] | None = None, *, first: bool = False) -> Report:
    """All cells, or those of some endpoints; with `first` only up to the first problem."""
    report = Report()
    for site in here.sites:
        for name, function in CLIENT.items():
            if wanted is not None and name not in wanted:
                continue
            for reader in READERS:
                look = Look(here, site, reader, name, report, site.tale)
                await _try(look, function)
                report.cells[name] += look.is_there
                if first and report.problems:
                    return report
        for name, asking in servers.CELLS.items():
            if wanted is not None and name not in wanted:
                continue
            for server in SERVERS:
                await _try(servers.Asking(here, site, server, name, report, site.tale), asking)
                report.cells[name] += 1
                if first and report.problems:
                    return report
    return report


AT_ONCE = 4  # stories that are played on one server; each reader's syncs show all of its rooms


async def played(
    folder: Path, stories: Sequence[Story] = STORIES, told: Callable[[Report], None] | None = None
) -> Report:
    """Play the stories, some at once, and look at everything; `told` hears of what each gave."""
    whole = Report()
    for start in range(0, len(stories), AT_ONCE):
        async with world(folder / str(start), stories[start : start + AT_ONCE]) as here:
            found = await run(here)
            if here.rooms:
                await here.make_whole()
                again = await run(here)
                found = Report(found.cells + again.cells, found.problems + again.problems)
        whole.cells += found.cells
        whole.problems += found.problems
        if told is not None:
            told(found)
    return whole
