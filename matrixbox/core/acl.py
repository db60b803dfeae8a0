"""Server access control lists.

Matrix v1.19, Client-Server API, `m.room.server_acl`; Server-Server API, "Server Access Control
Lists (ACLs)"; T037.  Names are compared without port and without regard to case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from matrixbox.core.globs import Glob
from matrixbox.core.identifiers import ServerName, hostname_of, is_ip_literal
from matrixbox.core.json import Json


class _Patterns:
    """Thousands of globs at once: what is literal is looked up, the rest filtered by a literal."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.literals: set[str] = set()
        self.prefixes: dict[int, set[str]] = {}  # "evil*" by length
        self.suffixes: dict[int, set[str]] = {}  # "*.evil.com" by length
        self.others: list[tuple[str, Glob]] = []
        for pattern in sorted({pattern.lower() for pattern in patterns}):
            self._add(pattern)

    def _add(self, pattern: str) -> None:
        first, star, rest = pattern.partition("*")
        if "?" in pattern or "*" in rest or (first and rest):
            longest = max(pattern.replace("?", "*").split("*"), key=len)
            self.others.append((longest, Glob.of(pattern)))
        elif not star:
            self.literals.add(pattern)
        elif first:
            self.prefixes.setdefault(len(first), set()).add(first)
        else:
            self.suffixes.setdefault(len(rest), set()).add(rest)

    def match(self, host: str) -> bool:
        """Whether one of the patterns matches a host name in lower case."""
        return (
            host in self.literals
            or any(host[:length] in found for length, found in self.prefixes.items())
            or any(
                host[len(host) - length :] in found
                for length, found in self.suffixes.items()
                if length <= len(host)
            )
            or any(literal in host and glob.matches(host) for literal, glob in self.others)
        )


@frozen(eq=False)
class ServerAcl:
    """The servers that may take part in a room."""

    allow_ip_literals: bool
    _allow: _Patterns = field(repr=False)
    _deny: _Patterns = field(repr=False)

    @classmethod
    def from_content(cls, content: Mapping[str, Json]) -> ServerAcl:
        """Read the content of an `m.room.server_acl` event; what has a wrong type is absent."""
        return cls(
            allow_ip_literals=content.get("allow_ip_literals") is not False,
            allow=_Patterns(_strings(content.get("allow"))),
            deny=_Patterns(_strings(content.get("deny"))),
        )

    def allows(self, server: ServerName) -> bool:
        """Whether the server may take part.  Without an ACL event in the room, all may (1.)."""
        # 2.
        if not self.allow_ip_literals and is_ip_literal(server):
            return False
        host = hostname_of(server).lower()
        # 3., 4., 5.
        return not self._deny.match(host) and self._allow.match(host)


def _strings(value: Json) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
