"""What was said, what everybody saw of it, and whose fault it is that somebody did not.

Every message that a server acknowledged has to be seen, once, and be decryptable, by every device
that was in the room before. Where one is not decryptable, there is evidence: the clients on two of
the libraries record the encrypted messages between devices that they sent and were acknowledged,
those that they received, and when they asked for a one-time key of a device and got none. If all
that were sent to the reader's device arrived, and the sender knows of that device, no server has
lost anything: the sender did not send the key, because it asked while the reader's server was down
and not again, or for reasons of its own. Without such evidence it counts as the server's fault.

The Rust SDK keeps a copy of each timeline, which after lost answers may lack events in its middle,
or show one twice. What it can fetch by its id and decrypt was there, and so was the key.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import define, field

from tests.clients.conversation import Client, View

Device = tuple[str, str]


@define
class Letters:
    """Encrypted messages between devices, told apart by how they end."""

    sent: dict[Device, list[str]] = field(factory=dict)
    received: dict[Device, Counter[str]] = field(factory=dict)
    refused: Counter[tuple[str, Device]] = field(factory=Counter)
    posted: Counter[tuple[str, Device]] = field(factory=Counter)

    def record(self, who: Client, found: list[Any]) -> None:
        """Take down what a client tells."""
        received = self.received.setdefault((who.user_id, who.device_id), Counter())
        for what, user, device, end in found:
            if what == "sent":
                self.sent.setdefault((user, device), []).append(end)
                self.posted[who.name, (user, device)] += 1
            elif what == "refused":
                self.refused[who.name, (user, device)] += 1
            else:
                received[end] += 1

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
