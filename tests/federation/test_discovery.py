"""Where a server is: every step of the specification, over real DNS and real TLS.

Matrix v1.19, Server-Server API, "Resolving server names" [B2.01]-[B2.11].
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import frozen

from matrixbox.core.identifiers import ServerName
from matrixbox.errors import AddressRefused, RemoteError, RemoteTimeout, RemoteUnreachable
from matrixbox.federation.discovery import Discovery
from matrixbox.federation.network import NetworkTransport
from matrixbox.federation.transport import Limits, Request
from tests.net.calling import IP, IP6, Net, net
from tests.net.web import reply, silence

WELL_KNOWN = "/.well-known/matrix/server"
OTHER = "5.6.7.8"
FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."
QUICK = Limits(total_s=5.0, idle_s=2.0, max_bytes=1000)


@frozen
class World:
    """The network, and our way through it."""

    net: Net
    discovery: Discovery
    transport: NetworkTransport

    def delegate(self, host: str, document: bytes) -> None:
        """Publish a well-known document."""
        self.net.web.on(host, WELL_KNOWN, reply(document))

    async def ask(self, server: str) -> tuple[str, int, str, str | None]:
        """Address and port that answered, and Host and SNI that it saw; a certificate was shown."""
        before = len(self.net.web.seen)
        answer = await self.transport.exchange(ServerName(server), Request("GET", "/v"), QUICK)
        assert answer.body == b"matrix"
        seen = self.net.web.seen[-1]
        assert len(self.net.web.seen) > before
        assert seen.target == "/v"
        return (*self.net.switchboard.rings[-1], seen.host, seen.sni)


@asynccontextmanager
async def world(*, srv_lookups: bool = True, allow_private: bool = False) -> AsyncIterator[World]:
    async with net(allow_private=allow_private) as it:
        resolver = it.switchboard._resolver
        discovery = Discovery(it.client, resolver, srv_lookups=srv_lookups)
        transport = NetworkTransport(ServerName("own.test"), it.client, discovery)
        found = World(it, discovery, transport)
        for host in ("a.test", "b.test"):
            for name in (host, f"{host}:8448", f"{host}:1234"):
                it.web.on(name, "/v", reply(b"matrix"))
        yield found


def literal(it: World, address: str, *ports: int) -> None:
    it.net.web.certify(address)
    for port in ports:
        it.net.switchboard.lines[address, port] = it.net.web.port
    shown = f"[{address}]" if ":" in address else address
    for name in (shown, *(f"{shown}:{port}" for port in ports)):
        it.net.web.on(name, "/v", reply(b"matrix"))


@pytest.mark.parametrize(
    ("server", "address", "port"),
    [
        ("1.2.3.4", "1.2.3.4", 8448),
        ("1.2.3.4:1234", "1.2.3.4", 1234),
        ("[2a00::4]", "2a00::4", 8448),
        ("[2A00:0::4]:1234", "2a00::4", 1234),
    ],
)
async def test_b2_01_an_address_is_dialled_as_it_is(server, address, port):
    async with world() as it:
        literal(it, address, 8448, 1234)
        it.net.web.on(server, "/v", reply(b"matrix"))
        assert await it.ask(server) == (address, port, server, None)
        assert not it.net.names.asked


async def test_b2_02_a_name_with_a_port_knows_no_delegation():
    async with world() as it:
        it.net.site("a.test", IP, 443, 1234)
        it.delegate("a.test", b'{"m.server": "b.test"}')
        it.net.names.add(FED + "a.test", "SRV", "0 0 8448 b.test.")
        assert await it.ask("a.test:1234") == (IP, 1234, "a.test:1234", "a.test")
        assert len(it.net.web.seen) == 1
        assert (FED + "a.test", "SRV") not in it.net.names.asked


async def test_b2_02_the_name_may_be_an_alias():
    async with world() as it:
        it.net.site("a.test", IP, 1234)
        it.net.names.drop("a.test")
        it.net.names.add("a.test", "CNAME", "c.test.")
        it.net.names.add("c.test", "A", OTHER)
        it.net.switchboard.lines[OTHER, 1234] = it.net.web.port
        assert await it.ask("a.test:1234") == (OTHER, 1234, "a.test:1234", "a.test")


@pytest.mark.parametrize(
    ("delegated", "address", "port", "sni"),
    [
        ("5.6.7.8", "5.6.7.8", 8448, None),
        ("5.6.7.8:1234", "5.6.7.8", 1234, None),
        ("[2a00::4]", "2a00::4", 8448, None),
        ("[2a00::4]:1234", "2a00::4", 1234, None),
        ("b.test:1234", OTHER, 1234, "b.test"),
        ("B.test:1234", OTHER, 1234, "b.test"),
    ],
)
async def test_b2_04_delegation_to_an_address_or_a_port(delegated, address, port, sni):
    async with world() as it:
        it.net.site("a.test")
        it.net.site("b.test", OTHER, 1234)
        literal(it, address, 8448, 1234)
        it.net.web.on(delegated, "/v", reply(b"matrix"))
        it.delegate("a.test", b'{"m.server": "%s", "more": 1}' % delegated.encode())
        assert await it.ask("a.test") == (address, port, delegated, sni)


@pytest.mark.parametrize("service", [FED, OLD])
async def test_b2_05_b2_06_delegation_to_a_name_with_service_records(service):
    """The certificate and Host are the delegated name's, not those of the record's target."""
    async with world() as it:
        it.net.site("a.test")
        it.net.names.add(service + "b.test", "SRV", "0 0 1234 target.test.")
        it.net.names.add("target.test", "A", OTHER)
        it.net.web.certify("b.test")
        it.net.switchboard.lines[OTHER, 1234] = it.net.web.port
        it.delegate("a.test", b'{"m.server": "b.test"}')
        assert await it.ask("a.test") == (OTHER, 1234, "b.test", "b.test")


async def test_b2_05_delegation_to_a_name_without_service_records():
    async with world() as it:
        it.net.site("a.test")
        it.net.site("b.test", OTHER)
        it.delegate("a.test", b'{"m.server": "b.test"}')
        it.delegate("b.test", b'{"m.server": "c.test"}')
        assert await it.ask("a.test") == (OTHER, 8448, "b.test", "b.test")
        assert ("b.test", WELL_KNOWN) not in {(seen.host, seen.target) for seen in it.net.web.seen}


@pytest.mark.parametrize("service", [FED, OLD])
async def test_b2_07_service_records_of_the_name_itself(service):
    async with world() as it:
        it.net.names.add(service + "a.test", "SRV", "0 0 1234 target.test.")
        it.net.names.add("target.test", "AAAA", IP6)
        it.net.web.certify("a.test")
        it.net.switchboard.lines[IP6, 1234] = it.net.web.port
        assert await it.ask("a.test") == (IP6, 1234, "a.test", "a.test")


async def test_b2_07_the_newer_service_goes_first():
    async with world() as it:
        it.net.site("a.test", IP, 1234, 1235)
        it.net.names.add(FED + "a.test", "SRV", "0 0 1234 a.test.")
        it.net.names.add(OLD + "a.test", "SRV", "0 0 1235 a.test.")
        assert (await it.ask("a.test"))[1] == 1234


async def test_b2_07_nothing_but_the_name():
    async with world() as it:
        it.net.site("a.test", IP, 8448)
        assert await it.ask("a.test") == (IP, 8448, "a.test", "a.test")
        assert it.net.names.asked[FED + "a.test", "SRV"] == 1
        assert it.net.names.asked[OLD + "a.test", "SRV"] == 1


async def test_service_records_are_not_asked_for_when_the_setting_says_so():
    async with world(srv_lookups=False) as it:
        it.net.site("a.test", IP, 8448)
        it.net.names.add(FED + "a.test", "SRV", "0 0 1234 b.test.")
        assert await it.ask("a.test") == (IP, 8448, "a.test", "a.test")
        assert not any(kind == "SRV" for _, kind in it.net.names.asked)


async def test_b2_09_the_second_target_answers_when_the_first_does_not():
    async with world() as it:
        it.net.names.add(FED + "a.test", "SRV", "1 0 1234 one.test.", "2 0 1235 two.test.")
        it.net.names.add("one.test", "A", IP)
        it.net.names.add("two.test", "A", OTHER)
        it.net.web.certify("a.test")
        it.net.switchboard.lines[OTHER, 1235] = it.net.web.port
        assert await it.ask("a.test") == (OTHER, 1235, "a.test", "a.test")


async def test_b2_09_a_service_that_is_said_not_to_exist():
    async with world() as it:
        it.net.site("a.test", IP, 8448)
        it.net.names.add(FED + "a.test", "SRV", "0 0 0 .")
        with pytest.raises(RemoteUnreachable):
            await it.ask("a.test")


async def test_t056_service_records_that_never_come_hold_up_nobody_for_long(mock_clock):
    async with world() as it:
        it.net.site("a.test", IP, 8448)
        it.net.names.silent.update({FED + "a.test", OLD + "a.test"})
        mock_clock.rate = 5
        assert await it.ask("a.test") == (IP, 8448, "a.test", "a.test")
        before = trio.current_time()
        await it.ask("a.test")
        assert trio.current_time() - before < 1


async def test_b2_06_t057_the_target_s_certificate_is_not_enough():
    async with world() as it:
        it.net.names.add(FED + "a.test", "SRV", "0 0 1234 b.test.")
        it.net.site("b.test", IP, 1234)
        it.net.web.names["a.test"] = it.net.web.names["b.test"]
        with pytest.raises(RemoteUnreachable) as caught:
            await it.ask("a.test")
        assert "certificate" in caught.value.text
        assert it.net.web.seen == []


REFUSED = [
    *("127.0.0.1", "127.0.0.1:8448", "10.0.0.1:8448", "[::1]", "[::ffff:10.0.0.1]:8448"),
    *("127.1", "0x7f.1", "2130706433", "0", "[64:ff9b::7f00:1]", "[2002:7f00:1::]:443", "0.0.0.0"),
    *("a.test:22", "a.test:25", "1.2.3.4:6667", "a.test:0", "a.test:99999", "1.2.3.999", "a..test"),
    *("１２７.0.0.1", "a.test/x", "u@a.test", "a.test:", "a.test:x", "", ":8448", "[::1", "a b"),
    *("[fe80::1%eth0]", "a_b.test:8448", "-a.test", "a" * 64 + ".test", ".", "exämple.org", "\x00"),
]


@pytest.mark.parametrize("server", REFUSED)
async def test_t053_t059_server_names_that_are_never_dialled(server):
    async with world() as it:
        with pytest.raises(AddressRefused):
            await it.ask(server)
        assert it.net.switchboard.rings == []


@pytest.mark.parametrize("server", REFUSED)
async def test_t053_t055_delegations_that_are_never_dialled(server):
    """What is no server name counts as no delegation; what is one, but leads inside, is refused."""
    async with world() as it:
        it.net.site("a.test", IP, 443)
        it.delegate("a.test", b'{"m.server": %s}' % json_text(server))
        with pytest.raises(RemoteError):
            await it.ask("a.test")
        assert set(it.net.switchboard.rings) <= {(IP, 443), (IP, 8448)}


def json_text(text: str) -> bytes:
    import json

    return json.dumps(text).encode()


@pytest.mark.parametrize("record", ["127.0.0.1", "192.168.1.1", "169.254.169.254"])
async def test_t053_service_records_that_lead_inside(record):
    async with world() as it:
        it.net.names.add(FED + "a.test", "SRV", "0 0 8448 inside.test.")
        it.net.names.add("inside.test", "A", record)
        with pytest.raises(AddressRefused):
            await it.ask("a.test")
        assert it.net.switchboard.rings == []


@pytest.mark.parametrize("server", ["own.test"])
async def test_t058_our_own_name_is_never_dialled(server):
    async with world() as it:
        with pytest.raises(AddressRefused):
            await it.ask(server)
        assert it.net.switchboard.rings == []
        assert not it.net.names.asked


async def test_the_total_deadline_counts_from_the_beginning(mock_clock):
    async with world() as it:
        it.net.site("a.test")
        it.net.web.on("a.test", WELL_KNOWN, silence)
        mock_clock.rate = 10
        before = trio.current_time()
        with pytest.raises(RemoteTimeout):
            await it.ask("a.test")
        assert trio.current_time() - before < QUICK.total_s + 2


async def test_a_server_that_streams():
    async with world() as it:
        it.net.site("a.test", IP, 8448)
        it.net.web.on("a.test", "/v", reply(b"x" * 900))
        request = Request("GET", "/v")
        async with it.transport.stream(ServerName("a.test"), request, QUICK) as answer:
            assert answer.status == 200
            assert answer.headers["content-length"] == "900"
            assert b"".join([piece async for piece in answer]) == b"x" * 900


async def test_b2_10_errors_name_the_server_and_not_its_delegate():
    async with world() as it:
        it.net.site("a.test")
        it.delegate("a.test", b'{"m.server": "b.test:1234"}')
        with pytest.raises(RemoteUnreachable) as caught:
            await it.ask("a.test")
        assert caught.value.destination == "a.test"
