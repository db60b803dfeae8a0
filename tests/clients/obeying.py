"""What the programs around clients written in Python share: a socket over which they take orders.

The vocabulary is described in conversation.py.  Every connection has clients of its own, which end
with it.
"""
# ruff: noqa: TID251 - the libraries around which the programs are built need asyncio

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

Said = dict[str, Any]
Changed = Callable[[], None]
Talker = TypeVar("Talker")


@frozen
class Vocabulary(Generic[Talker]):
    """What a program understands."""

    new: Callable[[Said, Changed], Talker]
    commands: Mapping[str, Callable[..., Awaitable[Any]]]
    close: Callable[[Talker], Awaitable[None]]
    refusal: Callable[[Exception], Said | None]  # what the server said, if it is that


@define(eq=False)
class Connection(Generic[Talker]):
    """A test that talks to this program."""

    words: Vocabulary[Talker]
    writer: asyncio.StreamWriter
    talkers: dict[str, Talker] = field(factory=dict)
    tasks: set[asyncio.Task[None]] = field(factory=set)

    def say(self, line: Said) -> None:
        """Send a line."""
        self.writer.write(json.dumps(line).encode() + b"\n")

    def heard(self, line: bytes) -> None:
        """Obey a line, beside what is being done."""
        task = asyncio.create_task(self.obey(json.loads(line)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def obey(self, said: Said) -> None:
        """Do what was said, and say how it went."""
        number, who, command = said.pop("id"), said.pop("who"), said.pop("do")
        try:
            if command == "new":
                self.talkers[who] = self.words.new(said, lambda: self.say({"changed": who}))
                answer = None
            else:
                answer = await self.words.commands[command](self.talkers[who], **said)
            self.say({"id": number, "ok": answer})
        except Exception as error:
            failure = self.words.refusal(error)
            if failure is None:
                logging.exception("command failed")
                text = f"{type(error).__name__}: {error}"
                failure = {"errcode": None, "status": None, "text": text}
            self.say({"id": number, "error": failure})

    async def close(self) -> None:
        """End the clients."""
        for task in self.tasks:
            task.cancel()
        for talker in self.talkers.values():
            await self.words.close(talker)


async def take_orders(path: str, words: Vocabulary[Any]) -> None:
    """Take orders until the process is ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(words, writer)
        try:
            while line := await reader.readline():
                connection.heard(line)
        finally:
            await connection.close()
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()
