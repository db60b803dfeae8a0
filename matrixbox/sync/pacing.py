"""How soon a device is told of what happened (T084).

Messages, and all that concerns the user alone, are told at once, and take with them whatever else
is new.  Who types waits a moment for such company, and so do to-device messages where one answer
holds both; receipts and presence wait longer where the device has just been answered.  So a message
that somebody typed, sent keys for, said and marked as read is one answer to each device and not
four: on a phone each wakes the radio.
"""

from __future__ import annotations

import trio

from matrixbox.rooms.typing import Typing
from matrixbox.store.changes import Doorbell, StreamPos
from matrixbox.sync.listening import Keys

COMPANY_S = 0.1
"""How long news wait for company: keys are followed by a message, and so is typing."""

CALM_S = 0.5
"""Receipts and presence come no sooner than this after the device's last answer."""

LONG_AGO = float("-inf")


def was_long_ago(answered: float) -> bool:
    """Whether a device that was answered then may be told of everything."""
    return trio.current_time() >= answered + CALM_S


async def wait_for_news(
    doorbell: Doorbell,
    typing: Typing,
    since: StreamPos,
    serial: int,
    keys: Keys,
    *,
    answered: float,
    is_new: bool,
    letters_wait: bool,
) -> None:
    """Wait until a device that knows all up to ``since`` and ``serial`` is to be told of more.

    ``answered`` is when it was answered last, in Trio's time; ``is_new`` says whether there is
    something already; ``letters_wait`` whether to-device messages wait for what they belong to.
    May return without news.
    """
    due = answered + CALM_S
    if not is_new:
        await doorbell.beyond(since, keys.all)
        due = max(due, trio.current_time() + COMPANY_S)
    elif was_long_ago(answered):
        return  # a device that comes back waits for nothing
    is_soon, urgent = False, keys.urgent if letters_wait else keys.soon
    while not doorbell.has_news(since, urgent):
        if not is_soon and (
            doorbell.has_news(since, keys.inbox) or typing.any_changed_since(keys.all, serial)
        ):
            is_soon, due = True, trio.current_time() + COMPANY_S
        with trio.move_on_at(due) as waiting:
            await doorbell.beyond(doorbell.position, keys.soon)
        if waiting.cancelled_caught:
            return
