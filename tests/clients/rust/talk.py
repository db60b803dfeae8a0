"""The Rust SDK as the tests' client, used as Element X uses it; see ../conversation.py.

Started with the folder of the SDK and the socket's path. A client here is an app on a phone: its
rooms come from the room list service over sliding sync, a second connection carries what concerns
encryption, a room that is looked at is subscribed to and has a timeline, messages go through the
send queue, and the databases lie in a folder from which the app starts again.
"""
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import math
import sys
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(Path(__file__).resolve().parents[3])]

import matrix_sdk_python as sdk
from matrix_sdk_python._generated import matrix_sdk, matrix_sdk_crypto

from tests.clients.obeying import Said, Vocabulary, take_orders
from tests.clients.rust.listeners import Entries, States, TimelineItems, Verifications, following
from tests.clients.rust.shown import shown, shown_room

PAGE = 200
SENT_WITHIN_S = 35
TICK_S = 0.5
TRIES = 4
HURRY_EVERY_S = 0.3
HURRY_AFTER_IT_S = 5.0


class Talker:
    """The app on somebody's phone."""

    def __init__(self, base_url: str, changed: Callable[[], None]) -> None:
        self.base_url = base_url
        self.loop = asyncio.get_running_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="rust-sdk-")
        self.states = States(following(self.loop, changed))
        self.entries = Entries(self.states.changed)
        self.verifications = Verifications(self.states.changed)
        self.timelines: dict[str, tuple[Any, TimelineItems]] = {}
        self.sending: dict[str, asyncio.Lock] = {}
        self.kept: list[Any] = []  # tasks of the SDK, which end when nobody holds them
        self.session: Any = None
        self.client: Any = None
        self.service: Any = None
        self.hurrying: asyncio.Task[None] | None = None
        self.ticking = asyncio.create_task(self.tick(changed))

    async def tick(self, changed: Callable[[], None]) -> None:
        """Of some changes, as of the trust in somebody, the SDK tells nobody."""
        while True:
            await asyncio.sleep(TICK_S)
            changed()

    async def build(self) -> None:
        data, cache = Path(self.folder.name, "data"), Path(self.folder.name, "cache")
        self.client = await (
            sdk.ClientBuilder()
            .homeserver_url(self.base_url)
            .sqlite_store(sdk.SqliteStoreBuilder(str(data), str(cache)))
            .cross_process_lock_config(sdk.CrossProcessLockConfig.SINGLE_PROCESS())
            .sliding_sync_version_builder(sdk.SlidingSyncVersionBuilder.DISCOVER_NATIVE)
            .auto_enable_cross_signing(True)
            .auto_enable_backups(True)
            .backup_download_strategy(matrix_sdk.BackupDownloadStrategy.AFTER_DECRYPTION_FAILURE)
            .room_key_recipient_strategy(
                matrix_sdk_crypto.CollectStrategy.ERROR_ON_VERIFIED_USER_PROBLEM
            )
            .user_agent("tests")
            .build()
        )
        self.kept.append(self.client.set_delegate(self.states.of_client()))
        await self.client.set_utd_delegate(self.states.of_undecryptable())

    async def open(self) -> None:
        """What the app does when it comes to the front."""
        encryption = self.client.encryption()
        await encryption.wait_for_e2ee_initialization_tasks()
        for listen, listener in (
            (encryption.verification_state_listener, self.states.of("verification")),
            (encryption.recovery_state_listener, self.states.of("recovery")),
            (encryption.backup_state_listener, self.states.of("backup")),
        ):
            self.kept.append(listen(listener))
        self.service = await self.client.sync_service().with_offline_mode().finish()
        self.kept.append(self.service.state(self.states.of("sync")))
        rooms = await self.service.room_list_service().all_rooms()
        self.kept.append(rooms)
        self.states.known.pop("loading", None)  # an app that was here before has left it
        loading = rooms.loading_state(self.states.of("loading"))
        self.states.known.setdefault("loading", loading.state)
        self.kept.append(loading)
        found = rooms.entries_with_dynamic_adapters(PAGE, self.entries)
        found.controller().set_filter(sdk.RoomListEntriesDynamicFilterKind.ALL([]))
        self.kept += [found, found.entries_stream(), found.controller()]
        await self.service.start()
        await self.states.until("loading", lambda state: state.is_LOADED())
        controller = await self.client.get_session_verification_controller()
        controller.set_delegate(self.verifications)
        self.verifications.controller = controller

    async def timeline(self, room_id: str) -> tuple[Any, TimelineItems]:
        """The room's timeline, opened at the first look."""
        if room_id not in self.timelines:
            room = self.room(room_id)
            items = TimelineItems(self.states.changed)
            await self.service.room_list_service().subscribe_to_rooms([room_id])
            timeline = await room.timeline()
            self.kept.append(await timeline.add_listener(items))
            self.timelines.setdefault(room_id, (timeline, items))
        return self.timelines[room_id]

    async def looked_at_again(self, room_id: str) -> TimelineItems:
        """The items of the room's timeline, opened anew if the SDK began it wrongly.

        The SDK first subscribes to changes of what it has stored of a room, and then reads what is
        stored: a change between the two is applied twice, whatever the server sent.
        """
        _, items = await self.timeline(room_id)
        for _ in range(TRIES):
            if not items.was_doubled:
                break
            if self.timelines[room_id][1] is items:
                del self.timelines[room_id]
            _, items = await self.timeline(room_id)
        return items

    def room(self, room_id: str) -> Any:
        room = self.client.get_room(room_id)
        if room is None:
            raise KeyError(f"{room_id} is not known here")
        return room

    def hurry(self) -> None:
        """Have what a verification answers sent at once, until nothing follows any more.

        The SDK sends it when it next asks about encryption. A step that came in a room does not end
        the question under way, with any server: the emoji took 28 s with Synapse. A message from
        the device to itself ends it.
        """
        if self.hurrying is None or self.hurrying.done():
            self.hurrying = asyncio.create_task(self._hurry())

    async def _hurry(self) -> None:
        session, number = self.client.session(), 0
        body = {"messages": {session.user_id: {session.device_id: {"hurry": True}}}}
        over_at = math.inf
        while self.loop.time() < over_at:
            if self.verifications.done is not None and over_at == math.inf:
                over_at = self.loop.time() + HURRY_AFTER_IT_S
            number += 1
            path = f"/_matrix/client/v3/sendToDevice/test.hurry/{id(self)}-{number}"
            await self.http("PUT", path, body, session.access_token)
            await asyncio.sleep(HURRY_EVERY_S)

    async def http(self, method: str, path: str, body: Said, token: str | None = None) -> None:
        """What the app leaves to a browser, or does not do at all."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(
            self.base_url + path, json.dumps(body).encode(), headers, method=method
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())

    async def close(self) -> None:
        """Put the app away; its databases stay."""
        if self.hurrying is not None:
            self.hurrying.cancel()
        if self.service is not None:
            await self.service.stop()
        self.timelines.clear()
        self.kept.clear()
        self.client = self.service = None


# What clients can be told to do.


async def register(talker: Talker, user: str, password: str) -> Said:
    """Element X leaves this to a web page."""
    body = {"username": user, "password": password, "inhibit_login": True}
    body |= {"auth": {"type": "m.login.dummy"}}
    await talker.http("POST", "/_matrix/client/v3/register", body)
    return await login(talker, user, password)


async def login(talker: Talker, user: str, password: str) -> Said:
    await talker.build()
    await talker.client.login(user, password, "a phone", None)
    return {"user_id": talker.client.user_id(), "device_id": talker.client.device_id()}


async def logout(talker: Talker) -> None:
    await talker.service.stop()
    await talker.client.logout()


async def start(talker: Talker, encryption: bool = True) -> None:
    await talker.open()


async def pause(talker: Talker) -> None:
    """The app goes to the background."""
    await talker.service.stop()


async def resume(talker: Talker) -> None:
    """The app comes back, or the phone has a network again."""
    await talker.service.start()
    await talker.client.enable_all_send_queues(True)


async def restart(talker: Talker) -> None:
    """The app is ended, and started again from its databases.

    Not in the midst of a sending: what is left of the old app would then use them at the same time.
    """
    async with contextlib.AsyncExitStack() as stack:
        for lock in talker.sending.values():
            await stack.enter_async_context(lock)
        session = talker.client.session()
        await talker.close()
        gc.collect()
        talker.entries = Entries(talker.states.changed)
        await talker.build()
        await talker.client.restore_session(session)
        await talker.open()


async def create_room(talker: Talker, options: Said) -> str:
    kinds = {event["type"] for event in options.get("initial_state", ())}
    wanted = sdk.CreateRoomParameters(
        name=options.get("name"),
        topic=options.get("topic"),
        is_encrypted="m.room.encryption" in kinds,
        is_direct=options.get("is_direct", False),
        visibility=sdk.RoomVisibility.PRIVATE(),
        preset=getattr(sdk.RoomPreset, options.get("preset", "private_chat").upper()),
        invite=options.get("invite"),
    )
    room_id = await talker.client.create_room(wanted)
    await talker.client.await_room_remote_echo(room_id)
    return str(room_id)


async def invite(talker: Talker, room: str, user: str) -> None:
    await talker.room(room).invite_user_by_id(user)


async def join(talker: Talker, room: str) -> str:
    await talker.room(room).join()
    return room


async def leave(talker: Talker, room: str) -> None:
    await talker.room(room).leave()


async def kick(talker: Talker, room: str, user: str, reason: str | None = None) -> None:
    await talker.room(room).kick_user(user, reason)


async def set_state(talker: Talker, room: str, type: str, content: Said, key: str = "") -> str:
    return str(await talker.room(room).send_state_event_raw(type, key, json.dumps(content)))


async def send(talker: Talker, room: str, content: Said) -> str:
    """Through the send queue; returns when the server has the message."""
    message = sdk.MessageType.TEXT(sdk.TextMessageContent(body=content["body"], formatted=None))
    async with talker.sending.setdefault(room, asyncio.Lock()):
        timeline, _ = await talker.timeline(room)
        queue = talker.states.of_queue()
        task = await talker.room(room).subscribe_to_send_queue_updates(queue)
        try:
            await queue.expect()
            await timeline.send(sdk.message_event_content_new(message))
            async with asyncio.timeout(SENT_WITHIN_S):
                return await queue.sent()
        finally:
            task.cancel()


async def receipt(talker: Talker, room: str, event: str) -> None:
    timeline, _ = await talker.timeline(room)
    await timeline.send_read_receipt(sdk.ReceiptType.READ, event)


async def typing(talker: Talker, room: str, on: bool) -> None:
    await talker.room(room).typing_notice(on)


async def back(talker: Talker, room: str, limit: int) -> bool:
    timeline, _ = await talker.timeline(room)
    return not await timeline.paginate_backwards(limit)


async def fetch(talker: Talker, room: str, event: str) -> str | None:
    """The text of one event, from the server if need be; None if it cannot be decrypted."""
    found = (await talker.room(room).load_or_fetch_event(event)).content()
    if not (found.is_MESSAGE_LIKE() and found.content.is_ROOM_MESSAGE()):
        return None
    text = found.content.message_type
    return str(text.content.body) if text.is_TEXT() else None


async def rooms(talker: Talker) -> list[str]:
    """The room list from its top."""
    return [room.id() for room in talker.entries.rooms]


async def view(talker: Talker, room: str) -> Said | None:
    known = talker.client.get_room(room)
    if known is None:
        return None
    found = shown_room(await known.room_info())
    if found["membership"] == "join":
        items = await talker.looked_at_again(room)
        found["timeline"] = shown(items.items)
    return found


async def state(talker: Talker, of: str) -> str | bool | None:
    """How something stands: sync, verification, recovery, backup, signed_out."""
    return talker.states.shown(of)


async def undecryptable(talker: Talker) -> list[Said]:
    """What the app told its makers that it could not decrypt."""
    return talker.states.undecryptable


async def set_up_recovery(talker: Talker, password: str) -> str:
    """Cross-signing is there since the sign-in; this makes secret storage and its key."""

    class Progress(sdk.EnableRecoveryProgressListener):  # type: ignore[misc]
        def on_update(self, status: Any) -> None:
            talker.states.changed()

    return str(await talker.client.encryption().enable_recovery(True, None, Progress()))


async def recover(talker: Talker, key: str) -> None:
    """A new device: the person types the recovery key."""
    await talker.client.encryption().recover(key)


async def backed_up(talker: Talker) -> None:
    """Wait until the backup has all keys that are here."""
    await talker.client.encryption().wait_for_backup_upload_steady_state(None)


async def reset_identity(talker: Talker, password: str | None) -> None:
    handle = await talker.client.encryption().reset_identity()
    auth = None
    if password is not None:
        user = talker.client.user_id()
        details = sdk.AuthDataPasswordDetails(identifier=user, password=password)
        auth = sdk.AuthData.PASSWORD(details)
    await handle.reset(auth)


async def trust(talker: Talker, user: str) -> Said:
    identity = await talker.client.encryption().user_identity(user, True)
    if identity is None:
        return {"known": False, "user": False, "changed": False}
    changed = identity.has_verification_violation()
    return {"known": True, "user": identity.is_verified(), "changed": changed}


async def shield(talker: Talker, room: str, event: str) -> Said | None:
    """How the event is marked: as encryption.mjs says it."""
    _, items = await talker.timeline(room)
    found = items.event(event)
    if found is None:
        return None
    mark = found.lazy_provider.get_shields(False)
    if mark is None or mark.is_NONE():
        return {"colour": 0, "reason": None}
    return {"colour": 2 if mark.is_RED() else 1, "reason": mark.code.name}


async def can_be_verified(talker: Talker) -> bool:
    """Whether there is a device of one's own to ask."""
    return bool(await talker.client.encryption().has_devices_to_verify_against())


