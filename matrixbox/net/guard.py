"""Which addresses and ports may be dialled: a table of our own, asked for every connection.

Server names, delegations, SRV records, redirects and links are written by strangers and may point
into the home network [B2.11] (threats T053, T054, T120).  `ipaddress.is_global` is no guard: it
passes multicast and addresses that carry a private IPv4 address inside.  What is asked here is the
address that is about to be dialled, never a name.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from attrs import frozen

IPAddress: TypeAlias = IPv4Address | IPv6Address

MAX_NAME_CHARACTERS = 253

_REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for this machine
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared between a provider and its customers (CGNAT)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and the metadata of cloud machines
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_NOT_UNICAST_V4 = (
    IPv4Network("0.0.0.0/32"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
)

_UNICAST_V6 = IPv6Network("2000::/3")  # all else is unassigned, local or special
_REFUSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, with an IPv4 address inside
        "3fff::/20",  # documentation
    )
)
_MULTICAST_V6 = IPv6Network("ff00::/8")
_NAT64 = IPv6Network("64:ff9b::/96")
"""The well-known prefix, by which machines without IPv4 reach all of it (RFC 6052)."""

REFUSED_PORTS = frozenset(
    {
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
        *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161),
        *(179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563),
        *(587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060),
        *(5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    }
)
"""Ports of mail, shells, name service, file sharing and the like: what browsers refuse too (Fetch
standard, "bad port"), so that nobody can make this server speak to such a service."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")  # _: names of containers
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@frozen
class AddressGuard:
    """Says which addresses may be dialled; `allow_private` opens all but multicast."""

    allow_private: bool = False

    def allows(self, address: IPAddress) -> bool:
        """Whether `address` may be dialled."""
        if isinstance(address, IPv6Address):
            inside = _embedded(address)
            if inside is None:
                return self._allows_v6(address)
            address = inside
        refused = _NOT_UNICAST_V4 if self.allow_private else _REFUSED_V4
        return not any(address in network for network in refused)

    def _allows_v6(self, address: IPv6Address) -> bool:
        if self.allow_private:
            return address not in _MULTICAST_V6 and not address.is_unspecified
        if address.scope_id is not None or address not in _UNICAST_V6:
            return False
        return not any(address in network for network in _REFUSED_V6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a mapped or a NAT64 address leads to."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def is_port_allowed(port: int) -> bool:
    """Whether a connection to this port may be tried."""
    return 0 < port < 65536 and port not in REFUSED_PORTS


class InvalidHost(ValueError):
    """Neither a DNS name nor an address literal."""


def parse_host(text: str) -> IPAddress | str:
    """An address literal (IPv6 with or without brackets), or a DNS name in lower case.

    Raises InvalidHost for everything else: also for names whose last part is a number, which the
    system's resolver would read as an address (`127.1`, `0x7f.1`, `2130706433`; T053).
    """
    try:
        if "%" in text:
            raise InvalidHost("an address of one network card")
        if text.startswith("[") and text.endswith("]"):
            return IPv6Address(text[1:-1])
        if ":" in text:
            return IPv6Address(text)
        name = text.removesuffix(".")
        labels = name.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return IPv4Address(text)
    except ValueError as error:
        raise InvalidHost(str(error)) from error
    if len(name) > MAX_NAME_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidHost(f"not a host name: {text!r:.80}")
    return name.lower()
