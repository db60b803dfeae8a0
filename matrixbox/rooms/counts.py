"""Whom an event notifies, and how many notifications a user has not read.

Matrix v1.19, Client-Server API, "Push Rules", "Receiving notifications" ([C13.04], [C13.05],
[C14.15], T133).  The evaluation is stored with the event, so that counts can always be made anew
from events and receipts; what is kept in memory only saves the work.

It is stored as a list of 64-bit numbers, one for each user: 30 bits for the user, 32 for the
actions of the rule that matched, and two that say whether it notifies and highlights.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from matrixbox.core.events import (
    CREATE,
    POWER_LEVELS,
    Event,
    StateKey,
    membership_of,
    power_levels,
)
from matrixbox.core.identifiers import UserId
from matrixbox.core.json import Json, decode_stored
from matrixbox.core.push_evaluation import Situation
from matrixbox.core.visibility import HistoryVisibility, Standing, may_see
from matrixbox.rooms import push_rules
from matrixbox.rooms.reading import HISTORY, OPEN_TO_MEMBERS, ignored_users
from matrixbox.rooms.receipts import MAIN, thread_root
from matrixbox.rooms.state import CurrentState
from matrixbox.store import (
    events,
    members,
    names,
    pushers,
    receipts,
    snapshots,
    thread_subscriptions,
)
from matrixbox.store.caches import StoredEvent, Unread
from matrixbox.store.nids import RoomNid, SnapshotNid, UserNid
from matrixbox.store.transaction import Tx

MEMBER = "m.room.member"
MAX_COUNTED = 2_000  # newest events that are looked at; nobody reads more numbers than that
MAX_ACTIONS = 1_024  # characters of a list of actions, beyond which it is not kept
_NOTIFY, _HIGHLIGHT = 1, 2
_PLAIN = {False: '["notify"]', True: '["notify",{"set_tweak":"highlight"}]'}


def evaluate(
    tx: Tx, room: RoomNid, event: Event, before: SnapshotNid, current: SnapshotNid
) -> bytes | None:
    """Whom a new event notifies, in the form that is stored; None for nobody.

    `before` is the state before it, which may be long past, and `current` that of the room.
    """
    tx.changed(topics=(pushers.TOPIC,))
    users = _candidates(tx, room, event)
    if before != current and event.type != MEMBER:
        users = _readers(tx, before, users)
    state = CurrentState(tx, room)
    create = state.get(CREATE)
    if not users or create is None:
        return None
    levels = power_levels(event.rules, create, state.get(POWER_LEVELS))
    count = members.joined_count(tx, room)
    situation = Situation(event, count, levels, _followers(tx, room, event))
    found = array("Q")
    for user in users:
        name = _display_name(tx, state, user)
        outcome = push_rules.compiled(tx, user).evaluate(situation, name)
        if outcome is not None and outcome.notify and not _ignores(tx, user, event):
            actions = outcome.encoded
            if len(actions) > MAX_ACTIONS:
                actions = _PLAIN[outcome.highlight]
            flags = _NOTIFY | (_HIGHLIGHT if outcome.highlight else 0)
            found.append(user << 34 | pushers.actions_nid(tx, actions) << 2 | flags)
    return found.tobytes() or None


def _followers(tx: Tx, room: RoomNid, event: Event) -> frozenset[UserId] | None:
    """Who follows the thread of an event; None for an event in none (MSC4306)."""
    root = thread_root(tx, event)
    if root is None:
        return None
    found = thread_subscriptions.followers(tx, room, root)
    return frozenset(names.user_id(tx, user) for user in found)


def notified(notify: bytes) -> Iterator[UserNid]:
    """The users whom an event notifies, out of what is stored with it."""
    return (UserNid(entry >> 34) for entry in array("Q", notify))


def actions_for(tx: Tx, notify: bytes | None, user: UserNid) -> list[Json] | None:
    """What is to be done to notify a user of an event; None: the user is not notified."""
    entry = _entry(notify, user)
    if entry is None:
        return None
    found = decode_stored(pushers.actions(tx, entry >> 2 & 0xFFFF_FFFF).encode())
    assert isinstance(found, list)
    return found


def is_highlight(notify: bytes, user: UserNid) -> bool:
    """Whether an event is highlighted for a user."""
    return bool((_entry(notify, user) or 0) & _HIGHLIGHT)


def _entry(notify: bytes | None, user: UserNid) -> int | None:
    if notify is not None:
        for entry in array("Q", notify):
            if entry >> 34 == user:
                return entry
    return None


def _candidates(tx: Tx, room: RoomNid, event: Event) -> list[UserNid]:
    """The users of ours whom an event could notify at all."""
    if event.type != MEMBER:
        return members.local_joined(tx, room)
    # By the default rules a membership is news for its subject alone.
    own = push_rules.customised(tx)
    users = [user for user in members.local_joined(tx, room) if user in own] if own else []
    if event.content.get("membership") == "invite" and event.state_key is not None:
        target = names.user_nid(tx, UserId(event.state_key))
        if target is not None and target not in users and members.is_account(tx, target):
            users.append(target)
    return users


def _readers(tx: Tx, before: SnapshotNid, users: list[UserNid]) -> list[UserNid]:
    """Those to whom the room was open in a state: what comes late may be of before their time."""
    keys = {user: (MEMBER, names.user_id(tx, user)) for user in users}
    slots = {key: names.slot_nid(tx, key) for key in (HISTORY, *keys.values())}
    found = snapshots.lookup(tx, before, [slot for slot in slots.values() if slot is not None])

    def in_state(key: StateKey) -> Event | None:
        slot = slots[key]
        nid = None if slot is None else found.get(slot)
        return None if nid is None else events.by_nid(tx, nid).event

    setting = HistoryVisibility.of(in_state(HISTORY))
    if setting in OPEN_TO_MEMBERS:
        return users
    standings = {user: Standing.at(membership_of(in_state(key))) for user, key in keys.items()}
    return [user for user in users if may_see(setting, setting, (standings[user],))]


def _ignores(tx: Tx, user: UserNid, event: Event) -> bool:
    """Whether the user wants to hear nothing of the sender; state counts, invitations don't."""
    is_state = event.state_key is not None and event.content.get("membership") != "invite"
    return not is_state and event.sender in ignored_users(tx, user)


