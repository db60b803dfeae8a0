"""What of the database is kept in memory.

Only durable facts enter: from reads, or after the commit of the transaction that made them.
Everything here can be dropped at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field, frozen

from matrixbox.core.acl import ServerAcl
from matrixbox.core.events import Event, StateKey
from matrixbox.core.identifiers import DeviceId, RoomId, ServerName, UserId
from matrixbox.core.push_evaluation import CompiledRules
from matrixbox.core.room_versions import RoomRules
from matrixbox.store.memberships import Member
from matrixbox.store.nids import (
    DeviceNid,
    EventNid,
    RoomNid,
    ServerNid,
    SlotNid,
    SnapshotNid,
    UserNid,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
N = TypeVar("N", bound=int)


class Lru(Generic[K, V]):
    """A dictionary with a bound; what was not used for longest goes first."""

    __slots__ = ("_items", "bound")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._items: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, which counts as used now."""
        value = self._items.pop(key, None)
        if value is not None:
            self._items[key] = value
        return value

    def put(self, key: K, value: V) -> None:
        """Remember a value, and forget the oldest when full."""
        self._items.pop(key, None)
        self._items[key] = value
        if len(self._items) > self.bound:
            del self._items[next(iter(self._items))]

    def drop(self, key: K) -> None:
        """Forget one value."""
        self._items.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


@define
class TwoWay(Generic[K, N]):
    """Names to numbers and back, emptied when full."""

    bound: int = 50_000
    numbers: dict[K, N] = field(factory=dict)
    names: dict[N, K] = field(factory=dict)

    def put(self, name: K, number: N) -> None:
        """Remember a pair."""
        if len(self.numbers) >= self.bound:
            self.clear()
        self.numbers[name] = number
        self.names[number] = name

    def clear(self) -> None:
        """Forget everything."""
        self.numbers.clear()
        self.names.clear()


@define(eq=False)
class StoredEvent:
    """An event as it stands in the database."""

    nid: EventNid
    event: Event
    room: RoomNid
    pos: int | None
    sub: int
    status: int
    snapshot: int | None
    after: int | None
    redacted_by: EventNid | None
    notify: bytes | None
    sent_by: DeviceNid | None = None
    txn_id: str | None = None
    client_json: bytes | None = None  # made by the readers that need it, without unsigned
    replaces: EventNid | None = None  # of a state event, found by readers; 0: none
    delay_id: str | None = None  # found by readers: see delayed.id_of; empty: none


@frozen
class Session:
    """Whom an access token stands for."""

    user: UserNid
    user_id: UserId
    device: DeviceNid
    device_id: DeviceId
    admin: bool
    guest: bool
    deactivated: bool
    locked: bool = False
    suspended: bool = False
    expires_ms: int | None = None
    unsettled: bytes | None = None  # hash of the refresh token beside it, while neither was used


@define(eq=False)
class Unread:
    """Unread counts of one user in one room, up to a position."""

    receipts: tuple[tuple[str, tuple[int, int]], ...]  # that they were counted from
    until: int
    counts: dict[str, list[int]]  # thread ("": the main timeline) to [notifications, highlights]


@frozen
class KeyCounts:
    """What a device's client has to know to upload keys in time."""

    one_time: Mapping[str, int]  # left, by algorithm
    unused_fallback: tuple[str, ...]  # algorithms


@define(eq=False)
class Caches:
    """The caches of one database; their bounds keep them below about 40 MiB."""

    users: TwoWay[UserId, UserNid] = field(factory=TwoWay)
    rooms: TwoWay[RoomId, RoomNid] = field(factory=TwoWay)
    slots: TwoWay[StateKey, SlotNid] = field(factory=TwoWay)
    events: Lru[EventNid, StoredEvent] = field(factory=lambda: Lru(6_000))
    event_nids: Lru[str, EventNid] = field(factory=lambda: Lru(12_000))
    room_rules: Lru[RoomNid, RoomRules] = field(factory=lambda: Lru(2_000))
    sessions: Lru[bytes, Session] = field(factory=lambda: Lru(500))
    rooms_of: Lru[UserNid, Sequence[Member]] = field(factory=lambda: Lru(500))
    joined_counts: Lru[RoomNid, int] = field(factory=lambda: Lru(2_000))
    servers: Lru[RoomNid, Mapping[ServerName, int]] = field(factory=lambda: Lru(500))
    server_names: TwoWay[ServerName, ServerNid] = field(factory=TwoWay)
    acls: Lru[EventNid, tuple[EventNid | None, ServerAcl]] = field(factory=lambda: Lru(500))
    push_rules: Lru[UserNid, CompiledRules] = field(factory=lambda: Lru(1_000))
    push_actions: TwoWay[str, int] = field(factory=lambda: TwoWay(bound=1_000))
    key_counts: Lru[DeviceNid, KeyCounts] = field(factory=lambda: Lru(500))
    erased: Mapping[str, int] | None = None  # erased users of ours, and since when
    customised: frozenset[UserNid] | None = None  # users with push rules of their own
    unread: Lru[tuple[UserNid, RoomNid], Unread] = field(factory=lambda: Lru(5_000))
    snapshots: Lru[int, tuple[int | None, int, bytes]] = field(factory=lambda: Lru(500))
    # What sets of branches resolve to, as changes of the first: see rooms.resolution.
    resolutions: Lru[tuple[SnapshotNid, ...], Mapping[SlotNid, EventNid]] = field(
        factory=lambda: Lru(200)
    )
    resolved: Lru[tuple[SnapshotNid, ...], SnapshotNid] = field(factory=lambda: Lru(500))
    following: Lru[tuple[SnapshotNid, EventNid], SnapshotNid] = field(factory=lambda: Lru(100))

    def clear(self) -> None:
        """Forget everything, after a commit that failed."""
        for cache in (
            self.users,
            self.rooms,
            self.slots,
            self.events,
            self.event_nids,
            self.room_rules,
            self.sessions,
            self.rooms_of,
            self.joined_counts,
            self.servers,
            self.server_names,
            self.acls,
            self.push_rules,
            self.push_actions,
            self.unread,
            self.snapshots,
            self.resolutions,
            self.resolved,
            self.following,
            self.key_counts,
        ):
            cache.clear()
        self.customised = None
        self.erased = None
