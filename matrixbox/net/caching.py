"""A bounded cache with an end of life for each entry, and one look-up per key at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio
from attrs import frozen

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@frozen
class Entry(Generic[V]):
    """A value, until when it is fresh, and until when it is better than nothing (Trio's time)."""

    value: V
    fresh_until_s: float
    useful_until_s: float

    @property
    def is_fresh(self) -> bool:
        """Whether nobody needs to be asked."""
        return trio.current_time() < self.fresh_until_s

    @property
    def is_useful(self) -> bool:
        """Whether the value may stand in while nobody answers."""
        return trio.current_time() < self.useful_until_s


class Cache(Generic[K, V]):
    """At most `size` entries; the one that was used longest ago goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[K, Entry[V]] = OrderedDict()
        self._asking: dict[K, trio.Event] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> Entry[V] | None:
        """The entry while it is of any use."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if not entry.is_useful:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: K, value: V, fresh_s: float, useful_s: float = 0.0) -> None:
        """Keep `value`: fresh for so many seconds, useful at least as long."""
        now = trio.current_time()
        self._entries[key] = Entry(value, now + fresh_s, now + max(fresh_s, useful_s))
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    @asynccontextmanager
    async def alone(self, key: K) -> AsyncIterator[None]:
        """One task at a time for each key; look into the cache again inside."""
        while (running := self._asking.get(key)) is not None:
            await running.wait()
        done = self._asking[key] = trio.Event()
        try:
            yield
        finally:
            del self._asking[key]
            done.set()
