"""A name server on loopback that says what a test wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio
from attrs import Factory, define

from matrixbox.net.dns import Resolver
from matrixbox.net.guard import IPAddress
from matrixbox.net.hosts import HostsFile

SOA = "ns.test. admin.test. 1 1 1 1 300"


@define
class NameServer:
    """Records by name and type, and misbehaviour by name.

    What is in no record does not exist; a name with other records has "no such record".
    """

    port: int
    records: dict[tuple[str, str], list[str]] = Factory(dict)
    ttl_s: int = 3600
    silent: set[str | tuple[str, str]] = Factory(set)
    broken: set[str] = Factory(set)  # SERVFAIL
    garbage: set[str] = Factory(set)
    asked: Counter[tuple[str, str]] = Factory(Counter)
    tcp: int = 0

    def add(self, name: str, kind: str, *records: str) -> None:
        """Set the records of a name."""
        self.records[name, kind] = list(records)

    def drop(self, name: str) -> None:
        """Take a name away, with everything below it."""
        for known, kind in [*self.records]:
            if known == name or known.endswith("." + name):
                del self.records[known, kind]

    def answer(self, data: bytes, *, over_tcp: bool = False) -> bytes | None:
        """The answer to a question; None for silence."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        if name in self.silent or (name, kind) in self.silent:
            return None
        if name in self.garbage:
            return data[:2] + b"\x81\x80" + b"\xff" * 30
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        self._fill(response, name, kind)
        wire = response.to_wire(max_size=65535)
        if len(wire) > 1232 and not over_tcp:
            small = dns.message.make_response(query)
            small.flags |= dns.flags.TC
            return small.to_wire()
        return wire

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(20):
            alias = self.records.get((name, "CNAME"))
            if alias is None or kind == "CNAME":
                break
            response.answer.append(self._rrset(name, "CNAME", alias))
            name = alias[0].rstrip(".")
        found = self.records.get((name, kind))
        if found:
            response.answer.append(self._rrset(name, kind, found))
            return
        response.authority.append(self._rrset("test", "SOA", [SOA]))
        if not any(known == name or known.endswith("." + name) for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)

    def _rrset(self, name: str, kind: str, records: list[str]) -> dns.rrset.RRset:
        return dns.rrset.from_text(name + ".", self.ttl_s, "IN", kind, *records)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Run one, by UDP and TCP on one port."""
    udp, listener = await _sockets()
    server = NameServer(udp.getsockname()[1])

    async def by_udp() -> None:
        while True:
            data, peer = await udp.recvfrom(4096)
            with suppress(dns.exception.DNSException):
                if (answer := server.answer(data)) is not None:
                    await udp.sendto(answer, peer)

    async def by_tcp(stream: trio.SocketStream) -> None:
        data = await stream.receive_some(4096)
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            data += await stream.receive_some(4096)
        server.tcp += 1
        if (answer := server.answer(data[2:], over_tcp=True)) is not None:
            await stream.send_all(len(answer).to_bytes(2, "big") + answer)

    with udp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(by_udp)
            nursery.start_soon(trio.serve_listeners, by_tcp, [listener])
            yield server
            nursery.cancel_scope.cancel()


async def _sockets() -> tuple[trio.socket.SocketType, trio.SocketListener]:
    """For UDP and TCP, on one port that nobody else has."""
    while True:
        udp = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        await udp.bind(("127.0.0.1", 0))
        try:
            (listener,) = await trio.open_tcp_listeners(udp.getsockname()[1], host="127.0.0.1")
        except OSError:
            udp.close()
        else:
            return udp, listener


class System:
    """In place of the system's resolver: names it knows, and which it was asked for."""

    def __init__(self, **names: tuple[IPAddress, ...]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def __call__(self, name: str) -> tuple[IPAddress, ...]:
        self.asked.append(name)
        await trio.lowlevel.checkpoint()
        return self.names.get(name, ())


def resolver_of(
    server: NameServer, hosts: Path = Path("/nonexistent"), system: System | None = None
) -> Resolver:
    """A resolver that asks this server, no other, and a hosts file of the test."""
    return Resolver(
        nameservers=["127.0.0.1"],
        port=server.port,
        hosts=HostsFile(hosts),
        system=System() if system is None else system,
    )
