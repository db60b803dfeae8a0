"""Parts of a sync answer about encryption: to-device messages, device lists, key counts.

Matrix v1.19, Client-Server API, "Extensions to /sync" of "Send-to-Device messaging" and "End-to-End
Encryption" ([C8.22] to [C8.25], [C17.05]).

Device lists go by who shares a room, encrypted or not: a room may become encrypted, and then its
members are known already.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from attrs import frozen

from matrixbox.core.json import Json
from matrixbox.rooms.formatting import Fragment
from matrixbox.store import device_lists, keys, members, names, to_device
from matrixbox.store.changes import Key
from matrixbox.store.nids import DeviceNid, UserNid
from matrixbox.store.transaction import Tx
from matrixbox.sync.sharing import Sharing

MAX_MESSAGES = 100
"""To-device messages in one answer."""


# --- messages and counts


@frozen
class Delivery:
    """To-device messages for one answer; ``behind``: the last of them, if more are waiting."""

    events: tuple[Fragment, ...]
    behind: int | None


def delivery(tx: Tx, device: DeviceNid, after: int, until: int, limit: int) -> Delivery:
    """The oldest messages at positions in (after, until]."""
    found = to_device.waiting(tx, device, after, until, limit + 1)
    shown = tuple(Fragment(message.json) for message in found[:limit])
    return Delivery(shown, found[limit - 1].pos if len(found) > limit else None)


def key_counts(tx: Tx, device: DeviceNid) -> dict[str, Json]:
    """What a client has to know to upload keys in time; always in an answer ([C8.24], [C8.25])."""
    counts = keys.counts(tx, device)
    return {
        "device_one_time_keys_count": {"signed_curve25519": 0, **counts.one_time},
        "device_unused_fallback_key_types": list(counts.unused_fallback),
    }


# --- device lists


def device_list_changes(
    tx: Tx, me: UserNid, since: int, now: int, rung: AbstractSet[Key] | None
) -> dict[str, list[str]] | None:
    """Whose keys have changed or are needed now, and whose are not any more; None: nobody's.

    ``rung`` is what the doorbell knows of the window, to look at no more than that.
    """
    changed: dict[UserNid, None] = {}
    if rung is None or device_lists.CHANGES in rung:
        found = device_lists.changed_since(tx, me, since, now)
        changed.update(dict.fromkeys(found))
        changed.update(dict.fromkeys(keys.signed_since(tx, me, since, now)))
    gone: list[UserNid] = []
    if rung is None or members.CHANGES in rung:
        come, gone = Sharing(tx, me, since, now).changes(rung)
        changed.update(dict.fromkeys(come))
    if not changed and not gone:
        return None
    left = [user for user in gone if user not in changed]
    return {
        "changed": [names.user_id(tx, user) for user in changed],
        "left": [names.user_id(tx, user) for user in left],
    }
