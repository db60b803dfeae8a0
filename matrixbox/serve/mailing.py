"""The service that sends mail."""

from __future__ import annotations

import errno
import ipaddress
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from matrixbox.accounts.mailing import Mailer
from matrixbox.config import Settings
from matrixbox.net.smtp import MailServer, Security
from matrixbox.serve.base import Base

Service = Callable[[], Awaitable[None]]

TLS_PORT = 465


def mail_services(settings: Settings, base: Base) -> Iterator[tuple[str, Service]]:
    """What runs for as long as the server does, by name.  Raises OSError."""
    server = mail_server(settings)
    mailer = Mailer(base.store, base.env.clock, server, settings.email.sender, server.own_name)
    yield "accounts.mail", mailer.run


def mail_server(settings: Settings) -> MailServer:
    """Where mail is handed in.  Raises OSError for a file with a password that cannot be used."""
    email = settings.email
    return MailServer(
        email.smtp_host,
        email.smtp_port,
        _security(email.security, email.smtp_host, email.smtp_port),
        settings.server.name.partition(":")[0],
        email.user,
        _password(email.password_file) if email.user and email.password_file else "",
        settings.outbound.extra_ca_files,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _security(wanted: str, host: str, port: int) -> Security:
    if wanted == "tls" or (wanted == "auto" and port == TLS_PORT):
        return "tls"
    if wanted == "none" or (wanted == "auto" and _is_loopback(host)):
        return "none"
    return "starttls"


def _password(file: Path) -> str:
    if file.stat().st_mode & stat.S_IROTH:
        raise PermissionError(errno.EACCES, "It must not be readable by everybody", str(file))
    return file.read_text(encoding="utf-8").strip()
