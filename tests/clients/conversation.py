"""Clients that nobody here wrote, as tests hold them: matrix-nio, matrix-js-sdk, the Rust SDK.

Each library lives in a program of its own (nio_talk.py, js/talk.mjs, rust/talk.py), which listens
on a Unix socket and speaks lines of JSON:

    > {"id": 3, "who": "alice", "do": "join", "room": "!r"}    what to do, with its arguments
    < {"id": 3, "ok": "!r"}                                    or "error": {errcode, status, text}
    < {"changed": "alice"}                                     something new may be seen

A test never sleeps: it says what it wants to see, and looks again whenever something changed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import trio
from attrs import define, field, frozen

from tests.server import Server

Kind: TypeAlias = Literal["nio", "js", "rust"]
View: TypeAlias = dict[str, Any]

SEEN_WITHIN_S = 20.0
DONE_WITHIN_S = 40.0


@frozen
class Program:
    """One of the programs, running."""

    socket: Path
    messages: Path

    def complaints(self) -> list[str]:
        """What the library wrote about answers that it did not understand."""
        return [line for line in self.messages.read_text(errors="replace").splitlines() if line]


@contextmanager
def running_program(command: list[str | Path], folder: Path) -> Iterator[Program]:
    """Start a program, wait until it listens, and end it."""
    program = Program(folder / "talk", folder / "messages.log")
    with program.messages.open("wb") as messages:
        process = subprocess.Popen(
            [*command, program.socket],
            stdout=subprocess.PIPE,
            stderr=messages,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", program.messages.read_text()
        yield program
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # Node.js may be the child of what was started
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Refused(Exception):
    """The library told of an error, usually the server's."""

    def __init__(self, what: str, errcode: str | None, status: int | None, text: str) -> None:
        super().__init__(f"{what}: {errcode} ({status}) {text}")
        self.errcode = errcode
        self.status = status
        self.text = text


@define(eq=False)
class Line:
    """A test's connection to one of the programs."""

    _stream: trio.SocketStream
    patience_s: float = DONE_WITHIN_S
    _next: int = 0
    _answers: dict[int, trio.MemorySendChannel[Any]] = field(factory=dict)
    _changed: dict[str, trio.Event] = field(factory=dict)
    _sending: trio.Lock = field(factory=trio.Lock)

    async def listen(self) -> None:
        """Hand on what the program says, until it says no more."""
        rest = b""
        async with self._stream:
            async for data in self._stream:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._heard(json.loads(line))

    def _heard(self, said: dict[str, Any]) -> None:
        if "changed" in said:
            self._changed.pop(said["changed"], trio.Event()).set()
        else:
            self._answers.pop(said["id"]).send_nowait(said)  # has room for it, waited for or not

    def change_of(self, who: str) -> trio.Event:
        """Set as soon as `who` may see something new."""
        return self._changed.setdefault(who, trio.Event())

    async def do(self, who: str, command: str, **arguments: Any) -> Any:
        """Have something done; raises Refused."""
        self._next += 1
        number = self._next
        send, receive = trio.open_memory_channel[Any](1)
        self._answers[number] = send
        line = json.dumps({"id": number, "who": who, "do": command, **arguments})
        said = None
        with trio.move_on_after(self.patience_s):
            async with self._sending:
                await self._stream.send_all(line.encode() + b"\n")
            said = await receive.receive()
        if said is None:
            raise trio.TooSlowError(f"{who} {command}: no answer in {self.patience_s:g} s")
        if "error" in said:
            raise Refused(f"{who} {command}", **said["error"])
        return said["ok"]


