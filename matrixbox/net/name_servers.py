"""The name servers themselves, spoken to by dnspython.

A module of its own, since dnspython takes long to import: it is read when first something is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.rdtypes.IN.SRV
import dns.resolver
import trio

from matrixbox.net.exchange import Target
from matrixbox.net.guard import InvalidHost, IPAddress, is_port_allowed, parse_host
from matrixbox.net.records import (
    LOOKUP_S,
    MAX_RECORDS,
    MIN_TTL_S,
    Kind,
    LookupFailed,
    Records,
    Service,
)

TRY_S = 2.0  # one name server, one question
MAX_TTL_S = 24 * 3600
MAX_NEGATIVE_TTL_S = 3600
RELOAD_S = 30.0
"""How often to see whether the list of name servers has changed."""

RESOLV_CONF = Path("/etc/resolv.conf")

_TRIO = dns.asyncbackend.get_backend("trio")


class NameServers:
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

    async def ask(self, name: str, kind: Kind) -> tuple[Records, float]:
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
                dns.rdatatype.from_text(kind),
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
