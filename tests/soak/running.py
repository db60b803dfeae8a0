"""Rounds of conversation under faults, each in a new encrypted room, each checked at its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio
from attrs import define, field

from tests.clients.conversation import Client, Kind, Refused
from tests.clients.test_encryption import ENCRYPTION
from tests.soak.faults import FAULTS, Fault
from tests.soak.ledger import Letters, Said, Seen, compare
from tests.soak.town import TELLS_LETTERS, Town, built, inhabited
from tests.soak.watch import Watch

TALK_S = 15.0
PAUSE_S = (0.1, 1.2)
SETTLED_WITHIN_S: dict[Kind, float] = {"js": 45.0, "nio": 45.0, "rust": 30.0}
ALL_IN_WITHIN_S = 15.0
LOOK_EVERY_S = 0.5


@define
class Outcome:
    """What a soak saw."""

    seed: int
    rounds: int = 0
    said: int = 0
    acknowledged: int = 0
    readings: int = 0
    letters: int = 0
    given_up: int = 0
    lost: int = 0
    undecryptable: int = 0
    client_faults: int = 0
    faults: Counter[str] = field(factory=Counter)
    troubles: list[str] = field(factory=list)
    watch: Watch | None = None

    def __str__(self) -> str:
        """A few lines."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.rounds} rounds, {self.said} messages said, {self.acknowledged} acknowledged, "
            f"{self.given_up} given up by clients, "
            f"{self.readings} readings; {self.letters} messages between devices followed\n"
            f"faults: {faults}\n"
            f"lost: {self.lost}; undecryptable by the server's fault: {self.undecryptable}, "
            f"by a client's: {self.client_faults}\n{self.watch}"
        )


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
                this = Round(town, chance, outcome, letters, only)
                tell(await this.play())
                outcome.troubles += await watch.judge(this.room)
                for trouble in outcome.troubles[known:]:
                    tell(trouble)
            outcome.troubles += await watch.judge(*watch.room_probes[0].rooms)
            outcome.letters, outcome.watch = letters.counted, watch
            for device, ends in letters.lost().items():
                text = f"{len(ends)} acknowledged messages to the device {device} never came"
                outcome.troubles.append(text)
                tell(text)
    return outcome


@define
class Round:
    """One room, from its making to the moment when everything said in it has been read."""

    town: Town
    chance: random.Random
    outcome: Outcome
    letters: Letters
    only: Fault | None = None
    said: list[Said] = field(factory=list)
    room: str = ""
    notes: set[str] = field(factory=set)

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
                await fault(town, chance)
                self.outcome.faults[fault.__name__] += 1
                await town.go_on(town.people)
            await trio.sleep(chance.uniform(0.5, 3))
            enough.set()
        started = trio.current_time()
        await self._settle(readers)
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
            await other.until(lambda view: view["membership"] == "invite", room=self.room)
            await other.do("join", room=self.room)
        for person in self.town.people:
            await person.until(
                lambda view: view.get("joined") == len(self.town.people), room=self.room
            )

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
        await self._judge(readers, left)

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
        """Look again and again, until nothing is left to come, or too much time is over."""
        with trio.move_on_after(SETTLED_WITHIN_S[reader.kind]):
            while True:
                try:
                    if reader.name in left:  # there is something that it did not see by itself
                        await self._fill(reader)
                    view = await reader.do("view", room=self.room)
                except trio.TooSlowError as slow:
                    self.notes.add(str(slow))
                    continue
                left[reader.name] = compare(self.said, view)
                if left[reader.name].is_complete:
                    return
                await trio.sleep(LOOK_EVERY_S)

    async def _fill(self, reader: Client) -> None:
        """Fetch what came while the reader did not look; what that brings is seen in the view."""
        if reader.kind != "nio":
            with suppress(Refused):
                while await reader.do("back", room=self.room, limit=50):
                    pass

    async def _read_letters(self, readers: list[Client]) -> None:
        for reader in readers:
            if reader.kind in TELLS_LETTERS:
                self.letters.record(reader, await reader.do("letters"))

    async def _judge(self, readers: list[Client], left: dict[str, Seen]) -> None:
        """Count, and say what is wrong."""
        outcome = self.outcome
        acknowledged = [one for one in self.said if one.event_id is not None]
        outcome.said += len(self.said)
        outcome.acknowledged += len(acknowledged)
        outcome.readings += len(acknowledged) * len(readers)
        for reader in readers:
            seen = left.get(reader.name, Seen(acknowledged, [], [], []))
            where = f"round {outcome.rounds + 1}, {reader.name} ({reader.kind}), room {self.room}"
            for one in seen.missing:
                if await self._fetched(reader, one):
                    outcome.client_faults += 1
                    self.notes.add(
                        f"{reader.name} has no {one.body!r} in the timeline, but gets it"
                    )
                else:
                    outcome.lost += 1
                    outcome.troubles.append(f"{where}: {one.event_id} {one.body!r} never came")
            for body in seen.doubled:
                if reader.kind == "rust" and body not in seen.sent_twice:
                    outcome.client_faults += 1
                    self.notes.add(f"{reader.name} shows one event twice: {body}")
                else:
                    outcome.troubles.append(f"{where}: came twice: {body}")
            for one in seen.undecryptable:
                what = f"{where}: {one.event_id} {one.body!r} is not decryptable"
                if proof := await self._proof(one.sender, reader):
                    outcome.client_faults += 1
                    self.notes.add(f"{one.sender.name} to {reader.name}: {proof}")
                else:
                    outcome.undecryptable += 1
                    outcome.troubles.append(what)

    async def _fetched(self, reader: Client, one: Said) -> bool:
        """Whether the Rust SDK gets the event by its id, and can read it."""
        if reader.kind != "rust":
            return False
        with suppress(Refused):
            return bool(await reader.do("fetch", room=self.room, event=one.event_id) == one.body)
        return False

    async def _proof(self, sender: Client, reader: Client) -> str | None:
        """The evidence that the sender's client kept the key to itself; None without it."""
        if not {sender.kind, reader.kind} <= {*TELLS_LETTERS}:
            return None
        device = (reader.user_id, reader.device_id)
        if device in self.letters.lost():
            return None
        if reader.device_id not in await sender.do("devices", user=reader.user_id):
            return None
        posted, refused = (
            counted[sender.name, device] for counted in (self.letters.posted, self.letters.refused)
        )
        return f"knows the device, sent it {posted} messages, got no key of it {refused} times"
