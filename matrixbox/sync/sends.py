"""What a device is sending at the moment.

A client that sends learns the event's id twice, from the answer and from its own `/sync`.
matrix-js-sdk fails on a reply in a thread when `/sync` is the first to tell. So a device's `/sync`
that has news waits until those requests have been answered that were under way when the news were
gathered.
"""

from __future__ import annotations

import trio
from attrs import define, field

from matrixbox.store.nids import DeviceNid

AT_MOST_S = 1.0
"""Then the answer to the request is late for reasons of its own, and news are not held back."""


@define(eq=False)
class Sends:
    """The requests of devices that make events."""

    _under_way: dict[DeviceNid, set[trio.Event]] = field(factory=dict)

    def begin(self, device: DeviceNid) -> trio.Event:
        """A request of the device begins; pass what is returned to `end`."""
        answered = trio.Event()
        self._under_way.setdefault(device, set()).add(answered)
        return answered

    def end(self, device: DeviceNid, answered: trio.Event) -> None:
        """The request has been answered, or nobody waits for the answer."""
        answered.set()
        rest = self._under_way[device]
        rest.discard(answered)
        if not rest:
            del self._under_way[device]

    async def answered(self, device: DeviceNid) -> None:
        """Wait until all that the device is sending now has been answered, or for AT_MOST_S."""
        with trio.move_on_after(AT_MOST_S):
            for answered in tuple(self._under_way.get(device, ())):
                await answered.wait()
