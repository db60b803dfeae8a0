"""The identifiers of Matrix, and the one place that makes them out of text.

Matrix v1.19, appendices, "Identifier Grammar".  Identifiers inside events are read as leniently as
"Historical User IDs" asks; what this server hands out itself follows the strict grammar.
Identifiers keep the text they came with: they are case-sensitive and never normalised.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NewType, TypeGuard

UserId = NewType("UserId", str)  # "@localpart:server"
RoomId = NewType("RoomId", str)  # "!opaque:server", or "!hash" from room version 12
EventId = NewType("EventId", str)  # "$opaque:server" in room versions 1 and 2, else "$hash"
RoomAlias = NewType("RoomAlias", str)  # "#localpart:server"
ServerName = NewType("ServerName", str)  # "host", "host:port", an address literal
DeviceId = NewType("DeviceId", str)
KeyId = NewType("KeyId", str)  # "ed25519:version"

MAX_ID_BYTES = 255

_NEW_LOCALPART = re.compile(r"[a-z0-9._=\-/+]+")
_COMPLIANT_LOCALPART = re.compile(r"[!-9;-~]+")  # U+0021 to U+007E without the colon
_KEY_ID = re.compile(r"ed25519:[a-zA-Z0-9_]+")
_NAMESPACED = re.compile(r"[a-z][a-z0-9._\-]{0,254}")
_OPAQUE = re.compile(r"[0-9A-Za-z._~\-]{1,255}")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_SERVER_NAME = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[0-9A-Za-z.\-]{1,255}))(?::[0-9]{1,5})?"
)


class InvalidIdentifier(ValueError):
    """The text is not an identifier of the kind that was asked for."""


def parse_server_name(text: str) -> ServerName:
    """Check the grammar of a server name, the port included; raise InvalidIdentifier.

    Appendices, "Server Name" [G.01].  A dotted quad out of range is a DNS name by the grammar.
    """
    if not _is_server_name(text):
        raise InvalidIdentifier("not a server name")
    return ServerName(text)


@lru_cache(maxsize=4096)
def _is_server_name(text: str) -> bool:
    found = _SERVER_NAME.fullmatch(text)
    if found is None:
        return False
    ipv6 = found["ipv6"]
    if ipv6 is None:
        return True
    try:
        ipaddress.IPv6Address(ipv6)
    except ValueError:
        return False
    return True


def hostname_of(server: ServerName) -> str:
    """The server name without its port; IPv6 literals keep their brackets."""
    if server.startswith("["):
        return server[: server.index("]") + 1]
    return server.partition(":")[0]


def is_ip_literal(server: ServerName) -> bool:
    """Whether the host is an IPv4 or IPv6 address literal."""
    return server.startswith("[") or _IPV4.fullmatch(hostname_of(server)) is not None


def parse_user_id(text: str) -> UserId:
    """Check a user ID with historical leniency [G.02]; raise InvalidIdentifier."""
    if not is_user_id(text):
        raise InvalidIdentifier("not a user ID")
    return UserId(text)


def is_user_id(value: object) -> TypeGuard[UserId]:
    """Whether a value out of somebody's event is a user ID, whatever its type."""
    return isinstance(value, str) and has_user_id_form(value) and fits(value)


def parse_room_alias(text: str) -> RoomAlias:
    """Check a room alias [G.06]; raise InvalidIdentifier."""
    if not (_has_domain_form(text, "#") and fits(text)):
        raise InvalidIdentifier("not a room alias")
    return RoomAlias(text)


def parse_room_id(text: str) -> RoomId:
    """Check a room ID with or without a domain [G.05]; raise InvalidIdentifier.

    The domain says nothing about where the room is; never route by it.
    """
    if not (has_room_id_form(text) and fits(text)):
        raise InvalidIdentifier("not a room ID")
    return RoomId(text)


