"""matrix-nio as the tests' client: does what it is told over a Unix socket, tells what it sees.

Started with the socket's path. One JSON object a line; the vocabulary is described in
conversation.py. The library needs asyncio, so this program is a process of its own.
"""
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nio
from nio.crypto.sas import SasState

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.clients.obeying import Changed, Said, Vocabulary, take_orders

# Our own mistakes would otherwise be repeated by the library for minutes.
CONFIG = nio.AsyncClientConfig(
    encryption_enabled=False,
    request_timeout=40,
    backoff_factor=0.1,
    max_timeout_retry_wait_time=0.5,
)
ENCRYPTED = nio.AsyncClientConfig(
    encryption_enabled=True,
    store=nio.store.SqliteMemoryStore,
    request_timeout=40,
    backoff_factor=0.1,
    max_timeout_retry_wait_time=0.5,
)
POLL_MS = 10_000


class Failed(Exception):
    """The library gave an error for an answer."""

    def __init__(self, answer: nio.ErrorResponse) -> None:
        super().__init__(str(answer))
        self.answer = answer


class Recorded(nio.AsyncClient):
    """The library's client, which also remembers what it asked the server."""

    calls: list[tuple[str, str, int]]
    letters: list[tuple[str, str, str | None, str, float]] | None = None

    async def send(self, method: str, path: str, *rest: Any, **more: Any) -> Any:
        try:
            answer = await super().send(method, path, *rest, **more)
        except Exception:
            if self.letters is not None and urlsplit(path).path.endswith("/keys/claim"):
                for user, asked in json.loads(rest[0])["one_time_keys"].items():
                    self.witnessed("unanswered", user, asked)
            raise
        self.calls.append((method, urlsplit(path).path, answer.status))
        if self.letters is not None and answer.status == 200:
            await self.witness(urlsplit(path).path, rest, answer)
        return answer

    async def witness(self, path: str, rest: tuple[Any, ...], answer: Any) -> None:
        """Remember encrypted messages between devices, and one-time keys not to be had."""
        if "/sendToDevice/m.room.encrypted/" in path:
            for user, devices in json.loads(rest[0])["messages"].items():
                for device, content in devices.items():
                    self.witnessed("sent", user, [device], end(content))
        elif path.endswith("/keys/claim"):
            told = await answer.json()
            given, failures = told.get("one_time_keys", {}), told.get("failures", {})
            for user, asked in json.loads(rest[0])["one_time_keys"].items():
                what = "unreachable" if user.partition(":")[2] in failures else "refused"
                self.witnessed(what, user, asked.keys() - given.get(user, {}).keys())
        elif path.endswith("/sync"):
            for event in (await answer.json()).get("to_device", {}).get("events", ()):
                if event["type"] == "m.room.encrypted":
                    self.witnessed("received", event["sender"], [None], end(event["content"]))

    def witnessed(
        self, what: str, user: str, devices: Iterable[str | None], which: str = ""
    ) -> None:
        """Remember one of these."""
        assert self.letters is not None
        self.letters += [(what, user, device, which, time.time()) for device in devices]


def end(content: Said) -> str:
    """What tells an Olm message from others: its last bytes are a signature."""
    ciphertexts = content.get("ciphertext", {}).values()
    return str(next(iter(ciphertexts))["body"][-43:]) if ciphertexts else ""


