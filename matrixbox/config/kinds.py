"""Kinds of settings: what a value may be in the file, and how it is shown there.

A kind turns what `tomllib` read into the value that the program uses, or raises `ValueError` with a
text for the person who wrote the file; and it shows a value as TOML.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from matrixbox.core.identifiers import InvalidIdentifier, ServerName, parse_server_name


@attrs.frozen
class Address:
    """Where to listen: an IP address or host name, and a port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@attrs.frozen
class Kind:
    """How one kind of value is read from TOML and shown as TOML."""

    read: Callable[[Any], Any]
    show: Callable[[Any], str]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _listed(items: tuple[object, ...]) -> str:
    return "[" + ", ".join(_quoted(str(item)) for item in items) + "]"


def _is_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, not {_named(value)}")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise ValueError("must not contain control characters")
    return value


def _is_list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f'must be a list such as ["one", "two"], not {_named(value)}')
    return value


def _named(value: object) -> str:
    """The type of a TOML value, in words."""
    names: dict[type, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number with a fraction",
        str: "text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")


def text(*, choices: tuple[str, ...] = ()) -> Kind:
    """Any text, or one of `choices`."""

    def read(value: object) -> str:
        found = _is_text(value)
        if choices and found not in choices:
            raise ValueError("must be one of " + ", ".join(map(_quoted, choices)))
        return found

    return Kind(read, _quoted)


def flag() -> Kind:
    """True or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false (without quotes), not {_named(value)}")
        return value

    return Kind(read, lambda value: "true" if value else "false")


def number(least: int, most: int) -> Kind:
    """A whole number from `least` to `most`."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number (without quotes), not {_named(value)}")
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}")
        return value

    return Kind(read, str)


def path() -> Kind:
    """A file or folder; empty for none. Relative ones are resolved against the file's folder."""

    def read(value: object) -> Path | None:
        found = _is_text(value)
        return Path(found) if found else None

    return Kind(read, lambda value: _quoted("" if value is None else str(value)))


def paths() -> Kind:
    """A list of files."""

    def read(value: object) -> tuple[Path, ...]:
        found = [path().read(item) for item in _is_list(value)]
        if None in found:
            raise ValueError("must not contain an empty name")
        return tuple(found)

    return Kind(read, _listed)


def addresses() -> Kind:
    """A list of addresses to listen on."""

    def read(value: object) -> tuple[Address, ...]:
        found = tuple(_address(_is_text(item)) for item in _is_list(value))
        fixed = [item for item in found if item.port]
        if len(set(fixed)) != len(fixed):
            raise ValueError("must not name one address twice")
        return found

    return Kind(read, _listed)


def turn_uris() -> Kind:
    """A list of addresses of TURN servers."""

    def read(value: object) -> tuple[str, ...]:
        found = tuple(map(_is_text, _is_list(value)))
        if not all(uri.startswith(("turn:", "turns:", "stun:", "stuns:")) for uri in found):
            raise ValueError('must hold addresses such as "turn:turn.example.org?transport=udp"')
        return found

    return Kind(read, _listed)


def server_names() -> Kind:
    """A list of names of homeservers."""

    def read(value: object) -> tuple[ServerName, ...]:
        found = []
        for item in _is_list(value):
            try:
                found.append(parse_server_name(_is_text(item)))
            except InvalidIdentifier:
                raise ValueError(f'"{item}" is not the name of a homeserver') from None
        return tuple(found)

    return Kind(read, _listed)


def _address(written: str) -> Address:
    host, colon, port = written.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f'"{written}" must be ADDRESS:PORT, such as "127.0.0.1:8008"')
    host = host[1:-1] if bracketed else host
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        version = None
    plain = all(part and part.replace("-", "").isalnum() for part in host.split("."))
    if bracketed is not (version == 6) or (version is None and not (host.isascii() and plain)):
        raise ValueError(
            f'"{written}" must be ADDRESS:PORT, such as "127.0.0.1:8008" or "[::1]:8008"'
        )
    return Address(host, int(port))


def base_url() -> Kind:
    """A web address without a trailing slash; empty for none."""

    def read(value: object) -> str:
        found = _is_text(value).rstrip("/")
        if not found:
            return ""
        parts = urlsplit(found)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError('must be a web address such as "https://matrix.example.org"')
        if parts.query or parts.fragment or parts.username or " " in found:
            raise ValueError("must be a plain web address, without user name, ? or #")
        return found

    return Kind(read, _quoted)
