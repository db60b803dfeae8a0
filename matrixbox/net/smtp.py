"""Handing mail to the household's mail server.

RFC 5321, RFC 3207 (STARTTLS), RFC 4954 (AUTH), with the standard library's client: what there is
for Trio needs a second library for tasks beside it.  It blocks, so it runs in a thread, one message
at a time; when the time is over its socket is shut, which ends whatever it waits for.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from datetime import UTC, datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Literal

import trio
from attrs import define, field, frozen

TOTAL_S = 60.0
SILENCE_S = 20.0  # for one answer, or until there is a connection

Security = Literal["tls", "starttls", "none"]


class MailRefused(Exception):
    """The mail server will not take a message, now or at all."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


@frozen
class MailServer:
    """Where mail is handed in, and as whom."""

    host: str
    port: int
    security: Security
    own_name: str  # that we greet it with
    user: str = ""
    password: str = field(default="", repr=False)
    ca_files: tuple[Path, ...] = ()


def message(
    sender: str, recipient: str, subject: str, text: str, now_ms: int, domain: str
) -> EmailMessage:
    """A plain message.  Raises MailRefused for what cannot stand in its head."""
    found = EmailMessage(policy=SMTP_POLICY)
    try:
        found["From"] = sender
        found["To"] = recipient
        found["Subject"] = subject
        found["Date"] = format_datetime(datetime.fromtimestamp(now_ms / 1000, UTC))
        found["Message-ID"] = make_msgid(domain=domain.partition(":")[0])
        found["Auto-Submitted"] = "auto-generated"
    except (ValueError, MessageError) as error:
        raise MailRefused("it cannot be written down", is_final=True) from error
    found.set_content(text)
    return found


@define(eq=False)
class _Session:
    """One conversation with the mail server, which another thread can break off."""

    server: MailServer
    client: smtplib.SMTP | None = None
    is_over: bool = False

    def deliver(self, letter: EmailMessage) -> None:
        """Hand a message in; blocks."""
        server = self.server
        client = _TlsClient(self) if server.security == "tls" else _Client(self)
        with client:
            if self.is_over:
                raise OSError("the time is over")
            if server.security == "starttls":
                client.starttls(context=context_of(server))
            if server.user:
                client.login(server.user, server.password)
            client.send_message(letter)
            with contextlib.suppress(smtplib.SMTPException, OSError):  # it has the message
                client.quit()

    def break_off(self) -> None:
        """Make whatever is waited for fail."""
        self.is_over = True
        sock = None if self.client is None else self.client.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # it may be shut already
                sock.shutdown(socket.SHUT_RDWR)


def context_of(server: MailServer) -> ssl.SSLContext:
    """Whom to trust to be the mail server."""
    context = ssl.create_default_context()
    for file in server.ca_files:
        context.load_verify_locations(file)
    return context


class _Client(smtplib.SMTP):
    """A client that its session knows before it connects."""

    def __init__(self, session: _Session) -> None:
        session.client = self
        server = session.server
        super().__init__(server.host, server.port, server.own_name, SILENCE_S)


class _TlsClient(smtplib.SMTP_SSL):
    """The same, with TLS from the start."""

    def __init__(self, session: _Session) -> None:
        session.client = self
        server = session.server
        super().__init__(
            server.host,
            server.port,
            server.own_name,
            timeout=SILENCE_S,
            context=context_of(server),
        )


async def send(server: MailServer, letter: EmailMessage, total_s: float = TOTAL_S) -> None:
    """Hand a message to the mail server; raises MailRefused."""
    session = _Session(server)
    with trio.move_on_after(total_s):
        try:
            await trio.to_thread.run_sync(session.deliver, letter, abandon_on_cancel=True)
            return
        except trio.Cancelled:
            session.break_off()
            raise
        except smtplib.SMTPException as error:
            raise _refused(error) from error
        except (OSError, ValueError) as error:
            raise MailRefused(f"the mail server cannot be used: {type(error).__name__}") from error
    raise MailRefused("the mail server took too long")


def _refused(error: smtplib.SMTPException) -> MailRefused:
    """What of a refusal may be told: neither addresses nor what the server said of them."""
    code = 0
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code = max((code for code, _ in error.recipients.values()), default=0)
    elif isinstance(error, smtplib.SMTPResponseException):
        code = error.smtp_code
    about_this = isinstance(
        error,
        smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError | smtplib.SMTPNotSupportedError,
    )
    is_starttls = isinstance(error, smtplib.SMTPNotSupportedError)
    reason = f"{type(error).__name__} {code}" if code else type(error).__name__
    return MailRefused(reason, is_final=about_this and not is_starttls and code >= 500)