class Talker:
    """A user's device."""

    def __init__(
        self,
        base_url: str,
        changed: Callable[[], None],
        encryption: bool = False,
    ) -> None:
        self.base_url = base_url
        self.config = ENCRYPTED if encryption else CONFIG
        self.changed = changed
        self.timelines: dict[str, list[nio.Event]] = {}
        self.earlier: dict[str, str | None] = {}
        self.unknown_account_data: dict[str, Any] = {}
        self.memberships: dict[str, str] = {}
        self.private_receipts: dict[str, dict[str, str]] = {}
        self.filter: str | dict[str, Any] | None = None
        self.syncing: asyncio.Task[None] | None = None
        self.sas: Any = None
        self.client = self.make("")

    def make(self, user: str) -> Recorded:
        # The folder is not used by a store in memory, but without one there is none.
        folder = tempfile.gettempdir() if self.config is ENCRYPTED else ""
        client = Recorded(self.base_url, user, store_path=folder, config=self.config)
        client.calls = []
        client.add_response_callback(self.on_sync, nio.SyncResponse)
        client.add_ephemeral_callback(self.on_receipt, nio.ReceiptEvent)
        client.add_global_account_data_callback(self.on_account_data, nio.AccountDataEvent)
        client.add_to_device_callback(self.on_verification, nio.KeyVerificationEvent)
        return client

    async def on_verification(self, event: nio.KeyVerificationEvent) -> None:
        self.sas = self.client.key_verifications.get(event.transaction_id, self.sas)
        self.changed()

    async def on_sync(self, answer: nio.SyncResponse) -> None:
        for room_id, info in answer.rooms.join.items():
            self.memberships[room_id] = "join"
            await self.add(room_id, info.timeline)
        for room_id, left in answer.rooms.leave.items():
            self.memberships[room_id] = "leave"
            await self.add(room_id, left.timeline)
        for room_id in answer.rooms.invite:
            self.memberships[room_id] = "invite"
        self.changed()

    async def add(self, room_id: str, timeline: nio.Timeline) -> None:
        """Join what came to what is known, and fetch what lies between."""
        known = self.timelines.setdefault(room_id, [])
        if not known:
            self.earlier[room_id] = timeline.prev_batch
        events = timeline.events
        if known and timeline.limited:
            names = [event.event_id for event in events]
            if known[-1].event_id in names:  # who comes back gets the timeline anew
                events = events[names.index(known[-1].event_id) + 1 :]
            else:
                known += await self.missed(room_id, timeline.prev_batch, known[-1].event_id)
        known += events

    def decrypted(self, room_id: str) -> list[nio.Event]:
        """The timeline; what came before its key is tried again."""
        known = self.timelines.get(room_id, [])
        for number, event in enumerate(known):
            if isinstance(event, nio.MegolmEvent):
                with contextlib.suppress(nio.EncryptionError):
                    known[number] = self.client.decrypt_event(event)
        return known

    async def missed(self, room_id: str, token: str | None, until: str) -> list[nio.Event]:
        found: list[nio.Event] = []
        while token is not None:
            answer = checked(await self.client.room_messages(room_id, token, limit=7))
            for event in answer.chunk:
                if event.event_id == until:
                    return found[::-1]
                found.append(event)
            token = answer.end
        raise AssertionError(f"{until} does not come before the gap")

    async def on_receipt(self, room: nio.MatrixRoom, event: nio.ReceiptEvent) -> None:
        for receipt in event.receipts:
            if receipt.receipt_type == "m.read.private":
                self.private_receipts.setdefault(room.room_id, {})[receipt.user_id] = (
                    receipt.event_id
                )

    async def on_account_data(self, event: nio.AccountDataEvent) -> None:
        if isinstance(event, nio.UnknownAccountDataEvent):
            self.unknown_account_data[event.type] = event.content
        elif isinstance(event, nio.PushRulesEvent):
            self.unknown_account_data["m.push_rules"] = shown_rules(event)

    async def sync_on(self) -> None:
        await self.client.sync_forever(timeout=POLL_MS, sync_filter=self.filter)

    async def stop(self) -> None:
        if self.syncing is not None:
            self.syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.syncing
            self.syncing = None

    async def close(self) -> None:
        await self.stop()
        await self.client.close()


def checked(answer: Any) -> Any:
    """The library's answer; Failed where it is an error."""
    if isinstance(answer, nio.ErrorResponse):
        raise Failed(answer)
    return answer


# What clients can be told to do: each gets the talker and what else was said.


async def register(talker: Talker, user: str, password: str, token: str | None = None) -> Said:
    if token is None:
        answer = await talker.client.register(user, password)
    else:
        answer = await talker.client.register_with_token(user, password, token)
    checked(answer)
    return {"user_id": answer.user_id, "device_id": answer.device_id}


async def login(talker: Talker, user: str, password: str) -> Said:
    await talker.client.close()
    talker.client = talker.make(user)
    answer = checked(await talker.client.login(password))
    return {"user_id": answer.user_id, "device_id": answer.device_id}


async def logout(talker: Talker) -> None:
    await talker.stop()
    checked(await talker.client.logout())


async def start(
    talker: Talker,
    lazy: bool = False,
    limit: int = 20,
    threads: bool = False,
    left: bool = False,
    encryption: bool = False,
) -> None:
    if encryption:
        checked(await talker.client.keys_upload())
    room: Said = {"timeline": {"limit": limit}, "include_leave": left}
    if threads:
        room["timeline"]["unread_thread_notifications"] = True
    if lazy:
        room["state"] = {"lazy_load_members": True}
    talker.filter = checked(await talker.client.upload_filter(room=room)).filter_id
    await resume(talker)


