"""Who may open a connection: limits in all and per address, and slots kept for the household.

An address is an IPv4 address or the /64 of an IPv6 address. The household is the home network and
every address from which somebody signed in lately. It has slots of its own, so that strangers who
take all the others do not lock it out.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum

from matrixbox.api.bounds import Bounds

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

HOME_NETWORKS: tuple[IpNetwork, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)

# Addresses remembered as signed in, and answers to "is this address at home" kept.
_REMEMBERED = 1024


class Pool(Enum):
    """Whose slot a connection uses."""

    GENERAL = "general"
    RESERVED = "reserved"


def plain_address(host: str) -> str:
    """The address without its zone, and an IPv4-mapped one as IPv4."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def address_key(host: str) -> str:
    """What limits are counted by: an IPv4 address, or the /64 of an IPv6 address."""
    host = plain_address(host)
    if ":" not in host:
        return host
    return socket.inet_pton(socket.AF_INET6, host)[:8].hex()


class Admission:
    """Counts connections and says which of them may stay."""

    def __init__(
        self,
        bounds: Bounds,
        *,
        clock: Callable[[], float],
        home: Sequence[IpNetwork] = HOME_NETWORKS,
    ) -> None:
        self._bounds = bounds
        self._clock = clock
        self._home = tuple(home)
        self._in_use = {Pool.GENERAL: 0, Pool.RESERVED: 0}
        self._per_address: Counter[str] = Counter()
        self._signed_in: OrderedDict[str, float] = OrderedDict()
        self._at_home: dict[str, bool] = {}

    @property
    def in_use(self) -> int:
        """Connections that are open."""
        return sum(self._in_use.values())

    def remember(self, host: str) -> None:
        """Somebody of the household has signed in, or shown a good token, from this address."""
        key = address_key(host)
        self._signed_in[key] = self._clock() + self._bounds.signed_in_s
        self._signed_in.move_to_end(key)
        if len(self._signed_in) > _REMEMBERED:
            self._signed_in.popitem(last=False)

    def admit(self, host: str) -> Pool | None:
        """Take a slot for a connection from `host`; None when there is none for it."""
        key = address_key(host)
        at_home = self._is_at_home(key, host)
        # This machine itself is bounded by the pools alone: a proxy in front of the server brings
        # every client from one address.
        is_local = at_home and (host == "::1" or plain_address(host).startswith("127."))
        if not is_local and self._per_address.get(key, 0) >= self._bounds.connections_per_address:
            return None
        pool = self._pool_for(household=at_home or self._has_signed_in(key))
        if pool is not None:
            self._in_use[pool] += 1
            self._per_address[key] += 1
        return pool

    def release(self, host: str, pool: Pool) -> None:
        """Give the slot back."""
        key = address_key(host)
        self._in_use[pool] -= 1
        self._per_address[key] -= 1
        if not self._per_address[key]:
            del self._per_address[key]

    def _pool_for(self, *, household: bool) -> Pool | None:
        reserved = self._bounds.connections_reserved
        if household and self._in_use[Pool.RESERVED] < reserved:
            return Pool.RESERVED
        if self._in_use[Pool.GENERAL] < self._bounds.connections - reserved:
            return Pool.GENERAL
        return None

    def _has_signed_in(self, key: str) -> bool:
        until = self._signed_in.get(key)
        return until is not None and until > self._clock()

    def _is_at_home(self, key: str, host: str) -> bool:
        at_home = self._at_home.get(key)
        if at_home is None:
            address = ipaddress.ip_address(plain_address(host))
            at_home = any(address in network for network in self._home)
            if len(self._at_home) >= _REMEMBERED:
                self._at_home.clear()
            self._at_home[key] = at_home
        return at_home
