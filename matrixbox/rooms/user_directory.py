"""Finding people, and the rooms that one shares with them.

Matrix v1.19, Client-Server API, "User Directory", "Mutual Rooms" ([C12.10], [C12.11], T094, T107).

Found are others who share a room with who asks, those in rooms that are public or that anybody may
read, and the household where the configuration says so; who asks is among the latter two, but needs
not be told of themselves for being in a private room.  Users of other servers are known by what
they call themselves in those rooms, ours by their profiles: a name that somebody bears in one
private room only is nobody else's to find.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from itertools import chain

from attrs import frozen

from matrixbox.core.events import JOIN_RULES, join_rule_of
from matrixbox.core.identifiers import UserId, is_compliant_user_id, localpart_of
from matrixbox.core.json import Json
from matrixbox.core.visibility import HistoryVisibility
from matrixbox.errors import InvalidParam
from matrixbox.rooms.reading import HISTORY
from matrixbox.rooms.state import CurrentState
from matrixbox.store import names, user_directory
from matrixbox.store.nids import RoomNid, UserNid
from matrixbox.store.transaction import Tx
from matrixbox.store.user_directory import Findable

MAX_LIMIT = 50  # people in one answer
MAX_TERM = 255  # characters
MAX_LOOKED_AT = 20_000  # people of whom the names are looked at, those in shared rooms first
MUTUAL_ROOMS_AT_ONCE = 100
MAX_ROOMS = 200  # of one person that are looked at for whether they are open to all


@frozen
class Found:
    """Somebody who was found."""

    rank: tuple[int, bool, str]  # the best first
    user_id: UserId
    name: str | None
    avatar_url: str | None

    def json(self) -> dict[str, Json]:
        """What clients are told."""
        shown: dict[str, Json] = {"user_id": self.user_id}
        if self.name is not None:
            shown["display_name"] = self.name
        if self.avatar_url is not None:
            shown["avatar_url"] = self.avatar_url
        return shown


def search(
    tx: Tx, user: UserNid, term: str, limit: int, household: bool
) -> tuple[list[Found], bool]:
    """Who fits a term, and whether there are more.  Takes long: for a reader's thread."""
    wanted = folded(term[:MAX_TERM]).split()
    if not wanted:
        return [], False
    gone, ours = user_directory.gone(tx), user_directory.own_profiles(tx)
    here = user_directory.accounts_here(tx)
    found = []
    looked_at = 0
    for one in _findable(tx, user, household=household):
        looked_at += 1
        if one.user in gone or not is_compliant_user_id(one.user_id):
            continue
        if one.user in here or one.event is None:
            fields: Mapping[str, Json] = ours.get(one.user, {})
        else:
            fields = user_directory.shown_in(tx, one.event)
        name = _text(fields, "displayname")
        rank = _rank(wanted, one.user_id, name)
        if rank is not None:
            avatar_url = _text(fields, "avatar_url")
            if avatar_url is not None and not avatar_url.startswith("mxc://"):
                avatar_url = None
            nameless = name is None and avatar_url is None
            found.append(Found((rank, nameless, one.user_id), one.user_id, name, avatar_url))
    found.sort(key=lambda one: one.rank)
    return found[:limit], len(found) > limit or looked_at >= MAX_LOOKED_AT


def _findable(tx: Tx, user: UserNid, *, household: bool) -> Iterator[Findable]:
    """Everybody whom a user may find, once."""
    seen: set[UserNid] = set()
    for one in chain(
        user_directory.sharing(tx, user, MAX_LOOKED_AT),
        user_directory.household(tx, MAX_LOOKED_AT) if household else (),
        _in_open_rooms(tx),
    ):
        if len(seen) >= MAX_LOOKED_AT:
            return
        if one.user not in seen:
            seen.add(one.user)
            yield one


def _in_open_rooms(tx: Tx) -> Iterator[Findable]:
    """Who is in rooms that anybody may join, or read; asked for when it comes to that."""
    found = [room for room in user_directory.inhabited(tx) if _is_open(tx, room)]
    # Those who came before may come again.
    yield from user_directory.members_of(tx, found, 2 * MAX_LOOKED_AT)


def is_in_open_room(tx: Tx, user_id: UserId) -> bool:
    """Whether somebody is in a room, known here, that anybody may join or read ([C15.01])."""
    user = names.user_nid(tx, user_id)
    return user is not None and any(
        _is_open(tx, room) for room in user_directory.rooms_with(tx, user, MAX_ROOMS)
    )


def _is_open(tx: Tx, room: RoomNid) -> bool:
    state = CurrentState(tx, room)
    join_rules = state.get(JOIN_RULES)
    if join_rules is not None and join_rule_of(join_rules) == "public":
        return True
    return HistoryVisibility.of(state.get(HISTORY)) is HistoryVisibility.WORLD_READABLE


def folded(text: str) -> str:
    """A text for comparisons: without case, and one form for what looks the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _rank(wanted: list[str], user_id: UserId, name: str | None) -> int | None:
    """How well somebody fits, 0 best; None: a word is neither in the id nor in the name."""
    plain_id, plain_name = folded(user_id), folded(name or "")
    if not all(word in plain_id or word in plain_name for word in wanted):
        return None
    whole = " ".join(wanted)
    if whole in (plain_id, folded(localpart_of(user_id)), " ".join(plain_name.split())):
        return 0
    words = [plain_id, plain_id[1:], *plain_name.split()]
    if all(any(word.startswith(start) for word in words) for start in wanted):
        return 1
    return 2


def _text(fields: Mapping[str, Json], key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) and value else None


@frozen
class Mutual:
    """Rooms that two users are in, and how to go on."""

    rooms: list[Json]
    count: int
    next_batch: str | None


def mutual_rooms(tx: Tx, user: UserNid, other_id: UserId, batch: str | None) -> Mutual:
    """The rooms that a user shares with another; raises InvalidParam for a bad token."""
    after = 0
    if batch is not None:
        number = batch.removeprefix("m")
        if number == batch or not (number.isascii() and number.isdigit()) or len(number) > 18:
            raise InvalidParam("That is not a token of an earlier answer.")
        after = int(number)
    other = names.user_nid(tx, other_id)
    if other is None:
        return Mutual([], 0, None)
    found = user_directory.shared_rooms(tx, user, other, after, MUTUAL_ROOMS_AT_ONCE + 1)
    more = len(found) > MUTUAL_ROOMS_AT_ONCE
    page = found[:MUTUAL_ROOMS_AT_ONCE]
    count = user_directory.shared_count(tx, user, other)
    return Mutual([name for _, name in page], count, f"m{page[-1][0]}" if more else None)