async def resume(talker: Talker) -> None:
    first = checked(await talker.client.sync(timeout=0, sync_filter=talker.filter))
    await talker.on_sync(first)  # the library calls it for later ones only
    talker.syncing = asyncio.create_task(talker.sync_on())


async def pause(talker: Talker) -> None:
    await talker.stop()


async def calls(talker: Talker) -> list[Any]:
    made, talker.client.calls = talker.client.calls, []
    return list(made)


async def letters(talker: Talker) -> list[Any]:
    """Encrypted messages between devices since the last call; the first call begins to record."""
    found, talker.client.letters = talker.client.letters or [], []
    return found


async def create_room(talker: Talker, options: Said) -> str:
    """With the names of the specification; the library has its own for some."""
    options = dict(options)
    preset, visibility = options.pop("preset", None), options.pop("visibility", "private")
    creation = options.pop("creation_content", {})
    answer = await talker.client.room_create(
        preset=preset and nio.RoomPreset(preset),
        visibility=nio.RoomVisibility(visibility),
        alias=options.pop("room_alias_name", None),
        power_level_override=options.pop("power_level_content_override", None),
        room_type=creation.get("type"),
        **options,
    )
    return str(checked(answer).room_id)


async def invite(talker: Talker, room: str, user: str) -> None:
    checked(await talker.client.room_invite(room, user))


async def join(talker: Talker, room: str) -> str:
    return str(checked(await talker.client.join(room)).room_id)


async def knock(talker: Talker, room: str, reason: str) -> str:
    return str(checked(await talker.client.room_knock(room, reason)).room_id)


async def leave(talker: Talker, room: str) -> None:
    checked(await talker.client.room_leave(room))


async def forget(talker: Talker, room: str) -> None:
    checked(await talker.client.room_forget(room))
    talker.memberships.pop(room, None)


async def kick(talker: Talker, room: str, user: str, reason: str | None = None) -> None:
    checked(await talker.client.room_kick(room, user, reason))


async def ban(talker: Talker, room: str, user: str, reason: str | None = None) -> None:
    checked(await talker.client.room_ban(room, user, reason))


async def unban(talker: Talker, room: str, user: str) -> None:
    checked(await talker.client.room_unban(room, user))


async def upgrade(talker: Talker, room: str, version: str) -> str:
    """This library makes the new room, and writes the tombstone, by itself."""
    return str(checked(await talker.client.room_upgrade(room, version)).room_id)


async def set_state(talker: Talker, room: str, type: str, content: Said, key: str = "") -> str:
    return str(checked(await talker.client.room_put_state(room, type, content, key)).event_id)


async def send(
    talker: Talker,
    room: str,
    content: Said,
    type: str = "m.room.message",
    txn: str | None = None,
    strict: bool = False,
) -> str:
    """Also to devices that the person has not verified, unless they want to be asked (`strict`)."""
    sent = await talker.client.room_send(
        room, type, content, txn, ignore_unverified_devices=not strict
    )
    return str(checked(sent).event_id)


async def say_in_thread(talker: Talker, room: str, root: str, body: str) -> str:
    relation = {"rel_type": "m.thread", "event_id": root, "is_falling_back": True}
    relation["m.in_reply_to"] = {"event_id": root}
    return await send(talker, room, {"msgtype": "m.text", "body": body, "m.relates_to": relation})


async def redact(talker: Talker, room: str, event: str, reason: str | None = None) -> str:
    return str(checked(await talker.client.room_redact(room, event, reason)).event_id)


async def receipt(
    talker: Talker,
    room: str,
    event: str,
    type: str = "m.read",
    unthreaded: bool = False,
    thread: str = "main",
) -> None:
    kind, where = nio.ReceiptType(type), None if unthreaded else thread
    checked(await talker.client.update_receipt_marker(room, event, kind, where))


async def read_markers(
    talker: Talker, room: str, fully: str, read: str | None = None, hidden: str | None = None
) -> None:
    checked(await talker.client.room_read_markers(room, fully, read, hidden))


async def typing(talker: Talker, room: str, on: bool) -> None:
    checked(await talker.client.room_typing(room, on, 20_000))


async def back(talker: Talker, room: str, limit: int) -> bool:
    token = talker.earlier[room]
    if token is None:
        return False
    answer = checked(await talker.client.room_messages(room, token, limit=limit))
    talker.timelines[room][:0] = answer.chunk[::-1]
    talker.earlier[room] = answer.end
    return answer.end is not None


