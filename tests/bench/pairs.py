"""Two servers of a kind that federate over TLS on loopback, for measurements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.peers.addresses import free_port
from tests.peers.synapse_peer import TestCA, federating_pair
from tests.server import running_server

ADDRESSES = ("127.0.0.4", "127.0.0.5")

Running = tuple[str, int]  # address for clients, process


@contextmanager
def two_matrixboxes(folder: Path) -> Iterator[list[Running]]:
    """Two of ours."""
    ca = TestCA(folder / "ca")
    with ExitStack() as stack:
        found = []
        for number, address in enumerate(ADDRESSES):
            own = folder / f"{number}"
            own.mkdir()
            port = free_port(address)
            chain, key = ca.issue(address, "localhost", folder=own)
            settings = {
                "listen": {"https": [f"{address}:{port}"]},
                "tls": {"mode": "files", "cert": str(chain), "key": str(key)},
                "outbound": {
                    "extra_ca_files": [str(ca.cert_path)],
                    "allow_private_addresses": True,
                    "srv_lookups": False,
                },
            }
            name = f"{address}:{port}"
            server = stack.enter_context(running_server(own, settings, name=name))
            found.append((server.base_url, server.pid))
        yield found


@contextmanager
def two_synapses(folder: Path, venv: Path) -> Iterator[list[Running]]:
    """Two of theirs."""
    with federating_pair(folder, venv) as peers:
        for peer in peers:
            peer.wait_background_updates()
        yield [(peer.client_url, peer.pid) for peer in peers]
