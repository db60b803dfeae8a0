"""What the Rust SDK calls back, from threads of its own."""
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import matrix_sdk_python as sdk

Said = dict[str, Any]

FEW_TURNS_S = 0.02


def following(loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> Callable[[], None]:
    """The same call, for threads that are not the loop's."""
    return lambda: void(loop.call_soon_threadsafe(changed))


def void(_: object) -> None:
    """Nothing."""


def changed_by(diffs: list[Any], old: list[Any]) -> list[Any]:
    """A list after the changes that the SDK made to its own; others may be reading the old one."""
    items = list(old)
    for diff in diffs:
        if diff.is_APPEND():
            items.extend(diff.values)
        elif diff.is_CLEAR():
            items.clear()
        elif diff.is_PUSH_FRONT():
            items.insert(0, diff.value)
        elif diff.is_PUSH_BACK():
            items.append(diff.value)
        elif diff.is_POP_FRONT():
            del items[0]
        elif diff.is_POP_BACK():
            del items[-1]
        elif diff.is_INSERT():
            items.insert(diff.index, diff.value)
        elif diff.is_SET():
            items[diff.index] = diff.value
        elif diff.is_REMOVE():
            del items[diff.index]
        elif diff.is_TRUNCATE():
            del items[diff.length :]
        else:
            assert diff.is_RESET(), diff
            items[:] = diff.values
    return items


class Entries(sdk.RoomListEntriesListener):  # type: ignore[misc]
    """The room list."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.rooms: list[Any] = []

    def on_update(self, room_entries_update: list[Any]) -> None:
        self.rooms = changed_by(room_entries_update, self.rooms)
        self.changed()


class TimelineItems(sdk.TimelineListener):  # type: ignore[misc]
    """A room's timeline: events, and what stands between them."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.items: list[Any] = []
        self.was_doubled = False

    def on_update(self, diff: list[Any]) -> None:
        self.items = changed_by(diff, self.items)
        ids = [event.event_or_transaction_id.event_id for event in self._events()]
        self.was_doubled |= len(set(ids)) < len(ids)
        self.changed()

    def event(self, event_id: str) -> Any:
        for event in self._events():
            if event.event_or_transaction_id.event_id == event_id:
                return event
        return None

    def _events(self) -> Iterator[Any]:
        for item in self.items:
            event = item.as_event()
            if event is not None and event.event_or_transaction_id.is_EVENT_ID():
                yield event


class States:
    """How things stand, as the SDK told last."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.known: dict[str, Any] = {}
        self.undecryptable: list[Said] = []
        self.signed_out = False
        self._tell = changed
        self._turn = asyncio.Event()

    def changed(self) -> None:
        self._tell()
        self.loop.call_soon_threadsafe(self._next_turn)

    def _next_turn(self) -> None:
        self._turn.set()
        self._turn = asyncio.Event()

    async def until(self, what: str, wanted: Callable[[Any], Any]) -> None:
        while what not in self.known or not wanted(self.known[what]):
            await self._turn.wait()

    def shown(self, what: str) -> str | bool | None:
        if what == "signed_out":
            return self.signed_out
        found = self.known.get(what)
        return getattr(found, "name", None) if found is not None else None

    def of(self, what: str) -> Any:
        return Told(self, what)

    def of_client(self) -> Any:
        return OfClient(self)

    def of_undecryptable(self) -> Any:
        return OfUndecryptable(self)

    def of_queue(self) -> Queue:
        return Queue(self.loop)


class Told:
    """Listens to one state."""

    def __init__(self, states: States, what: str) -> None:
        self.states, self.what = states, what

    def on_update(self, state: Any) -> None:
        self.states.known[self.what] = state
        self.states.changed()


class OfClient(sdk.ClientDelegate):  # type: ignore[misc]
    """Hears that the session is over."""

    def __init__(self, states: States) -> None:
        self.states = states

    def did_receive_auth_error(self, is_soft_logout: bool) -> None:
        self.states.signed_out = True
        self.states.changed()

    def on_background_task_error_report(self, task_name: str, error: Any) -> None:
        print(f"background task {task_name} failed: {error}", flush=True)


class OfUndecryptable(sdk.UnableToDecryptDelegate):  # type: ignore[misc]
    """Hears of messages that stayed undecryptable, or were so for long."""

    def __init__(self, states: States) -> None:
        self.states = states

    def on_utd(self, info: Any) -> None:
        late = info.time_to_decrypt_ms
        self.states.undecryptable.append(
            {"event": info.event_id, "cause": info.cause.name, "decrypted_after_ms": late}
        )
        self.states.changed()


class Queue(sdk.SendQueueListener):  # type: ignore[misc]
    """Follows one message through the send queue of its room."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_expecting = False
        self.mine: str | None = None
        self.done: asyncio.Future[str] = loop.create_future()

    def on_update(self, update: Any) -> None:
        self.loop.call_soon_threadsafe(self._heard, update)

    def _heard(self, update: Any) -> None:
        if update.is_NEW_LOCAL_EVENT():
            if self.is_expecting and self.mine is None:
                self.mine = update.transaction_id
        elif self.done.done() or getattr(update, "transaction_id", None) != self.mine:
            return
        elif update.is_SENT_EVENT():
            self.done.set_result(update.event_id)
        elif update.is_SEND_ERROR():
            kind = "try again" if update.is_recoverable else "given up"
            self.done.set_exception(RuntimeError(f"not sent ({kind}): {update.error}"))

    async def expect(self) -> None:
        """The next message is the one; what waits already has been told of by now."""
        await asyncio.sleep(FEW_TURNS_S)
        self.is_expecting = True

    async def sent(self) -> str:
        """The event's id, once the server has told it."""
        return await self.done


class Verifications(sdk.SessionVerificationControllerDelegate):  # type: ignore[misc]
    """A verification under way, and what the screen shows of it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.controller: Any = None
        self.sender: str | None = None
        self.flow: str | None = None
        self.phase: str | None = None
        self.emoji: list[str] | None = None
        self.done: str | None = None

    def begin(self, user: str) -> None:
        self.sender, self.flow, self.phase = user, None, "Requested"
        self.emoji = self.done = None

    async def accept(self) -> None:
        await self.controller.acknowledge_verification_request(self.sender, self.flow)
        await self.controller.accept_verification_request()

    def shown(self) -> Said:
        return {
            "from": self.sender,
            "phase": self.phase,
            "emoji": self.emoji,
            "done": self.done,
        }

    def did_receive_verification_request(self, details: Any) -> None:
        self.begin(details.sender_profile.user_id)
        self.flow = details.flow_id
        self.changed()

    def did_accept_verification_request(self) -> None:
        self.phase = "Ready"
        self.changed()

    def did_start_sas_verification(self) -> None:
        self.phase = "Started"
        self.changed()

    def did_receive_verification_data(self, data: Any) -> None:
        assert data.is_EMOJIS(), data
        self.emoji = [emoji.symbol() for emoji in data.emojis]
        self.changed()

    def did_fail(self) -> None:
        self.done = "failed"
        self.changed()

    def did_cancel(self) -> None:
        self.done = "cancelled"
        self.changed()

    def did_finish(self) -> None:
        self.done = "verified"
        self.changed()