async def around(talker: Talker, room: str, event: str, limit: int) -> Said:
    answer = checked(await talker.client.room_context(room, event, limit=limit))
    before, after = answer.events_before[::-1], answer.events_after
    ways = ((nio.MessageDirection.back, answer.start), (nio.MessageDirection.front, answer.end))
    for way, token in ways:
        while token is not None:
            page = checked(
                await talker.client.room_messages(room, token, direction=way, limit=limit)
            )
            if way is nio.MessageDirection.back:
                before[:0] = page.chunk[::-1]
            else:
                after += page.chunk
            token = page.end if page.chunk else None
    return {"found": True, "events": shown_all([*before, answer.event, *after])}


async def load_members(talker: Talker, room: str) -> list[str]:
    return [member.user_id for member in checked(await talker.client.joined_members(room)).members]


async def thread_list(talker: Talker, room: str) -> list[str]:
    return [event.event_id async for event in talker.client.room_get_threads(room, limit=1)]


async def fill_thread(talker: Talker, room: str, root: str, limit: int) -> list[Said]:
    kind = nio.api.RelationshipType.thread
    found = talker.client.room_get_event_relations(room, root, rel_type=kind, limit=limit)
    return shown_all([event async for event in found][::-1])


async def set_profile(talker: Talker, key: str, value: str) -> None:
    if key == "displayname":
        checked(await talker.client.set_displayname(value))
    else:
        checked(await talker.client.set_avatar(value))


async def profile(talker: Talker, user: str) -> Said:
    answer = checked(await talker.client.get_profile(user))
    return {"displayname": answer.displayname, "avatar_url": answer.avatar_url}


async def account_data(talker: Talker, type: str) -> Any:
    return talker.unknown_account_data.get(type)


async def push_rules(talker: Talker) -> Any:
    return talker.unknown_account_data.get("m.push_rules")


async def push_rule(talker: Talker, what: str, kind: str, rule: str, **more: Any) -> None:
    """`what` is one of the library's methods for push rules, without its last word."""
    if "actions" in more:
        more["actions"] = [nio.PushAction.from_dict(action) for action in more["actions"]]
    do = getattr(talker.client, what)
    checked(await do("global", nio.PushRuleKind(kind), rule, **more))


async def devices(talker: Talker, user: str) -> list[str]:
    """Those that the library has keys of."""
    return sorted(device.id for device in talker.client.device_store.active_user_devices(user))


async def remove_devices(talker: Talker, devices: list[str], password: str) -> None:
    answer = checked(await talker.client.delete_devices(devices))
    if isinstance(answer, nio.DeleteDevicesAuthResponse):
        auth = {"type": "m.login.password", "password": password, "session": answer.session}
        auth["identifier"] = {"type": "m.id.user", "user": talker.client.user_id}
        checked(await talker.client.delete_devices(devices, auth))


# This library verifies devices, not people: it knows no cross-signing, and no requests before it.


async def ask_to_verify(talker: Talker, user: str, device: str) -> None:
    other = talker.client.device_store[user][device]
    checked(await talker.client.start_key_verification(other))
    talker.sas = talker.client.get_active_sas(user, device)


async def accept_verification(talker: Talker) -> None:
    assert talker.sas is not None
    checked(await talker.client.accept_key_verification(talker.sas.transaction_id))


async def start_sas(talker: Talker) -> None:
    """It has begun with the question."""


async def confirm_sas(talker: Talker) -> None:
    assert talker.sas is not None
    checked(await talker.client.confirm_short_auth_string(talker.sas.transaction_id))
    talker.changed()


async def verification(talker: Talker) -> Said:
    if talker.sas is None:
        return {"from": None, "phase": None, "emoji": None, "done": None}
    shown_now = talker.sas.state in (SasState.key_received, SasState.mac_received)
    return {
        "from": talker.sas.other_olm_device.user_id,
        "phase": "Requested" if talker.sas.state is SasState.created else "Ready",
        "emoji": [emoji for emoji, _ in talker.sas.get_emoji()] if shown_now else None,
        "done": "verified" if talker.sas.verified else None,
    }


async def trust(talker: Talker, user: str, device: str) -> Said:
    verified = talker.client.device_store[user][device].verified
    return {"user": False, "device": verified, "signed": False}


async def rooms(talker: Talker) -> dict[str, str]:
    return dict(talker.memberships)