def parse_event_id(text: str) -> EventId:
    """Check an event ID with or without a domain [G.06]; raise InvalidIdentifier."""
    if not (has_event_id_form(text) and fits(text)):
        raise InvalidIdentifier("not an event ID")
    return EventId(text)


def has_user_id_form(text: str) -> bool:
    """Whether text is a user ID but perhaps for its length."""
    return _has_domain_form(text, "@")


def has_room_id_form(text: str) -> bool:
    """Whether text is a room ID but perhaps for its length."""
    return _has_opaque_form(text, "!") or _has_domain_form(text, "!")


def has_event_id_form(text: str, *, with_domain: bool = False) -> bool:
    """Whether text is an event ID but perhaps for its length.

    `with_domain` asks for the form of room versions 1 and 2, `$opaque:server`.
    """
    return _has_domain_form(text, "$") or (not with_domain and _has_opaque_form(text, "$"))


def _has_domain_form(text: str, sigil: str) -> bool:
    """`&localpart:domain`, split at the first colon [G.04]."""
    localpart, _, domain = text.partition(":")
    return localpart.startswith(sigil) and "\0" not in localpart and _is_server_name(domain)


def _has_opaque_form(text: str, sigil: str) -> bool:
    """`&opaque` without a domain."""
    return len(text) > 1 and text[0] == sigil and ":" not in text and "\0" not in text


def fits(text: str) -> bool:
    """Whether an identifier is Unicode text of at most 255 bytes in UTF-8.

    Bytes count, not code points [A3.05]; lone surrogates never fit (T088).
    """
    if text.isascii():
        return len(text) <= MAX_ID_BYTES
    try:
        return len(text.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:
        return False


def server_of(identifier: UserId | RoomId | EventId | RoomAlias) -> ServerName:
    """The domain of an identifier: what follows its first colon [G.04].

    Raises InvalidIdentifier for identifiers without one (room version 12 room IDs, event IDs from
    room version 3 on).
    """
    domain = identifier.partition(":")[2]
    if not domain:
        raise InvalidIdentifier("the identifier has no domain")
    return ServerName(domain)


def localpart_of(user_id: UserId) -> str:
    """What stands between the sigil and the first colon; may be empty (historical user IDs)."""
    return user_id[1:].partition(":")[0]


def is_compliant_user_id(user_id: UserId) -> bool:
    """Whether clients may be told of this user outside of events [G.03]."""
    return _COMPLIANT_LOCALPART.fullmatch(localpart_of(user_id)) is not None


def check_new_localpart(text: str) -> None:
    """Raise InvalidIdentifier unless a new account may carry this localpart [G.02]."""
    if _NEW_LOCALPART.fullmatch(text) is None:
        raise InvalidIdentifier("a user name holds only a-z, 0-9 and ._=-/+")


def new_user_id(localpart: str, server: ServerName) -> UserId:
    """Make the ID of a new local user; raise InvalidIdentifier for bad or overlong ones."""
    check_new_localpart(localpart)
    return parse_user_id(f"@{localpart}:{server}")


def parse_key_id(text: str) -> KeyId:
    """Check a server signing key's ID, `ed25519:version` [G.08]; raise InvalidIdentifier."""
    if _KEY_ID.fullmatch(text) is None:
        raise InvalidIdentifier("not a signing key ID")
    return KeyId(text)


def parse_device_id(text: str) -> DeviceId:
    """Check a device ID: 1 to 255 bytes without NUL (our own bound, [F3.05])."""
    if not text or "\0" in text or not fits(text):
        raise InvalidIdentifier("not a device ID")
    return DeviceId(text)


def is_namespaced(text: str) -> bool:
    """Whether text follows the Common Namespaced Identifier Grammar [G.07]."""
    return _NAMESPACED.fullmatch(text) is not None


def is_opaque(text: str) -> bool:
    """Whether text follows the Opaque Identifier Grammar, 1 to 255 characters [G.07]."""
    return _OPAQUE.fullmatch(text) is not None
