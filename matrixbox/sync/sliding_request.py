"""What a client asks of sliding sync, in either of its forms.

MSC4186 (simplified sliding sync), "Request Body": as clients ask today, on the path with the
unstable prefix, and as the merged text says, on `/v4/sync`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import Factory, evolve, field, frozen

from matrixbox.core.identifiers import RoomId
from matrixbox.rooms.tokens import SlidingToken
from matrixbox.store.caches import Session

MEMBER = "m.room.member"

Pattern = tuple[str | None, str | None]
"""A type and a state key; None matches any."""


class Form(Enum):
    """How a client asks, and is answered."""

    UNSTABLE = "org.matrix.simplified_msc3575"
    V4 = "v4"


@frozen
class Required:
    """One description of the state that a client wants of its rooms."""

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()
    lazy: bool = False  # memberships as far as the timeline needs them
    _kinds: frozenset[str | None] = field(init=False, eq=False, repr=False)
    _keys: frozenset[str | None] = field(init=False, eq=False, repr=False)
    _pairs: frozenset[Pattern] = field(init=False, eq=False, repr=False)

    @_kinds.default
    def _all_of_kinds(self) -> frozenset[str | None]:
        return frozenset(kind for kind, key in self.include if key is None)

    @_keys.default
    def _all_with_keys(self) -> frozenset[str | None]:
        return frozenset(key for kind, key in self.include if kind is None and key is not None)

    @_pairs.default
    def _exactly(self) -> frozenset[Pattern]:
        return frozenset(self.include)

    def matches(self, kind: str, key: str) -> bool:
        """Whether the client wants this, what the timeline needs left aside."""
        wanted = (kind, key) in self._pairs or key in self._keys
        if not wanted and not (self.lazy and kind == MEMBER):
            wanted = kind in self._kinds or None in self._kinds
        return wanted and not any(_fits(one, kind, key) for one in self.exclude)

    @property
    def wants_all_members(self) -> bool:
        """Whether memberships are wanted whosever they are."""
        return not self.lazy and any(
            kind in (None, MEMBER) and key is None for kind, key in self.include
        )


def _fits(pattern: Pattern, kind: str, key: str) -> bool:
    return pattern[0] in (None, kind) and pattern[1] in (None, key)


Wanted = tuple[Required, ...]
"""Several descriptions together: what any of them wants."""


@frozen
class RoomConfig:
    """What a client wants of each room."""

    limit: int  # of events in the timeline
    required: Required


@frozen
class RoomFilters:
    """Which rooms a list has; None leaves it open."""

    is_dm: bool | None = None
    spaces: frozenset[str] | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] = frozenset()
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] = frozenset()


@frozen
class ListConfig:
    """A list: which rooms, which part of them, and what of each."""

    room: RoomConfig
    ranges: tuple[tuple[int, int], ...] | None = None  # inclusive; None: all
    filters: RoomFilters = RoomFilters()


@frozen
class RoomExtension:
    """An extension about rooms, and the lists and subscriptions that it is about; None: all."""

    lists: frozenset[str] | None = None
    rooms: frozenset[str] | None = None


@frozen
class ToDevice:
    """Messages between devices, after the last that the client has."""

    since: int | None = None
    limit: int = 100


@frozen
class Extensions:
    """What else the client wants; None where it does not."""

    to_device: ToDevice | None = None
    e2ee: bool = False
    account_data: RoomExtension | None = None
    receipts: RoomExtension | None = None
    typing: RoomExtension | None = None
    threads: int | None = None  # how many thread subscriptions at most
    names: Mapping[str, str] = Factory(dict)  # by which names some were asked for


@frozen
class SlidingRequest:
    """One request."""

    who: Session
    form: Form
    conn_id: str
    pos: str | None
    timeout_s: float
    lists: Mapping[str, ListConfig]
    subscriptions: Mapping[RoomId, RoomConfig]
    extensions: Extensions
    txn_id: str | None = None

    def at(self, pos: str) -> object:
        """Equal for requests that ask the same of the same connection at the same position."""
        asked = evolve(self.extensions, to_device=None)
        return pos, self.form, self.lists, self.subscriptions, asked

    @property
    def since(self) -> SlidingToken | None:
        """The position; None without one, and for what is none."""
        return None if self.pos is None else SlidingToken.parse(self.pos)


def combined(configs: Sequence[RoomConfig]) -> tuple[int, Wanted]:
    """What several descriptions of one room ask for together."""
    wanted = tuple(dict.fromkeys(config.required for config in configs))
    return max(config.limit for config in configs), wanted