@define(eq=False)
class Client:
    """Somebody's device, on one of the libraries."""

    kind: Kind
    name: str
    user_id: str
    device_id: str
    _line: Line

    async def do(self, command: str, **arguments: Any) -> Any:
        """Any command of the vocabulary."""
        return await self._line.do(self.name, command, **arguments)

    async def create_room(self, **options: Any) -> str:
        """A new room, with the specification's names for its options."""
        return str(await self.do("create_room", options=options))

    async def say(self, room: str, body: str, **more: Any) -> str:
        """Send a text; returns the event's id."""
        content = {"msgtype": "m.text", "body": body, **more}
        return str(await self.do("send", room=room, content=content))

    async def edit(self, room: str, event: str, body: str) -> str:
        """Replace the text of a message."""
        new = {"msgtype": "m.text", "body": body}
        relation = {"rel_type": "m.replace", "event_id": event}
        return await self.say(room, f"* {body}", **{"m.new_content": new, "m.relates_to": relation})

    async def react(self, room: str, event: str, key: str) -> str:
        """Annotate a message."""
        relation = {"rel_type": "m.annotation", "event_id": event, "key": key}
        content = {"m.relates_to": relation}
        return str(await self.do("send", room=room, type="m.reaction", content=content))

    async def until(self, what: Callable[[View], Any], *, room: str) -> View:
        """Wait until the room looks as `what` says; what the client then sees of it."""
        seen: View | None = None
        with trio.move_on_after(SEEN_WITHIN_S):
            while True:
                change = self._line.change_of(self.name)
                seen = await self.do("view", room=room)
                if seen is not None and what(seen):
                    return seen
                await change.wait()
        raise AssertionError(f"{self.name} ({self.kind}) never saw it:\n{_readable(seen)}")

    async def until_true(self, command: str, what: Callable[[Any], Any], **more: Any) -> Any:
        """Wait until the answer to a command is as `what` says."""
        answer: Any = None
        with trio.move_on_after(SEEN_WITHIN_S):
            while True:
                change = self._line.change_of(self.name)
                answer = await self.do(command, **more)
                if what(answer):
                    return answer
                await change.wait()
        raise AssertionError(f"{self.name} ({self.kind}) never saw it:\n{_readable(answer)}")

    async def sees(self, room: str, event: str) -> View:
        """Wait for an event in the room's timeline; the event."""
        view = await self.until(lambda view: event_of(view, event), room=room)
        found = event_of(view, event)
        assert found is not None
        return found


def event_of(view: View, event: str) -> View | None:
    """An event of a timeline; AssertionError when it is there twice."""
    found = [shown for shown in view.get("timeline", ()) if shown["id"] == event]
    assert len(found) < 2, f"{event} is doubled"
    return found[0] if found else None


def texts(view: View) -> list[str]:
    """The bodies of all messages in order; AssertionError for an event that is there twice."""
    return bodies(view["timeline"])


def bodies(events: list[View]) -> list[str]:
    """The same of a list of events."""
    ids = [event["id"] for event in events]
    assert len(set(ids)) == len(ids), "an event is doubled"
    return [event["body"] for event in events if event["type"] == "m.room.message"]


@define(eq=False)
class Company:
    """The clients of one test."""

    server: Server
    _lines: Mapping[Kind, Line]
    _tag: str

    async def register(self, kind: Kind, name: str, **start: Any) -> Client:
        """A new user `name`, whose client syncs."""
        client = await self._new(kind, name, encryption=bool(start.get("encryption")))
        await self._signed_in(client, "register", user=self.local(name), password=secret(name))
        await client.do("start", **start)
        return client

    async def login(self, kind: Kind, user: str, name: str, **start: Any) -> Client:
        """One more device `name` of a user who registered here."""
        client = await self._new(kind, name, encryption=bool(start.get("encryption")))
        await self._signed_in(client, "login", user=self.local(user), password=secret(user))
        await client.do("start", **start)
        return client

    async def stranger(self, kind: Kind, name: str) -> Client:
        """A client that has not signed in."""
        return await self._new(kind, name)

    def local(self, name: str) -> str:
        """The user's name on the server: tests share it, and do not meet."""
        return f"{name}-{self._tag}"

    async def _new(self, kind: Kind, name: str, *, encryption: bool = False) -> Client:
        client = Client(kind, name, "", "", self._lines[kind])
        await client.do("new", base_url=self.server.base_url, encryption=encryption)
        return client

    async def _signed_in(self, client: Client, how: str, **more: Any) -> None:
        answer = await client.do(how, **more)
        client.user_id, client.device_id = answer["user_id"], answer["device_id"]


def secret(name: str) -> str:
    """The password of somebody of that name."""
    return f"the password of {name}"


async def connected(programs: Mapping[Kind, Program], nursery: trio.Nursery) -> dict[Kind, Line]:
    """A line to each program; tasks in the nursery listen."""
    lines: dict[Kind, Line] = {}
    for kind, program in programs.items():
        lines[kind] = Line(await trio.open_unix_socket(program.socket))
        nursery.start_soon(lines[kind].listen, name=f"listens to {kind}")
    return lines


def _readable(seen: Any) -> str:
    """What a client saw, an event a line, without members."""
    if not isinstance(seen, dict) or "timeline" not in seen:
        return json.dumps(seen, indent=1)
    lines = [f"{key}: {json.dumps(value)}" for key, value in seen.items() if key not in _LONG]
    lines += ["timeline:", *map(_one_line, seen["timeline"])]
    for root, thread in seen.get("threads", {}).items():
        rest = {key: value for key, value in thread.items() if key != "events"}
        lines += [f"thread {root}: {json.dumps(rest)}", *map(_one_line, thread["events"])]
    return "\n".join(lines)


_LONG = ("timeline", "threads", "members")


def _one_line(event: View) -> str:
    where = f" {event['rel_type']} {event['rel_event']}" if event["rel_type"] else ""
    return f"  {event['id']} {event['type']} {event['sender']} {event['body']!r}{where}"
