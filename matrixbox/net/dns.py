"""Addresses and SRV records of names, cached.

RFC 1034, RFC 2308 (negative answers), RFC 2782 (SRV), RFC 8767 (stale answers while no name server
answers); threats T054, T056.  The hosts file goes first.  Names without a dot are the system's
business (search lists), and so are names that the DNS does not know.
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio

from matrixbox.net.caching import Cache
from matrixbox.net.exchange import Target
from matrixbox.net.guard import IPAddress, parse_host
from matrixbox.net.hosts import HostsFile, ask_system
from matrixbox.net.records import (
    LOOKUP_S,
    MIN_TTL_S,
    Answering,
    Kind,
    LookupFailed,
    Records,
    Service,
)

OTHER_FAMILY_S = 0.3
"""How long to wait for the addresses of the second family when the first has answered."""
STALE_AFTER_S = 1.8
"""How long to wait for an answer while there is a stale one (RFC 8767, client response timer)."""
SRV_S = 3.0
SRV_OF_HOSTS_FILE_S = 0.5

STALE_S = 24 * 3600
FAILURE_S = 10.0
"""How long a name whose look-up failed is not asked for again."""
SRV_FAILURE_S = 120.0  # some routers never answer for SRV: nobody waits for them each time
MAX_CACHED = 4096
MAX_ADDRESSES = 16
MAX_TARGETS = 4

Question: TypeAlias = tuple[str, Kind]
Ask: TypeAlias = Callable[[str], Awaitable[tuple[IPAddress, ...]]]


class Resolver:
    """Answers what a name's addresses and services are.

    `nameservers` and `port` are for other name servers than those of the system.
    """

    def __init__(
        self,
        *,
        nameservers: Sequence[str] | None = None,
        port: int = 53,
        hosts: HostsFile | None = None,
        system: Ask = ask_system,
    ) -> None:
        self._told = (nameservers, port)
        self._opened: Answering | None = None
        self._hosts = HostsFile() if hosts is None else hosts
        self._system = system
        self._cache: Cache[Question, Records | None] = Cache(MAX_CACHED)
        self._known_to_system: Cache[str, tuple[IPAddress, ...]] = Cache(MAX_CACHED)

    async def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """The addresses of a DNS name, IPv6 and IPv4 by turns; none when there is no such name.

        Raises LookupFailed when that cannot be told, InvalidHost for what is not a name.
        """
        found = parse_host(name)
        if not isinstance(found, str):
            return (found,)
        if known := self._hosts.addresses(found):
            return _by_turns(known)
        if "." in found and (await self._servers()).exist:
            both = await self._both_families(found)
            if both:
                return _by_turns(both)
        return _by_turns(await self._from_system(found))

    async def services(self, name: str) -> tuple[Target, ...] | None:
        """The targets of an SRV name in the order to try them (a new one each time, RFC 2782).

        None when there are no such records; an empty tuple when they say that there is no such
        service.  Raises LookupFailed.
        """
        host = parse_host(name.removeprefix("_matrix-fed._tcp.").removeprefix("_matrix._tcp."))
        if not isinstance(host, str) or "." not in host:
            return None
        if not (await self._servers()).exist:
            return None
        at_most_s = SRV_OF_HOSTS_FILE_S if self._hosts.addresses(host) else SRV_S
        records = await self._records(name, "SRV", at_most_s, SRV_FAILURE_S)
        found = [record for record in records if isinstance(record, Service)]
        if not found:
            return None
        usable = (each.target for each in _in_order(found))
        return tuple(target for target in usable if target.host != "")[:MAX_TARGETS]

    async def _both_families(self, name: str) -> tuple[IPAddress, ...]:
        """Addresses of both families; raises LookupFailed when neither was answered for."""
        found: list[IPAddress] = []
        failures: list[LookupFailed] = []

        async with trio.open_nursery() as nursery:

            async def ask(family: Kind) -> None:
                try:
                    records = await self._records(name, family)
                except LookupFailed as error:
                    failures.append(error)
                    return
                found.extend(record for record in records if not isinstance(record, Service))
                if records:
                    limit = trio.current_time() + OTHER_FAMILY_S
                    nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, limit)

            nursery.start_soon(ask, "AAAA")
            nursery.start_soon(ask, "A")
        if not found and failures:
            raise failures[0]
        return tuple(found)

    async def _from_system(self, name: str) -> tuple[IPAddress, ...]:
        """What the system's resolver says; it is asked at most once a minute."""
        async with self._known_to_system.alone(name):
            entry = self._known_to_system.get(name)
            if entry is not None:
                return entry.value
            with trio.move_on_after(LOOKUP_S):
                found = (await self._system(name))[:MAX_ADDRESSES]
                self._known_to_system.put(name, found, MIN_TTL_S)
                return found
        raise LookupFailed(f"no answer about {name}")

    async def _records(
        self,
        name: str,
        kind: Kind,
        at_most_s: float = LOOKUP_S,
        failure_s: float = FAILURE_S,
    ) -> Records:
        """The records of one kind, from the cache when they are fresh; a failure is kept too."""
        key = (name, kind)
        servers = await self._servers()
        async with self._cache.alone(key):
            entry = self._cache.get(key)
            if entry is not None and entry.is_fresh:
                return _or_failed(name, entry.value)
            stale = None if entry is None else entry.value
            try:
                with trio.fail_after(at_most_s if stale is None else min(at_most_s, STALE_AFTER_S)):
                    records, ttl_s = await servers.ask(name, kind)
            except (LookupFailed, trio.TooSlowError):
                # Also a stale answer is not asked about again at once, nor does it live longer.
                left_s = 0.0 if entry is None else entry.useful_until_s - trio.current_time()
                self._cache.put(key, stale, min(failure_s, left_s or failure_s), left_s)
                return _or_failed(name, stale)
            self._cache.put(key, records, ttl_s, ttl_s + STALE_S if records else 0)
            return records

    async def _servers(self) -> Answering:
        """The name servers; their library is imported when the first is wanted, in a thread."""
        if self._opened is None:
            name = "matrixbox.net.name_servers"
            module = await trio.to_thread.run_sync(importlib.import_module, name)
            opened: Answering = self._opened or module.NameServers(*self._told)
            self._opened = opened
        return self._opened


def _or_failed(name: str, records: Records | None) -> Records:
    if records is None:
        raise LookupFailed(f"no answer about {name}")
    return records


def _by_turns(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """IPv6 and IPv4 by turns, IPv6 first, so that one broken family costs one attempt."""
    families = [[each for each in addresses if each.version == version] for version in (6, 4)]
    longest = max(map(len, families))
    return tuple(family[n] for n in range(longest) for family in families if n < len(family))


def _in_order(services: Sequence[Service]) -> list[Service]:
    """By priority; within one priority at random by weight (RFC 2782)."""
    ordered: list[Service] = []
    for priority in sorted({service.priority for service in services}):
        left = [service for service in services if service.priority == priority]
        left.sort(key=lambda service: service.weight)  # those of weight 0 have a chance first
        while left:
            drawn = secrets.randbelow(sum(service.weight for service in left) + 1)
            chosen = left[-1]
            for service in left:
                drawn -= service.weight
                if drawn <= 0:
                    chosen = service
                    break
            left.remove(chosen)
            ordered.append(chosen)
    return ordered
