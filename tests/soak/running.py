"""Rounds of conversation under faults, each in a new encrypted room, each checked at its end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio
from attrs import define, field

from tests.clients.conversation import Client, Kind, Refused, View
from tests.clients.test_encryption import ENCRYPTION
from tests.soak.faults import FAULTS, Fault
from tests.soak.judging import Judge, Outcome
from tests.soak.ledger import Letters, Said, Seen, compare
from tests.soak.town import TELLS_LETTERS, Town, built, inhabited
from tests.soak.watch import Watch

TALK_S = 15.0
PAUSE_S = (0.1, 1.2)
SETTLED_WITHIN_S: dict[Kind, float] = {"js": 45.0, "nio": 45.0, "rust": 30.0}
ALL_READ_WITHIN_S = 150.0
GATHERED_WITHIN_S = 90.0
ALL_IN_WITHIN_S = 30.0
LOOK_EVERY_S = 0.5


async def soak(
    folder: Path,
    duration_s: float,
    seed: int,
    tell: Callable[[str], None],
    only: Fault | None = None,
) -> Outcome:
    """Play rounds until the time is over, with `only` one fault or with any."""
    outcome = Outcome(seed)
    chance = random.Random(seed)
    with built(folder) as buildings:
        async with inhabited(buildings) as town, town.watched(seed) as watch:
            letters = Letters()
            until = trio.current_time() + duration_s
            while trio.current_time() < until:
                known = len(outcome.troubles)
                tell(await Round(town, chance, outcome, letters, watch, only).play())
                for trouble in outcome.troubles[known:]:
                    tell(trouble)
            known = len(outcome.troubles)
            outcome.troubles += await watch.judge(*watch.room_probes[0].rooms)
            outcome.letters, outcome.watch = letters.counted, watch
            outcome.restarts = town.restarts
            outcome.drops = buildings.street.breaks + sum(
                gate.breaks for gate in buildings.pair.gates
            )
            for device, ends in letters.lost().items():
                text = f"{len(ends)} acknowledged messages to the device {device} never came"
                outcome.troubles.append(text)
            for trouble in outcome.troubles[known:]:
                tell(trouble)
    return outcome


@define
class Round:
    """One room, from its making to the moment when everything said in it has been read."""

    town: Town
    chance: random.Random
    outcome: Outcome
    letters: Letters
    watch: Watch
    only: Fault | None = None
    said: list[Said] = field(factory=list)
    room: str = ""
    notes: set[str] = field(factory=set)
    began: float = field(factory=time.time)

    async def play(self) -> str:
        """Talk under faults, then wait and compare; a line about it."""
        town, chance = self.town, self.chance
        guest = await town.guest()
        maker = chance.choice(town.people)
        await self._gather(maker)
        readers = [*town.people, guest]
        faults = [self.only or chance.choice(FAULTS) for _ in range(chance.randrange(1, 4))]
        async with trio.open_nursery() as nursery:
            enough = trio.Event()
            for person in town.people:
                nursery.start_soon(self._talk, person, enough)
            for fault in faults:
                await trio.sleep(chance.uniform(0.5, TALK_S / len(faults)))
                with town.suffering(fault.__name__):
                    await fault(town, chance)
                self.outcome.faults[fault.__name__] += 1
                await town.go_on(town.people)
            await trio.sleep(chance.uniform(0.5, 3))
            enough.set()
        started = trio.current_time()
        await self._settle(readers)
        await self._all_letters(readers)
        self.letters.leaves((guest.user_id, guest.device_id))
        await guest.do("logout")
        self.outcome.rounds += 1
        names = " ".join(fault.__name__ for fault in faults)
        took = trio.current_time() - started
        notes = "".join(f"\n  {note}" for note in sorted(self.notes))
        return (
            f"round {self.outcome.rounds}: {maker.name}'s room; {names}; "
            f"{len(self.said)} said, settled in {took:.1f} s{notes}"
        )

    async def _gather(self, maker: Client) -> None:
        """A new encrypted room with everybody in it."""
        others = [person for person in self.town.people if person is not maker]
        self.room = await maker.create_room(
            preset="private_chat",
            invite=[other.user_id for other in others],
            initial_state=[ENCRYPTION],
        )
        for other in others:
            await self._sees(other, lambda view: view["membership"] == "invite")
            await other.do("join", room=self.room)
        for person in self.town.people:
            await self._sees(person, lambda view: view.get("joined") == len(self.town.people))

    async def _sees(self, person: Client, what: Callable[[View], bool]) -> None:
        """Wait until the room looks so."""
        view: View | None = None
        with trio.move_on_after(GATHERED_WITHIN_S):
            while True:
                view = await person.do("view", room=self.room)
                if view is not None and what(view):
                    return
                await trio.sleep(LOOK_EVERY_S)
        raise AssertionError(f"{person.name} does not see {self.room} so: {view}")

    async def _talk(self, person: Client, enough: trio.Event) -> None:
        """Say something now and then, until it is enough."""
        number = 0
        # Of their own, so that the faults of a seed stay the same however long something takes.
        chance = random.Random(f"{self.outcome.seed} {self.outcome.rounds} {person.name}")
        while not enough.is_set():
            await trio.sleep(chance.uniform(*PAUSE_S))
            number += 1
            one = Said(person, f"{person.name} {self.outcome.rounds} {number}")
            self.said.append(one)
            with suppress(Refused, trio.TooSlowError):
                one.event_id = await person.say(self.room, one.body)

    async def _settle(self, readers: list[Client]) -> None:
        """Everything is well again: wait until everybody has read everything, and judge."""
        await self.town.go_on(self.town.people)
        for person in self.town.people:
            if person.kind == "js":
                await person.do("resend", room=self.room)
        for person in self.town.people:
            await self._learn(person)
        left: dict[str, Seen] = {}
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(self._read_all, reader, left)
        await self._read_letters(readers)
        judge = Judge(
            self.town, self.outcome, self.letters, self.watch, self.room, self.said, self.began
        )
        await judge.judge(readers, left)
        self.notes |= judge.notes

    async def _learn(self, sender: Client) -> None:
        """What a client sent again when the network was back has an event by now.

        What it gave up has none: matrix-nio after long failures, an app that was ended meanwhile.
        """
        unknown = {one.body: one for one in self.said if one.sender is sender and not one.event_id}
        with trio.move_on_after(ALL_IN_WITHIN_S):
            while unknown:
                await self._fill(sender)
                view = await sender.do("view", room=self.room)
                for event in view["timeline"]:
                    one = unknown.pop(event["body"], None)
                    if one is not None and event["status"] in (None, "sent"):
                        one.event_id = event["id"]
                await trio.sleep(LOOK_EVERY_S)
        self.outcome.given_up += len(unknown)

    async def _read_all(self, reader: Client, left: dict[str, Seen]) -> None:
        """Look again and again, until nothing is left to come, or too much time is over.

        Keys that a client did not ask for again will not come, and the Rust SDK's own copy of a
        timeline stays as it is; all else is waited for longer.
        """
        looked_enough = trio.current_time() + SETTLED_WITHIN_S[reader.kind]
        with trio.move_on_after(ALL_READ_WITHIN_S):
            while True:
                try:
                    if reader.name in left:  # there is something that it did not see by itself
                        await self._fill(reader)
                    view = await reader.do("view", room=self.room)
                except trio.TooSlowError as slow:
                    self.notes.add(str(slow))
                    continue
                left[reader.name] = seen = compare(self.said, view)
                if seen.is_complete:
                    return
                is_all_there = reader.kind == "rust" or not (seen.missing or seen.sent_twice)
                if is_all_there and trio.current_time() > looked_enough:
                    return
                await trio.sleep(LOOK_EVERY_S)

    async def _fill(self, reader: Client) -> None:
        """Fetch what came while the reader did not look; what that brings is seen in the view."""
        if reader.kind != "nio":
            with suppress(Refused):
                while await reader.do("back", room=self.room, limit=50):
                    pass

    async def _all_letters(self, readers: list[Client]) -> None:
        """Some may be under way still, above all those of who only now got a key."""
        with trio.move_on_after(ALL_READ_WITHIN_S):
            await self._read_letters(readers)
            while self.letters.lost().keys() - self.letters.given_up:
                await trio.sleep(LOOK_EVERY_S)
                await self._read_letters(readers)
        self.letters.given_up |= self.letters.lost().keys()

    async def _read_letters(self, readers: list[Client]) -> None:
        for reader in readers:
            if reader.kind in TELLS_LETTERS:
                self.letters.record(reader, await reader.do("letters"))
