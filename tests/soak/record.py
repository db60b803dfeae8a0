"""What a probe was told of rooms and of messages between devices, and what is wrong with it.

A room's timeline has to tell every event once and in the room's order, which is that of
`/messages`. A limited timeline is a gap, which its `prev_batch` fills. Messages between devices
carry their sender's numbers, and come once and in the order of these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from attrs import define, field, frozen


@frozen
class Piece:
    """What one answer tells of a room's timeline."""

    ids: Sequence[str]
    limited: bool = False
    anew: bool = False  # what is known already may be told again: the newest events there are


@define
class RoomRecord:
    """The events that were told of one room, in their order."""

    ids: list[str] = field(factory=list)
    known: set[str] = field(factory=set)
    findings: list[str] = field(factory=list)

    def needs_filling(self, piece: Piece) -> bool:
        """Whether there may be events between what is known and this."""
        if not (piece.limited or piece.anew):
            return False
        return not (piece.anew and piece.ids and piece.ids[0] in self.known)

    def take(self, piece: Piece, between: Sequence[str] = ()) -> None:
        """Add what an answer tells, after what filled the gap before it."""
        new = [*between, *piece.ids]
        if piece.anew and new and new[0] in self.known:
            told = self.ids[self.ids.index(new[0]) :]
            if told[: len(new)] != new[: len(told)]:
                self.findings.append(f"told anew in another order: {told} then {new}")
            new = [event for event in new if event not in told]
        for event in new:
            if event in self.known:
                self.findings.append(f"{event} came twice")
            else:
                self.known.add(event)
                self.ids.append(event)

    def against(self, history: Sequence[str]) -> list[str]:
        """What is wrong, where this is the room's history."""
        found, real = list(self.findings), set(history)
        found += [f"{event} never came" for event in history if event not in self.known]
        found += [f"{event} is not in the history" for event in self.ids if event not in real]
        mine = [event for event in self.ids if event in real]
        theirs = [event for event in history if event in self.known]
        wrong = [
            at for at, (one, other) in enumerate(zip(mine, theirs, strict=True)) if one != other
        ]
        if wrong:
            first, last = wrong[0], wrong[-1] + 1
            found.append(f"came as {mine[first:last]}, but is {theirs[first:last]}")
        return found


@define
class LetterRecord:
    """The messages between devices that came to one device: the numbers of each sender."""

    numbers: dict[str, list[int]] = field(factory=lambda: defaultdict(list))

    def take(self, sender: str, number: int) -> None:
        """One came."""
        self.numbers[sender].append(number)

    def lacks(self, sent: dict[str, list[int]]) -> list[str]:
        """Those that were acknowledged, by sender, and have not come."""
        return [
            f"number {number} of {sender} never came"
            for sender, numbers in sent.items()
            for number in sorted({*numbers} - {*self.numbers.get(sender, ())})
        ]

    def against(self, sent: dict[str, list[int]]) -> list[str]:
        """What is wrong, where these were acknowledged."""
        found = self.lacks(sent)
        for sender, numbers in self.numbers.items():
            for before, after in pairwise(numbers):
                if after <= before:
                    found.append(f"after number {before} of {sender} came number {after}")
        return found
