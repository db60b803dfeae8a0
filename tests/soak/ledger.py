"""What was said, what everybody saw of it, and whose fault it is that somebody did not.

Every message that a server acknowledged has to be seen, once, and be decryptable, by every device
that was in the room before. Where one is not decryptable, there is evidence: the clients on two of
the libraries record the encrypted messages between devices that they sent and were acknowledged,
those that they received, and when they asked for a one-time key of a device and got none. Ours is
at fault if it loses a message between devices, does not tell of a device, has no key of it, or does
not answer though nothing is wrong. Where a key was asked for while there was no way to the server
that has it, the one who asked has to ask again: that is the client's part, or the other server's.
What is said once the faults are over has to be decryptable after all. Without any evidence it is
our server's fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import define, field, frozen

from tests.clients.conversation import Client, View

Device = tuple[str, str]
Explained = Callable[[str, float], bool]
"""Whether what was asked in vain at a time was so because of a fault that was played."""


class Whose(Enum):
    """Whose fault something is."""

    SERVER = "our server's"
    CLIENT = "a client's"
    PEER = "the peer's or its client's"


@frozen
class Verdict:
    """Whose fault, and why."""

    whose: Whose
    why: str


@frozen
class Claim:
    """A one-time key that somebody did not get."""

    kind: str  # refused: there is none; unreachable: its server was not; unanswered: nobody was
    sender: str
    device: Device
    at: float  # seconds since 1970


@define
class Letters:
    """Encrypted messages between devices, told apart by how they end."""

    sent: dict[Device, list[str]] = field(factory=dict)
    received: dict[Device, Counter[str]] = field(factory=dict)
    posted: Counter[tuple[str, Device]] = field(factory=Counter)
    claims: list[Claim] = field(factory=list)
    gone: set[Device] = field(factory=set)
    given_up: set[Device] = field(factory=set)  # which have lost some for certain

    def record(self, who: Client, found: list[Any]) -> None:
        """Take down what a client tells."""
        received = self.received.setdefault((who.user_id, who.device_id), Counter())
        for what, user, device, end, at in found:
            if what == "sent" and (user, device) in self.gone:
                continue
            if what == "sent":
                self.sent.setdefault((user, device), []).append(end)
                self.posted[who.name, (user, device)] += 1
            elif what == "received":
                received[end] += 1
            else:
                self.claims.append(Claim(what, who.name, (user, device), at))

    def leaves(self, device: Device) -> None:
        """A device signs out: what is sent to it from now on goes nowhere."""
        self.gone.add(device)

    def lost(self) -> dict[Device, list[str]]:
        """Acknowledged ones that did not reach a device which tells what it receives."""
        lost = {
            device: [end for end in self.sent.get(device, []) if end not in received]
            for device, received in self.received.items()
        }
        return {device: ends for device, ends in lost.items() if ends}

    @property
    def counted(self) -> int:
        """How many were sent to devices that tell."""
        return sum(len(self.sent.get(device, [])) for device in self.received)

    def verdict(
        self,
        sender: Client,
        device: Device,
        *,
        since: float,
        knows: bool,
        remote: bool,
        explained: Explained,
    ) -> Verdict:
        """Whose fault it is that a device lacks keys of a sender's, which tells of its letters.

        `knows`: the sender's client knows the device; `remote`: the sender is on another server.
        """
        if device in self.lost():
            return Verdict(Whose.SERVER, "messages to the device were lost")
        if not knows:
            return Verdict(Whose.SERVER, "the sender was not told of the device")
        vain = [
            claim
            for claim in self.claims
            if claim.sender == sender.name and claim.device == device and claim.at >= since
        ]
        if any(claim.kind == "refused" for claim in vain):
            return Verdict(Whose.SERVER, "asked for a key, and there was none")
        if not all(explained(claim.kind, claim.at) for claim in vain):
            return Verdict(Whose.SERVER, "asked for a key without an answer, and nothing was wrong")
        others = Whose.PEER if remote else Whose.CLIENT
        if vain:
            return Verdict(others, f"asked for a key {len(vain)} times, only during faults")
        posted = self.posted[sender.name, device]
        return Verdict(others, f"never asked in vain for a key; its {posted} messages all came")


@define
class Said:
    """One message."""

    sender: Client
    body: str
    event_id: str | None = None  # None: nobody told that the server has it


@define
class Seen:
    """How a round stands for one reader."""

    missing: list[Said]
    undecryptable: list[Said]
    doubled: list[str]
    sent_twice: list[str]  # those of `doubled` that are two events

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to wait for."""
        return not (self.missing or self.undecryptable or self.doubled)


def compare(said: list[Said], view: View | None) -> Seen:
    """What a reader shows of all that was said."""
    timeline = (view or {}).get("timeline", [])
    events = {event["id"]: event for event in timeline}
    by_body: dict[str, list[str]] = {}
    for event in timeline:
        if event["type"] == "m.room.message":
            by_body.setdefault(event["body"], []).append(event["id"])
    twice = {body: ids for body, ids in by_body.items() if body and len(ids) > 1}
    doubled = [f"{body!r} as {ids}" for body, ids in twice.items()]
    sent_twice = [f"{body!r} as {ids}" for body, ids in twice.items() if len({*ids}) > 1]
    acknowledged = [one for one in said if one.event_id is not None]
    missing = [one for one in acknowledged if one.event_id not in events]
    unread = [
        one
        for one in acknowledged
        if one.event_id in events and events[one.event_id]["body"] != one.body
    ]
    return Seen(missing, unread, doubled, sent_twice)
