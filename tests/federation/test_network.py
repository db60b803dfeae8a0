"""The transport as the settings make it, over real sockets ([B1.01]; threats T053)."""

from __future__ import annotations

import pytest
import trio

from matrixbox.config.settings import Outbound
from matrixbox.core.identifiers import ServerName
from matrixbox.errors import AddressRefused, RemoteUnreachable
from matrixbox.federation.network import new_transport
from matrixbox.federation.transport import Limits, Request
from matrixbox.observe.health import Parts
from tests.net.web import authority, reply, web

OWN = ServerName("own.test")
GET = Request("GET", "/_matrix/federation/v1/version")


@pytest.fixture
def ca(tmp_path):
    """A file with the tests' authority."""
    file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(file)
    return file


async def test_the_settings_decide_whom_to_trust_and_where_to_go(ca):
    async with web() as server, trio.open_nursery() as nursery:
        server.certify("127.0.0.1")
        server.replies[()] = reply(b'{"server": {}}')
        far = ServerName(f"127.0.0.1:{server.port}")
        opened = new_transport(
            Outbound(extra_ca_files=(ca,), allow_private_addresses=True), OWN, Parts()
        )
        nursery.start_soon(opened.run)
        assert (await opened.exchange(far, GET, Limits())).body == b'{"server": {}}'
        assert server.seen[0].headers["user-agent"].startswith("matrixbox/")
        with pytest.raises(RemoteUnreachable, match="certificate"):
            await new_transport(Outbound(allow_private_addresses=True), OWN, Parts()).exchange(
                far, GET, Limits()
            )
        connections = server.connections
        with pytest.raises(AddressRefused):
            await new_transport(Outbound(extra_ca_files=(ca,)), OWN, Parts()).exchange(
                far, GET, Limits()
            )
        assert server.connections == connections, "no packet"
        nursery.cancel_scope.cancel()


async def test_connections_are_closed_when_the_transport_ends(ca):
    async with web() as server, trio.open_nursery() as nursery:
        server.certify("127.0.0.1")
        server.replies[()] = reply()
        transport = new_transport(
            Outbound(extra_ca_files=(ca,), allow_private_addresses=True), OWN, Parts()
        )
        nursery.start_soon(transport.run)
        far = ServerName(f"127.0.0.1:{server.port}")
        for _ in range(3):
            await transport.exchange(far, GET, Limits())
        assert server.connections == 1
        (pool,) = transport.http._pools.values()
        assert len(pool.idle) == 1
        nursery.cancel_scope.cancel()
    assert not pool.idle


def test_t151_authorities_that_cannot_be_read_are_told_and_the_others_are_used(tmp_path):
    there, parts = tmp_path / "ca.pem", Parts()
    authority().cert_pem.write_to_path(there)
    transport = new_transport(Outbound(extra_ca_files=(tmp_path / "none.pem", there)), OWN, parts)
    assert parts.problems() == {f"authorities {tmp_path / 'none.pem'}": "No such file or directory"}
    context = transport.http._dialler._context
    assert context.cert_store_stats()["x509_ca"] > 0