def _display_name(tx: Tx, state: CurrentState, user: UserNid) -> str | None:
    """The name that a rule of the user's own may look for."""
    if user not in push_rules.customised(tx):
        return None
    member = state.get((MEMBER, names.user_id(tx, user)))
    name = None if member is None else member.content.get("displayname")
    return name if isinstance(name, str) else None


@frozen
class Counts:
    """Unread notifications, and how many of them are highlights."""

    notifications: int = 0
    highlights: int = 0


@frozen
class RoomCounts:
    """Unread counts of the main timeline and of each thread that has some."""

    main: Counts
    threads: dict[str, Counts]

    @property
    def total(self) -> Counts:
        """All together, for clients that do not know threads."""
        every = [self.main, *self.threads.values()]
        return Counts(sum(one.notifications for one in every), sum(one.highlights for one in every))


def unread(tx: Tx, user: UserNid, room: RoomNid, now: int) -> RoomCounts:
    """What a user has not read in a room, up to a stream position."""
    marked = marks(tx, user, room)
    known = tx.caches.unread.get((user, room))
    if known is None or known.receipts != tuple(sorted(marked.items())) or known.until > now:
        known = _counted_anew(tx, user, room, marked, now)
        tx.caches.unread.put((user, room), known)
    elif known.until < now:
        nids = events.after(tx, room, (known.until, 0), (now, 0), MAX_COUNTED)
        _count(tx, user, known, (events.by_nid(tx, nid) for nid in nids), marked)
        known.until = now
    found = {thread: Counts(*pair) for thread, pair in known.counts.items() if pair[0]}
    return RoomCounts(found.pop("", Counts()), found)


def marks(tx: Tx, user: UserNid, room: RoomNid) -> Mapping[str, tuple[int, int]]:
    """How far the user has read: by thread, with "*" for everything ([C13.04], [C13.05])."""
    found: dict[str, tuple[int, int]] = {}
    for receipt in receipts.of_user(tx, room, user):
        thread = "" if receipt.thread == MAIN else receipt.thread or "*"
        found[thread] = max(found.get(thread, (0, 0)), receipt.point)
    return found


def is_read(tx: Tx, stored: StoredEvent, marked: Mapping[str, tuple[int, int]]) -> bool:
    """Whether an event is not beyond how far a user has read, see `marks`."""
    if stored.pos is None:
        return False
    thread = thread_root(tx, stored.event) or ""
    furthest = max(marked.get("*", (0, 0)), marked.get(thread, (0, 0)))
    return (stored.pos, stored.sub) <= furthest


def _counted_anew(
    tx: Tx, user: UserNid, room: RoomNid, marked: Mapping[str, tuple[int, int]], now: int
) -> Unread:
    fresh = Unread(tuple(sorted(marked.items())), now, {})
    start = marked.get("*", (0, 0))
    nids = events.before(tx, room, (now, 0), start, MAX_COUNTED)
    _count(tx, user, fresh, (events.by_nid(tx, nid) for nid in reversed(nids)), marked)
    return fresh


def _count(
    tx: Tx,
    user: UserNid,
    into: Unread,
    new: Iterable[StoredEvent],
    marked: Mapping[str, tuple[int, int]],
) -> None:
    me = names.user_id(tx, user)
    for stored in new:
        mine = stored.event.sender == me
        flags = 0 if mine else _flags(stored, user)
        if not mine and not flags:
            continue
        assert stored.pos is not None
        thread = thread_root(tx, stored.event) or ""
        if mine:
            into.counts.pop(thread, None)  # who writes has read
        elif (stored.pos, stored.sub) > marked.get(thread, (0, 0)):
            pair = into.counts.setdefault(thread, [0, 0])
            pair[0] += 1
            pair[1] += bool(flags & _HIGHLIGHT)


def _flags(stored: StoredEvent, user: UserNid) -> int:
    if stored.redacted_by is not None:
        return 0
    return (_entry(stored.notify, user) or 0) & 3
