"""A mail server as far as tests need one, on threads of its own.

It speaks what RFC 5321, 3207 and 4954 ask of a server that takes mail in, and keeps what it gets.
Tests tell it to refuse, to stay silent, or to go away.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
import threading
import time
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage

from attrs import define, field

LINK = re.compile(r"https?://\S+")


@define(eq=False)
class PostOffice:
    """The server; what it took in, and how it behaves."""

    context: ssl.SSLContext | None = None
    implicit_tls: bool = False
    users: dict[str, str] = field(factory=dict)  # who must sign in, with passwords
    refusals: dict[str, str] = field(
        factory=dict
    )  # by command: the answer instead of the right one
    silent_at: str = ""  # the command that is never answered
    letters: list[EmailMessage] = field(factory=list)
    greetings: list[str] = field(factory=list)
    seen_plain: list[str] = field(factory=list)  # commands that came unencrypted
    connections: int = 0
    _listener: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _news: threading.Condition = field(factory=threading.Condition)

    def __attrs_post_init__(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        # Closing alone leaves the thread in accept(), and the port open until somebody has called.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def letter(self, to: str, number: int = 0, within_s: float = 10) -> EmailMessage:
        """A letter to somebody, waited for."""
        until = time.monotonic() + within_s
        with self._news:
            while True:
                found = [one for one in self.letters if one["To"] == to]
                if len(found) > number:
                    return found[number]
                left = until - time.monotonic()
                assert left > 0, f"no letter {number} to {to} came: {self.letters}"
                self._news.wait(left)

    def link(self, to: str, number: int = 0) -> str:
        """The link in a letter."""
        found = LINK.findall(self.letter(to, number).get_content())
        assert len(found) == 1, found
        return str(found[0])

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.implicit_tls:
                assert self.context is not None
                connection = self.context.wrap_socket(connection, server_side=True)
            talk = _Conversation(self, connection)
            try:
                talk.run()
            finally:
                talk.file.close()
                connection = talk.connection
        except (OSError, EOFError):
            pass  # the client went away, or did not trust us
        finally:
            connection.close()

    def took(self, letter: bytes) -> None:
        """Keep a letter."""
        parsed = message_from_bytes(letter, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        with self._news:
            self.letters.append(parsed)
            self._news.notify_all()


class _Conversation:
    def __init__(self, office: PostOffice, connection: socket.socket) -> None:
        self.office = office
        self.connection = connection
        self.file = connection.makefile("rb")
        self.signed_in = False

    def say(self, line: str) -> None:
        self.connection.sendall(line.encode() + b"\r\n")

    def hear(self) -> str:
        line = self.file.readline(4096)
        if not line:
            raise EOFError
        return line.decode().strip()

    def run(self) -> None:
        if self.office.silent_at == "connect":
            time.sleep(60)
        self.say(self.office.refusals.get("connect", "220 office.test ESMTP"))
        while True:
            line = self.hear()
            command, _, rest = line.partition(" ")
            command = command.upper()
            if not isinstance(self.connection, ssl.SSLSocket):
                self.office.seen_plain.append(command)
            if self.office.silent_at == command:
                time.sleep(60)
            if command in self.office.refusals:
                self.say(self.office.refusals[command])
            elif command == "QUIT":
                self.say("221 good bye")
                return
            else:
                self.do(command, rest)

    def do(self, command: str, rest: str) -> None:
        office = self.office
        if command == "EHLO":
            office.greetings.append(rest)
            offers = ["office.test", "8BITMIME"]
            if office.context is not None and not isinstance(self.connection, ssl.SSLSocket):
                offers.append("STARTTLS")
            if office.users:
                offers.append("AUTH PLAIN")
            for offer in offers[:-1]:
                self.say(f"250-{offer}")
            self.say(f"250 {offers[-1]}")
        elif command == "STARTTLS" and office.context is not None:
            self.say("220 go on")
            self.file.close()
            self.connection = office.context.wrap_socket(self.connection, server_side=True)
            self.file = self.connection.makefile("rb")
        elif command == "AUTH":
            _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
            self.signed_in = office.users.get(user) == password
            self.say("235 welcome" if self.signed_in else "535 who are you")
        elif command in ("MAIL", "RCPT", "RSET", "NOOP"):
            may = self.signed_in or not office.users
            self.say("250 fine" if may else "530 sign in first")
        elif command == "DATA":
            self.say("354 go on")
            lines = []
            while (line := self.file.readline(4096).rstrip(b"\r\n")) != b".":
                lines.append(line.removeprefix(b".") if line.startswith(b".") else line)
            office.took(b"\r\n".join(lines))
            self.say("250 taken")
        else:
            self.say("502 what")
