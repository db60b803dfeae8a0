"""What is broken at the start stops nothing else, and is told (T151)."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

import pytest
import trio

from matrixbox.observe.health import Parts
from matrixbox.serve import certificate
from matrixbox.serve.certificate import Certificate
from tests.net.web import authority
from tests.server import free_port, running_server


def certify(chain: Path, key: Path, name: str) -> None:
    """Write a certificate for `name`, as a program that renews them does."""
    issued = authority().issue_cert(name)
    for file, blobs in ((chain, issued.cert_chain_pems), (key, [issued.private_key_pem])):
        half = file.with_suffix(".half")
        half.write_bytes(b"".join(blob.bytes() for blob in blobs))
        half.replace(file)


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_t151_without_a_usable_certificate_the_other_listeners_serve(tmp_path, content):
    chain, key, port = tmp_path / "chain.pem", tmp_path / "key.pem", free_port()
    if content is not None:
        chain.write_bytes(content)
        key.write_bytes(content)
    settings = {
        "listen": {"https": [f"127.0.0.1:{port}"]},
        "tls": {"mode": "files", "cert": str(chain), "key": str(key)},
        "outbound": {"extra_ca_files": [str(tmp_path / "none.pem")]},
    }
    with running_server(tmp_path, settings) as server:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with pytest.raises((ssl.SSLError, ConnectionError)):
                context.wrap_socket(plain)
        assert server.answers()
        told = server.log_tail()
    assert "Does not work, and the rest goes on without it: certificate: " in told
    assert str(chain) in told
    assert f"authorities {tmp_path / 'none.pem'}: No such file" in told


def test_t151_an_address_that_is_taken_is_listened_on_when_it_gets_free(tmp_path):
    with running_server(tmp_path) as server, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert server.stop() == 0
        own = f'"127.0.0.1:{server.port}"'
        text = server.config.read_text()
        server.config.write_text(text.replace(own, f'{own}, "127.0.0.1:{port}"', 1))
        server.start()
        assert f"http 127.0.0.1:{port}: Address already in use" in server.log_tail()
        taken.close()
        give_up = time.monotonic() + 30
        while not listens(port):
            assert time.monotonic() < give_up, server.log_tail()
            time.sleep(0.2)


def listens(port: int) -> bool:
    """Whether somebody accepts connections."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_t061_a_renewed_certificate_is_served_and_a_bad_one_is_not(tmp_path):
    chain, key, parts = tmp_path / "chain.pem", tmp_path / "key.pem", Parts()
    mine = Certificate(chain, key, parts)
    mine.look()
    assert list(parts.problems()) == [certificate.PART]
    certify(chain, key, "home.test")
    mine.look()
    assert parts.problems() == {}
    first = mine.context
    mine.look()
    assert mine.context is first, "files that did not change are not read again"
    chain.write_bytes(b"half a file")
    mine.look()
    assert mine.context is first, "the last one that was usable stays"
    assert list(parts.problems()) == [certificate.PART]
    certify(chain, key, "home.test")
    mine.look()
    assert mine.context is not first
    assert parts.problems() == {}


async def test_t061_the_files_are_looked_at_once_a_minute(tmp_path, nursery, autojump_clock):
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    mine = Certificate(chain, key, Parts())
    mine.look()
    before = mine.context
    nursery.start_soon(mine.run)
    certify(chain, key, "home.test")
    await trio.sleep(certificate.LOOK_EVERY_S - 1)
    assert mine.context is before
    await trio.sleep(2)
    assert mine.context is not before