async def view(talker: Talker, room: str) -> Said | None:
    invited = talker.client.invited_rooms.get(room)
    if invited is not None:
        return {
            "membership": "invite",
            "name": invited.name,
            "alias": invited.canonical_alias,
            "invited_by": invited.inviter,
        }
    known = talker.client.rooms.get(room)
    if known is None or talker.memberships.get(room) != "join":
        return {"membership": talker.memberships[room]} if room in talker.memberships else None
    return {
        "membership": talker.memberships[room],
        "name": known.name or known.display_name,
        "topic": known.topic,
        "alias": known.canonical_alias,
        "version": known.room_version,
        "join_rule": known.join_rule,
        "replacement": known.replacement_room,
        "members": {
            user_id: {
                "membership": "invite" if member.invited else "join",
                "name": member.display_name,
                "avatar": member.avatar_url,
            }
            for user_id, member in known.users.items()
        },
        "joined": known.joined_count,
        "timeline": shown_all(talker.decrypted(room)),
        "typing": known.typing_users,
        "receipts": {
            "m.read": {user: receipt.event_id for user, receipt in known.read_receipts.items()},
            "m.read.private": talker.private_receipts.get(room, {}),
        },
        "thread_receipts": {
            user: {thread: receipt.event_id for thread, receipt in receipts.items()}
            for user, receipts in known.threaded_read_receipts.items()
        },
        "fully_read": known.fully_read_marker,
        "tags": known.tags,
        "unread": known.unread_notifications,
        "highlights": known.unread_highlights,
    }


def shown_all(events: list[nio.Event]) -> list[Said]:
    """The events as a client would show them: this library does not apply edits and redactions."""
    texts: dict[str, str] = {}
    gone: set[str] = set()
    for event in events:
        content = event.source.get("content", {})
        relation = content.get("m.relates_to") or {}
        if relation.get("rel_type") == "m.replace":
            texts[relation["event_id"]] = content["m.new_content"]["body"]
        if isinstance(event, nio.RedactionEvent):
            gone.add(event.redacts)
    return [shown(event, texts, gone) for event in events]


def shown(event: nio.Event, texts: dict[str, str], gone: set[str]) -> Said:
    source = event.source
    content = source.get("content", {})
    relation = content.get("m.relates_to") or {}
    redacted = event.event_id in gone or isinstance(event, nio.RedactedEvent)
    return {
        "id": event.event_id,
        "type": source["type"],
        "sender": event.sender,
        "key": source.get("state_key"),
        "body": None if redacted else texts.get(event.event_id, content.get("body")),
        "content": {} if redacted else content,
        "rel_type": relation.get("rel_type"),
        "rel_event": relation.get("event_id"),
        "rel_key": relation.get("key"),
        "redacted": redacted,
        "txn": source.get("unsigned", {}).get("transaction_id"),
        "status": "bad" if isinstance(event, nio.BadEvent | nio.UnknownBadEvent) else None,
    }


def shown_rules(event: nio.PushRulesEvent) -> Said:
    return {
        kind: [
            {"rule_id": rule.id, "enabled": rule.enabled, "actions": len(rule.actions)}
            for rule in getattr(event.global_rules, kind)
        ]
        for kind in ("override", "content", "room", "sender", "underride")
    }


COMMANDS: dict[str, Callable[..., Awaitable[Any]]] = {
    command.__name__: command
    for command in (
        *(register, login, logout, start, resume, pause, calls, letters),
        *(create_room, invite, join, knock, leave, forget, kick, ban, unban, upgrade, set_state),
        *(send, say_in_thread, redact, receipt, read_markers, typing, back, around),
        *(load_members, thread_list, fill_thread),
        *(set_profile, profile, account_data, push_rules, push_rule, rooms, view, devices),
        *(ask_to_verify, accept_verification, start_sas, confirm_sas, verification, trust),
        remove_devices,
    )
}


def new(said: Said, changed: Changed) -> Talker:
    """A client."""
    return Talker(said["base_url"], changed, said.get("encryption", False))


def refusal(error: Exception) -> Said | None:
    """What the server said."""
    if not isinstance(error, Failed):
        return None
    transport = error.answer.transport_response
    failure = {"errcode": error.answer.status_code, "text": str(error.answer)}
    return {**failure, "status": transport.status if transport is not None else None}


async def main(path: str) -> None:
    """Listen until the process is ended."""
    logging.basicConfig(level=logging.WARNING)
    await take_orders(path, Vocabulary(new, COMMANDS, Talker.close, refusal))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
