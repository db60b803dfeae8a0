"""TLS: a certificate is swapped under load, and only HTTP/1.1 is offered (T061, T069)."""

from __future__ import annotations

import signal
import ssl
from collections import Counter
from collections.abc import Iterator

import pytest
import trio

from tests.live.siege import connect_tls
from tests.live.target import Running, certificate, exchange, get, renew, running, survives


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    with running() as found:
        yield found


def _serial(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
    der = stream.getpeercert(binary_form=True)
    assert der is not None
    return der


async def test_t061_the_certificate_is_swapped_under_load() -> None:
    """100 renewals while clients connect: no handshake fails, and open connections go on."""
    seen: Counter[bytes] = Counter()
    with certificate() as pem, running(pem=pem, bounds={"head_s": 30.0}) as target:
        async with await connect_tls(target) as old:
            first = _serial(old)
            async with survives(target), trio.open_nursery() as nursery:

                async def load() -> None:
                    while True:
                        stream = await connect_tls(target)
                        seen[_serial(stream)] += 1
                        request = get(target.paths.small, "Connection: close")
                        answered = await exchange(target, request, stream=stream)
                        assert answered.statuses == [200]

                for _ in range(4):
                    nursery.start_soon(load)
                made = [await trio.to_thread.run_sync(_new_pem, n) for n in range(5)]
                for number in range(100):
                    half = pem.with_suffix(".half")
                    half.write_bytes(made[number % 5])
                    half.replace(pem)
                    target.signal(signal.SIGHUP)
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            await old.send_all(get(target.paths.small))
            assert (await old.receive_some()).startswith(b"HTTP/1.1 200")
        async with await connect_tls(target) as new:
            assert _serial(new) != first
    assert len(set(seen) - {first}) == 5
    assert sum(seen.values()) > 50


def _new_pem(number: int) -> bytes:
    with certificate() as pem:
        renew(pem, f"new{number}.test")
        return pem.read_bytes()


async def test_t069_http2_is_not_offered_and_its_preface_not_believed(target: Running) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with survives(target):
        stream = await connect_tls(target, context=context)
        assert stream.selected_alpn_protocol() == "http/1.1"
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        assert (await exchange(target, preface, stream=stream)).statuses == [505]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_t057_tls_1_1_is_refused(target: Running) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with survives(target):
        with pytest.raises(trio.BrokenResourceError):
            await connect_tls(target, context=context)


async def test_plain_http_on_the_tls_port_ends_that_connection(target: Running) -> None:
    async with survives(target):
        sock = trio.socket.socket()
        assert target.tls_port is not None
        await sock.connect((target.host, target.tls_port))
        stream = trio.SocketStream(sock)
        answered = await exchange(target, get(target.paths.small), stream=stream)
        assert answered.statuses == []
        assert answered.is_closed


async def test_an_answer_over_tls_ends_with_a_notice(target: Running) -> None:
    """Without it a peer that insists would take the end for a cut connection."""
    stream = await connect_tls(target, insists_on_notice=True)
    async with stream:
        await stream.send_all(get(target.paths.small, "Connection: close"))
        received = b""
        while data := await stream.receive_some():
            received += data
    assert received.startswith(b"HTTP/1.1 200")
