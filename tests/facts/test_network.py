"""What the standard library, h11 and Trio do with addresses, names, URLs and answers."""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_address
from urllib.parse import urlsplit

import h11
import pytest
import trio


@pytest.mark.parametrize(
    "text",
    [
        *("64:ff9b::7f00:1", "::127.0.0.1", "fec0::1"),
        *("192.88.99.1", "224.0.0.1", "ff0e::1"),
    ],
)
def test_t053_is_global_is_no_guard(text):
    """Should one of these change, the table of `net.guard` can stay as it is."""
    assert ip_address(text).is_global


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0", "0.0.0.0"),
    ],
)
def test_t053_getaddrinfo_reads_numbers_as_addresses(text, found):
    assert socket.getaddrinfo(text, 443, type=socket.SOCK_STREAM)[0][4][0] == found


def test_t120_urlsplit_drops_tabs_and_line_breaks():
    assert urlsplit("https://exa\tmp\nle.org/").hostname == "example.org"


def test_t057_the_common_name_counts_by_default():
    assert ssl.create_default_context().hostname_checks_common_name


def test_a_server_name_with_a_leading_dot_is_an_error_of_its_own():
    context = ssl.create_default_context()
    with pytest.raises(ValueError, match=r"idna|dot"):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=".a.test")


def client() -> h11.Connection:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1000)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a.test")]))
    connection.send(h11.EndOfMessage())
    return connection


def test_h11_takes_an_answer_with_length_and_chunks():
    connection = client()
    connection.receive_data(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert isinstance(connection.next_event(), h11.Response)


def test_h11_bounds_only_what_is_incomplete():
    connection = client()
    connection.receive_data(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 5000 + b"\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Response)


def test_h11_reads_interim_answers_without_end():
    connection = client()
    connection.receive_data(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
    for _ in range(100):
        assert isinstance(connection.next_event(), h11.InformationalResponse)


async def test_trio_connects_to_an_address_without_a_thread():
    """An address that was checked is not looked up again."""
    started = []
    real = trio.to_thread.run_sync

    async def run_sync(*arguments, **more):
        started.append(arguments)
        return await real(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", run_sync)
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with trio.socket.socket(family) as sock:
                with pytest.raises(OSError, match=r"refused|assign|unreachable"):
                    await sock.connect((address, 1))
    assert started == []