async def ask_to_verify(talker: Talker, user: str, **where: str) -> None:
    """Another device of one's own, or somebody else in the room that is for the two."""
    controller = talker.verifications.controller
    talker.verifications.begin(user)
    talker.hurry()
    if user == talker.client.user_id():
        await controller.request_device_verification()
    else:
        await controller.request_user_verification(user)


async def accept_verification(talker: Talker) -> None:
    await talker.verifications.accept()
    talker.hurry()


async def start_sas(talker: Talker) -> None:
    await talker.verifications.controller.start_sas_verification()


async def confirm_sas(talker: Talker) -> None:
    await talker.verifications.controller.approve_verification()


async def verification(talker: Talker) -> Said:
    return talker.verifications.shown()


COMMANDS: dict[str, Callable[..., Awaitable[Any]]] = {
    command.__name__: command
    for command in (
        *(register, login, logout, start, pause, resume, restart, state, undecryptable),
        *(create_room, invite, join, leave, kick, set_state),
        *(send, receipt, typing, back, fetch, rooms, view),
        *(set_up_recovery, recover, backed_up, reset_identity, trust, shield),
        *(
            can_be_verified,
            ask_to_verify,
            accept_verification,
            start_sas,
            confirm_sas,
            verification,
        ),
    )
}


def refusal(error: Exception) -> Said | None:
    """What the server said."""
    if not isinstance(error, sdk.ClientError.MatrixApi):
        return None
    return {"errcode": error.code, "status": None, "text": str(error.msg)}


async def close(talker: Talker) -> None:
    """End a client."""
    talker.ticking.cancel()
    with contextlib.suppress(sdk.ClientError):  # the server may be gone
        await talker.close()


async def main(path: str) -> None:
    """Listen until the process is ended."""
    logging.basicConfig(level=logging.WARNING)
    tracing = sdk.TracingConfiguration(
        log_level=sdk.LogLevel.WARN,
        trace_log_packs=[],
        extra_targets=[],
        write_to_stdout_or_system=False,
        write_to_files=None,
        sentry_config=None,
    )
    sdk.init_platform(tracing, use_lightweight_tokio_runtime=True)
    new = lambda said, changed: Talker(said["base_url"], changed)  # noqa: E731
    await take_orders(path, Vocabulary(new, COMMANDS, close, refusal))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[2]))
