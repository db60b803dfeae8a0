"""Ports and server names of peers on loopback."""

from __future__ import annotations

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that was free on ``address`` a moment ago."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def bracket(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def split_server_name(name: str) -> tuple[str, str]:
    """Split ``host[:port]`` (the host may be a bracketed IPv6 literal)."""
    if name.startswith("["):
        host, _, rest = name[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = name.partition(":")
    return host, port
