"""Who watches the servers during a soak: probes, and those who write to them.

Two devices of Cy's, beside the real one, are probes: one on sliding sync, in the form that clients
use and, on another connection, in that of the merged proposal; one on `/sync`. Fay, who is with us,
and Erin, on Synapse, write messages to these devices all the time, and Fay to Erin's.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from tests.clients.conversation import secret
from tests.federation.pair import Side
from tests.server import Server
from tests.soak.probes import (
    Ask,
    LetterProbe,
    LetterWriter,
    Probe,
    SlidingProbe,
    SyncProbe,
    history,
    insist,
    over,
)
from tests.soak.record import RoomRecord

LEVEL_WITHIN_S = 90.0
LOOK_EVERY_S = 0.3
PEAK_EVERY_S = 0.5

Device = tuple[str, str]


@define(eq=False)
class Watch:
    """The probes and their writers."""

    room_probes: tuple[SlidingProbe | SyncProbe, ...]
    letter_probes: tuple[Probe, ...]
    writers: tuple[LetterWriter, ...]
    ask: Ask  # for histories
    peak_kib: int = 0
    _findings: list[str] = field(factory=list)

    @property
    def probes(self) -> list[Probe]:
        """All of them."""
        return list(dict.fromkeys((*self.room_probes, *self.letter_probes)))

    async def judge(self, *rooms: str) -> list[str]:
        """Wait until the probes have been told what they have to be; what is wrong, told once."""
        now = {writer.user: list(writer.acknowledged) for writer in self.writers}
        found: list[str] = []
        self._calm(True)
        with trio.move_on_after(LEVEL_WITHIN_S):
            while True:
                found = await self._look(rooms, now)
                if not {*found} - {*self._findings}:
                    break
                await trio.sleep(LOOK_EVERY_S)
        self._calm(False)
        found += [what for probe in self.probes for what in probe.all_findings]
        new = [what for what in dict.fromkeys(found) if what not in self._findings]
        self._findings += new
        return new

    def was_told(self, room: str, event: str | None) -> bool:
        """Whether the probe on sliding sync was told of it, and of all in the room rightly."""
        record = self.room_probes[0].rooms.get(room, RoomRecord())
        return event in record.known and not any(room in what for what in self._findings)

    def _calm(self, calm: bool) -> None:
        for each in self.room_probes:
            if isinstance(each, SlidingProbe):
                each.calm = calm

    async def _look(self, rooms: tuple[str, ...], now: dict[str, list[int]]) -> list[str]:
        found: list[str] = []
        for room in rooms:
            real = await history(self.ask, room)
            for one in self.room_probes:
                record = one.rooms.get(room, RoomRecord())
                found += [f"{one.name}: {room}: {what}" for what in record.against(real)]
        for probe in self.letter_probes:
            sent = {
                writer.user: now[writer.user]
                for writer in self.writers
                if probe.device in writer.to
            }
            found += [f"{probe.name}: letters: {what}" for what in probe.letters.against(sent)]
        return found

    async def weigh(self, server: Server) -> None:
        """Note how much memory the server takes, on and on."""
        while True:
            with suppress(OSError):  # it does not run at the moment
                self.peak_kib = max(self.peak_kib, peak_kib(server.pid))
            await trio.sleep(PEAK_EVERY_S)

    def __str__(self) -> str:
        """A line a probe."""
        lines = []
        for probe in self.probes:
            events = sum(len(record.ids) for record in probe.rooms.values())
            letters = sum(len(numbers) for numbers in probe.letters.numbers.values())
            wrong = sum(what.startswith(f"{probe.name}:") for what in self._findings)
            lines.append(
                f"probe {probe.name}: {probe.answers} answers, {probe.lost} lost, "
                f"{probe.gaps} gaps filled, {events} events in {len(probe.rooms)} rooms, "
                f"{letters} messages between devices; {wrong} findings"
            )
        written = sum(len(writer.acknowledged) for writer in self.writers)
        return "\n".join([*lines, f"messages between devices written for probes: {written}"])


def peak_kib(pid: int) -> int:
    """The most memory that a process has taken; 0 for one that has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


async def signed_in(side: Side, user: str, password: str) -> tuple[Device, str]:
    """A new device, and its token."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    }
    made: Any = await insist(over(side, ""), "POST", "/_matrix/client/v3/login", body)
    return (made["user_id"], made["device_id"]), made["access_token"]


@asynccontextmanager
async def watching(
    server: Server, ours: Side, theirs: Side, watched: str, password: str, chance: random.Random
) -> AsyncIterator[Watch]:
    """Set up probes of a local user, and let them go on meanwhile."""
    sliding_device, sliding_token = await signed_in(ours, watched, password)
    sync_device, sync_token = await signed_in(ours, watched, password)
    fay = await trio.to_thread.run_sync(server_person, ours, "fay")
    erin = await trio.to_thread.run_sync(theirs.person, "erin")
    erin_ask = over(theirs, erin.token)
    who = await insist(erin_ask, "GET", "/_matrix/client/v3/account/whoami")
    erin_device = (erin.user_id, who["device_id"])
    watched_devices = [sliding_device, sync_device]
    on_sliding = SlidingProbe("sliding", over(ours, sliding_token), sliding_device, chance=chance)
    on_merged = SlidingProbe(
        "merged sliding", over(ours, sliding_token), sliding_device, chance=chance, merged=True
    )
    on_sync = SyncProbe("sync", over(ours, sync_token), sync_device)
    watch = Watch(
        (on_sliding, on_merged, on_sync),
        (
            LetterProbe("sliding letters", over(ours, sliding_token), sliding_device),
            on_sync,
            SyncProbe("Synapse's sync", erin_ask, erin_device),
        ),
        (
            LetterWriter(fay[0], over(ours, fay[1]), [*watched_devices, erin_device], insists=True),
            LetterWriter(erin.user_id, erin_ask, watched_devices, insists=False),
        ),
        over(ours, sync_token),
    )
    async with trio.open_nursery() as nursery:
        for probe in watch.probes:
            nursery.start_soon(probe.run)
        for writer in watch.writers:
            nursery.start_soon(writer.run)
        nursery.start_soon(watch.weigh, server)
        yield watch
        nursery.cancel_scope.cancel()


def server_person(side: Side, name: str) -> tuple[str, str]:
    """A new account here; its user and token."""
    body = {"username": name, "password": secret(name), "auth": {"type": "m.login.dummy"}}
    made = side.request("POST", "/_matrix/client/v3/register", body)
    return made["user_id"], made["access_token"]
