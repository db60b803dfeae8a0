"""Whose fault it is that somebody lacks something, and what comes of it all."""

from __future__ import annotations

from collections import Counter
from itertools import count

import trio
from attrs import define, field

from tests.clients.conversation import Client
from tests.soak.ledger import Letters, Said, Seen, Verdict, Whose
from tests.soak.town import TELLS_LETTERS, Town
from tests.soak.watch import Watch

HEALED_WITHIN_S = 120.0
SAY_EVERY_S = 3.0


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
    shown_wrong: int = 0
    restarts: int = 0
    drops: int = 0
    decrypted: Counter[str] = field(factory=Counter)
    undecryptable: Counter[Whose] = field(factory=Counter)
    faults: Counter[str] = field(factory=Counter)
    troubles: list[str] = field(factory=list)
    watch: Watch | None = None

    def __str__(self) -> str:
        """Some lines."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        read = ", ".join(f"{name} {count}" for name, count in sorted(self.decrypted.items()))
        causes = ", ".join(f"{whose.value} fault {self.undecryptable[whose]}" for whose in Whose)
        peak_mib = self.watch.peak_kib / 1024 if self.watch is not None else 0.0
        return (
            f"{self.rounds} rounds, {self.said} messages said, {self.acknowledged} acknowledged, "
            f"{self.given_up} given up by clients, {self.readings} readings; "
            f"{self.letters} messages between devices followed\n"
            f"faults: {faults}\n"
            f"starts of our server after the first: {self.restarts}; "
            f"networks broken: {self.drops} times; our server's peak RSS: {peak_mib:.0f} MiB\n"
            f"decrypted: {read}\n"
            f"undecryptable: {causes}\n"
            f"lost: {self.lost}; shown wrong by the Rust SDK, though a probe has it: "
            f"{self.shown_wrong}\n{self.watch}"
        )


@define
class Judge:
    """Of one round."""

    town: Town
    outcome: Outcome
    letters: Letters
    watch: Watch
    room: str
    said: list[Said]
    began: float  # seconds since 1970
    notes: set[str] = field(factory=set)

    async def judge(self, readers: list[Client], left: dict[str, Seen]) -> None:
        """Count, and say what is wrong."""
        outcome = self.outcome
        outcome.troubles += await self.watch.judge(self.room)
        acknowledged = [one for one in self.said if one.event_id is not None]
        outcome.said += len(self.said)
        outcome.acknowledged += len(acknowledged)
        outcome.readings += len(acknowledged) * len(readers)
        for reader in readers:
            seen = left.get(reader.name, Seen(acknowledged, [], [], []))
            where = f"round {outcome.rounds + 1}, {reader.name} ({reader.kind}), room {self.room}"
            self._judge_timeline(reader, seen, where)
            unread = len(seen.missing) + len(seen.undecryptable)
            name = "guests" if reader.name.startswith("guest") else reader.name
            outcome.decrypted[name] += len(acknowledged) - unread
            senders = {one.sender.name: one.sender for one in seen.undecryptable}
            verdicts = {
                name: await self._verdict(sender, reader) for name, sender in senders.items()
            }
            for one in seen.undecryptable:
                verdict = verdicts[one.sender.name]
                outcome.undecryptable[verdict.whose] += 1
                if verdict.whose is Whose.SERVER:
                    what = f"{one.event_id} {one.body!r} is not decryptable"
                    outcome.troubles.append(f"{where}: {what}: {verdict.why}")
                else:
                    why = f"{verdict.whose.value} fault: {verdict.why}"
                    self.notes.add(f"{one.sender.name}'s not decryptable by {reader.name}, {why}")

    def _judge_timeline(self, reader: Client, seen: Seen, where: str) -> None:
        outcome = self.outcome
        for one in seen.missing:
            if reader.kind == "rust" and self.watch.was_told(self.room, one.event_id):
                outcome.shown_wrong += 1
                self.notes.add(f"{reader.name} does not show {one.body!r}, but the probe has it")
            else:
                outcome.lost += 1
                outcome.troubles.append(f"{where}: {one.event_id} {one.body!r} never came")
        for body in seen.doubled:
            if reader.kind == "rust" and body not in seen.sent_twice:
                outcome.shown_wrong += 1
                self.notes.add(
                    f"{reader.name} shows one event twice, the probe has it once: {body}"
                )
            else:
                outcome.troubles.append(f"{where}: came twice: {body}")

    async def _verdict(self, sender: Client, reader: Client) -> Verdict:
        if not {sender.kind, reader.kind} <= {*TELLS_LETTERS}:
            return Verdict(Whose.SERVER, "there is no evidence")
        found = self.letters.verdict(
            sender,
            (reader.user_id, reader.device_id),
            since=self.began,
            knows=reader.device_id in await sender.do("devices", user=reader.user_id),
            remote=sender is self.town.remote,
            explained=self.town.explains,
        )
        if found.whose is not Whose.SERVER and not await self._heals(sender, reader):
            why = f"what is said long after the faults cannot be read either; {found.why}"
            return Verdict(Whose.SERVER, why)
        return found

    async def _heals(self, sender: Client, reader: Client) -> bool:
        """Whether the reader can read what is said from now on, once the sender asks again."""
        started = trio.current_time()
        with trio.move_on_after(HEALED_WITHIN_S):
            for number in count(1):
                body = f"{sender.name} to {reader.name} again {number}"
                await sender.say(self.room, body)
                await trio.sleep(SAY_EVERY_S)
                view = await reader.do("view", room=self.room)
                if any(event["body"] == body for event in view["timeline"]):
                    took = trio.current_time() - started
                    self.notes.add(f"{reader.name} can read {sender.name} again after {took:.0f} s")
                    return True
        return False
