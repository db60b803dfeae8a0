"""Addresses and SRV records of names, cached.

RFC 1034, RFC 2308 (negative answers), RFC 2782 (SRV), RFC 8767 (stale answers while no name server
answers); threats T054, T056.  The hosts file goes first.  Names without a dot are the system's
business (search lists), and so are names that the DNS does not know.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.rdtypes.IN.SRV
import dns.resolver
import trio
from attrs import frozen

from matrixbox.net.caching import Cache
from matrixbox.net.exchange import Target
from matrixbox.net.guard import InvalidHost, IPAddress, is_port_allowed, parse_host
from matrixbox.net.hosts import HostsFile, ask_system

LOOKUP_S = 5.0
TRY_S = 2.0  # one name server, one question
OTHER_FAMILY_S = 0.3
"""How long to wait for the addresses of the second family when the first has answered."""
STALE_AFTER_S = 1.8
"""How long to wait for an answer while there is a stale one (RFC 8767, client response timer)."""
SRV_S = 3.0
SRV_OF_HOSTS_FILE_S = 0.5

MIN_TTL_S = 60
MAX_TTL_S = 24 * 3600
MAX_NEGATIVE_TTL_S = 3600
STALE_S = 24 * 3600
FAILURE_S = 10.0
"""How long a name whose look-up failed is not asked for again."""
SRV_FAILURE_S = 120.0  # some routers never answer for SRV: nobody waits for them each time
MAX_CACHED = 4096
MAX_ADDRESSES = 16
MAX_TARGETS = 4
MAX_RECORDS = 64
RELOAD_S = 30.0
"""How often to see whether the list of name servers has changed."""

RESOLV_CONF = Path("/etc/resolv.conf")

_TRIO = dns.asyncbackend.get_backend("trio")


class LookupFailed(Exception):
    """No name server gave an answer: whether the name exists is unknown."""


@frozen
class Service:
    """One SRV record."""

    priority: int
    weight: int
    target: Target


Question: TypeAlias = tuple[str, dns.rdatatype.RdataType]
Records: TypeAlias = tuple[IPAddress | Service, ...]
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
        self._servers = _Servers(nameservers, port)
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
        if "." in found and self._servers.exist:
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
        if not isinstance(host, str) or "." not in host or not self._servers.exist:
            return None
        at_most_s = SRV_OF_HOSTS_FILE_S if self._hosts.addresses(host) else SRV_S
        records = await self._records(name, dns.rdatatype.SRV, at_most_s, SRV_FAILURE_S)
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

            async def ask(family: dns.rdatatype.RdataType) -> None:
                try:
                    records = await self._records(name, family)
                except LookupFailed as error:
                    failures.append(error)
                    return
                found.extend(record for record in records if not isinstance(record, Service))
                if records:
                    limit = trio.current_time() + OTHER_FAMILY_S
                    nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, limit)

            nursery.start_soon(ask, dns.rdatatype.AAAA)
            nursery.start_soon(ask, dns.rdatatype.A)
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
        kind: dns.rdatatype.RdataType,
        at_most_s: float = LOOKUP_S,
        failure_s: float = FAILURE_S,
    ) -> Records:
        """The records of one kind, from the cache when they are fresh; a failure is kept too."""
        key = (name, kind)
        async with self._cache.alone(key):
            entry = self._cache.get(key)
            if entry is not None and entry.is_fresh:
                return _or_failed(name, entry.value)
            stale = None if entry is None else entry.value
            try:
                with trio.fail_after(at_most_s if stale is None else min(at_most_s, STALE_AFTER_S)):
                    records, ttl_s = await self._servers.ask(name, kind)
            except (LookupFailed, trio.TooSlowError):
                # Also a stale answer is not asked about again at once, nor does it live longer.
                left_s = 0.0 if entry is None else entry.useful_until_s - trio.current_time()
                self._cache.put(key, stale, min(failure_s, left_s or failure_s), left_s)
                return _or_failed(name, stale)
            self._cache.put(key, records, ttl_s, ttl_s + STALE_S if records else 0)
            return records


def _or_failed(name: str, records: Records | None) -> Records:
    if records is None:
        raise LookupFailed(f"no answer about {name}")
    return records


class _Servers:
    """The name servers, read again when the system's list has changed."""

    def __init__(self, nameservers: Sequence[str] | None, port: int) -> None:
        self._fixed = nameservers is not None
        self._looked_s = float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._resolver: dns.asyncresolver.Resolver | None = None
        if nameservers is not None:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            self._resolver.nameservers = list(nameservers)
            self._resolver.port = port
            self._prepare()

    @property
    def exist(self) -> bool:
        """Whether there is a name server to ask."""
        self._look()
        return self._resolver is not None

    async def ask(self, name: str, kind: dns.rdatatype.RdataType) -> tuple[Records, float]:
        """The records of a name and how long they hold; none if there are none.

        Raises LookupFailed.
        """
        if self._resolver is None:
            raise LookupFailed("no name server is known")
        try:
            question = dns.name.from_text(name)
        except dns.exception.DNSException:
            return (), MIN_TTL_S  # too long: no such name
        try:
            answer = await self._resolver.resolve(
                question,
                kind,
                search=False,
                raise_on_no_answer=False,
                lifetime=LOOKUP_S,
                backend=_TRIO,
            )
            ttl = answer.chaining_result.minimum_ttl
            records = _read_all(answer) if answer.rrset is not None else ()
        except dns.resolver.NXDOMAIN as error:
            try:
                response: dns.message.QueryMessage = error.response(question)  # type: ignore[no-untyped-call]
                ttl = response.resolve_chaining().minimum_ttl
            except (dns.exception.DNSException, KeyError):
                ttl = MIN_TTL_S
            records = ()
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupFailed(f"no answer about {name}: {type(error).__name__}") from error
        most = MAX_TTL_S if records else MAX_NEGATIVE_TTL_S
        return records, min(max(ttl, MIN_TTL_S), most)

    def _look(self) -> None:
        now = trio.current_time()
        if self._fixed or now - self._looked_s < RELOAD_S:
            return
        self._looked_s = now
        try:
            status = RESOLV_CONF.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            self._resolver = dns.asyncresolver.Resolver(str(RESOLV_CONF))
            self._stamp = stamp
        except (OSError, dns.exception.DNSException, ValueError):
            self._resolver, self._stamp = None, None
            return
        self._prepare()

    def _prepare(self) -> None:
        assert self._resolver is not None
        self._resolver.timeout = TRY_S
        self._resolver.lifetime = LOOKUP_S
        self._resolver.use_edns(0, 0, 1232)


def _read_all(answer: dns.resolver.Answer) -> Records:
    """As many records as anybody needs; of services those of the best priorities."""
    found = [_read(rdata) for rdata in answer]
    services = [each for each in found if isinstance(each, Service)]
    services.sort(key=lambda service: service.priority)
    return (*(each for each in found if not isinstance(each, Service)), *services)[:MAX_RECORDS]


def _read(rdata: object) -> IPAddress | Service:
    if isinstance(rdata, dns.rdtypes.IN.SRV.SRV):
        host = rdata.target.to_text(omit_final_dot=True)
        return Service(rdata.priority, rdata.weight, Target(_target(host, rdata.port), rdata.port))
    found = parse_host(getattr(rdata, "address", ""))
    if isinstance(found, str):
        raise ValueError("not an address record")
    return found


def _target(host: str, port: int) -> str:
    """The host of an SRV record; empty when it says "no such service" or cannot be dialled."""
    try:
        found = parse_host(host)
    except InvalidHost:
        return ""
    return found if isinstance(found, str) and is_port_allowed(port) else ""


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
