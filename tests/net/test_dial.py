"""From a route to a connection (threats T053, T054, T057, T156; [B1.01])."""

from __future__ import annotations

import datetime
import ssl
from ipaddress import ip_address

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from matrixbox.errors import AddressRefused, RemoteUnreachable
from matrixbox.net import dial
from matrixbox.net.exchange import Route, Target
from matrixbox.net.tls import new_client_context
from tests.net.calling import GET, IP, IP6, QUICK, net, route
from tests.net.names import System
from tests.net.web import authority, reply, server_context

PRIVATE = ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "::1", "fd00::1", "fe80::1"]
WRAPPED = ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "ff02::1"]


@pytest.mark.parametrize("address", [*PRIVATE, *WRAPPED])
async def test_t053_no_packet_goes_to_a_special_address(address):
    async with net() as it:
        it.site("a.test", address)
        with pytest.raises(AddressRefused):
            await it.client.exchange(route(), GET, QUICK)
        with pytest.raises(AddressRefused):
            await it.client.exchange(route(address), GET, QUICK)
        assert it.switchboard.rings == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fd00::1"])
async def test_private_addresses_are_dialled_when_the_setting_says_so(address):
    async with net(allow_private=True) as it:
        it.site("a.test", address)
        it.web.on("a.test", "/x", reply(b"yes"))
        assert (await it.client.exchange(route(), GET, QUICK)).body == b"yes"


async def test_t053_the_system_cannot_lead_inside_either():
    async with net() as it:
        system = System(router=(ip_address("192.168.1.1"),))
        it.switchboard._resolver._system = system
        with pytest.raises(AddressRefused):
            await it.client.exchange(route("router"), GET, QUICK)
        assert it.switchboard.rings == []
        assert system.asked == ["router"]


async def test_t054_a_name_loses_its_refused_addresses_only():
    async with net() as it:
        it.site("a.test")
        it.names.add("a.test", "A", "127.0.0.1", IP, "10.0.0.1")
        it.names.add("a.test", "AAAA", "::1", "fd00::1")
        it.web.on("a.test", "/x", reply(b"yes"))
        assert (await it.client.exchange(route(), GET, QUICK)).body == b"yes"
        assert it.switchboard.rings == [(IP, 8448)]


async def test_t054_the_address_that_was_checked_is_dialled():
    """First public, then private: there is no second look-up between check and dial."""
    async with net() as it:
        it.site("a.test")
        checked = it.switchboard._guard.allows

        def change_mind(address) -> bool:
            it.names.add("a.test", "A", "127.0.0.1")
            it.switchboard._resolver._cache._entries.clear()
            return checked(address)

        it.switchboard._guard = type("Guard", (), {"allows": staticmethod(change_mind)})()
        await it.client.exchange(route(), GET, QUICK)
        assert it.switchboard.rings == [(IP, 8448)]
        it.web.replies[()] = reply()
        with pytest.raises(AddressRefused):
            await it.client.exchange(route(name="another"), GET, QUICK)
        assert it.switchboard.rings == [(IP, 8448)]


@pytest.mark.parametrize("port", [22, 25, 6667])
async def test_t056_no_packet_goes_to_a_refused_port(port):
    async with net() as it:
        it.site("a.test", IP, port)
        with pytest.raises(AddressRefused):
            await it.client.exchange(route(port=port), GET, QUICK)
        assert it.switchboard.rings == []


async def test_t156_broken_ipv6_costs_a_quarter_of_a_second():
    async with net() as it:
        it.site("a.test")
        it.names.add("a.test", "AAAA", IP6)
        it.switchboard.lines[IP6, 8448] = None  # packets vanish
        before = trio.current_time()
        await it.client.exchange(route(), GET, QUICK)
        assert 0.2 < trio.current_time() - before < 1.0
        assert it.switchboard.rings == [(IP6, 8448), (IP, 8448)]


async def test_t156_an_address_that_refuses_costs_nothing():
    async with net() as it:
        it.site("a.test")
        it.names.add("a.test", "AAAA", IP6)
        before = trio.current_time()
        await it.client.exchange(route(), GET, QUICK)
        assert trio.current_time() - before < 0.2


async def test_ipv6_goes_first_and_alone_when_it_answers():
    async with net() as it:
        it.site("a.test", IP)
        it.site("a.test", IP6)
        await it.client.exchange(route(), GET, QUICK)
        assert it.switchboard.rings == [(IP6, 8448)]


async def test_a_failed_handshake_leads_to_the_next_address():
    async def deaf(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with net() as it, trio.open_nursery() as nursery:
        listeners = await nursery.start(_serve, deaf)
        it.site("a.test")
        it.names.add("a.test", "AAAA", IP6)
        it.switchboard.lines[IP6, 8448] = listeners[0].socket.getsockname()[1]
        it.web.on("a.test", "/x", reply(b"yes"))
        assert (await it.client.exchange(route(), GET, QUICK)).body == b"yes"
        assert it.switchboard.rings == [(IP6, 8448), (IP, 8448)]
        nursery.cancel_scope.cancel()


async def _serve(handler, task_status):
    await trio.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)


async def test_t056_at_most_four_addresses_are_tried(mock_clock):
    mock_clock.rate = 20
    async with net() as it:
        it.names.add("a.test", "A", *(f"1.2.3.{n}" for n in range(1, 20)))
        with pytest.raises(RemoteUnreachable) as caught:
            await it.client.exchange(route(), GET, QUICK)
        assert len(it.switchboard.rings) == dial.MAX_ADDRESSES
        assert "refused" in caught.value.text


async def test_silence_of_all_addresses_ends(mock_clock):
    mock_clock.rate = 20
    async with net() as it:
        it.site("a.test")
        it.switchboard.lines[IP, 8448] = None
        before = trio.current_time()
        with pytest.raises(RemoteUnreachable) as caught:
            await it.client.exchange(route(), GET, QUICK.__class__(60, 20, 100))
        assert 4.5 < trio.current_time() - before < 7
        assert "no connection in time" in caught.value.text


async def test_several_targets_are_tried_in_order():
    async with net() as it:
        targets = tuple(Target(f"t{n}.test", 8448 + n) for n in range(3))
        for n in range(3):
            it.names.add(f"t{n}.test", "A", f"1.2.3.{n}", f"1.2.4.{n}", f"1.2.5.{n}")
        it.web.certify("a.test")
        for third in (3, 4, 5):
            it.switchboard.lines[f"1.2.{third}.1", 8449] = it.web.port
        await it.client.exchange(Route("a.test", "a.test", "a.test", targets), GET, QUICK)
        assert [port for _, port in it.switchboard.rings] == [8448, 8448, 8449]
        assert it.web.handshakes == ["a.test"], "the name of the route, not of the target"


async def test_a_name_without_address_is_unreachable_and_may_be_tried_again():
    async with net() as it:
        with pytest.raises(RemoteUnreachable) as caught:
            await it.client.exchange(route(), GET, QUICK)
        assert caught.value.may_retry
        assert caught.value.text == "no such name"


# Certificates.


def leaf(
    names: list[x509.GeneralName] | None,
    common_name: str = "a.test",
    *,
    days: tuple[int, int] = (-1, 30),
    signed_by_itself: bool = False,
) -> ssl.SSLContext:
    """A server's context with a certificate that `trustme` would not make."""
    key = ec.generate_private_key(ec.SECP256R1())
    ca_key = serialization.load_pem_private_key(authority().private_key_pem.bytes(), None)
    ca = x509.load_pem_x509_certificate(authority().cert_pem.bytes())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if signed_by_itself else ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0] - 10))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key if signed_by_itself else ca_key, hashes.SHA256())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = trustme.Blob(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    with pem.tempfile() as file:
        context.load_cert_chain(file)
    return context


def foreign() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("a.test").configure_cert(context)
    return context


DNS = x509.DNSName
WRONG = {
    "expired": lambda: leaf([DNS("a.test")], days=(-20, -1)),
    "signed by itself": lambda: leaf([DNS("a.test")], signed_by_itself=True),
    "of an unknown authority": foreign,
    "for another name": lambda: server_context("b.test"),
    "name in the common name only": lambda: leaf(None),
    "name in the common name, another beside": lambda: leaf([DNS("b.test")]),
    "wildcard two levels up": lambda: leaf([DNS("*.test")], "x"),
    "wildcard for everything": lambda: leaf([DNS("*")], "x"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_t057_no_request_is_sent_over_a_wrong_certificate(wrong):
    host = "deep.a.test" if "two levels" in wrong else "a.test"
    async with net() as it:
        it.site(host)
        it.web.names[host] = WRONG[wrong]()
        with pytest.raises(RemoteUnreachable) as caught:
            await it.client.exchange(route(host), GET, QUICK)
        assert caught.value.may_retry
        assert "certificate" in caught.value.text
        assert it.web.seen == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_t057_tls_1_1_is_refused():
    async with net() as it:
        it.site("a.test")
        it.web.before_sni.set_ciphers("ALL:@SECLEVEL=0")
        it.web.before_sni.maximum_version = ssl.TLSVersion.TLSv1_1
        it.web.before_sni.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(RemoteUnreachable) as caught:
            await it.client.exchange(route(), GET, QUICK)
        assert "TLS" in caught.value.text
        assert it.web.seen == []


async def test_t057_the_same_certificates_are_taken_for_the_right_name():
    """The control of the test above: what is made that way is taken when nothing is wrong."""
    async with net() as it:
        for host, names in (("a.test", [DNS("a.test")]), ("deep.b.test", [DNS("*.b.test")])):
            it.site(host)
            it.web.names[host] = leaf(names, "x")
            await it.client.exchange(route(host), GET, QUICK)
        assert it.web.handshakes == ["a.test", "deep.b.test"]


@pytest.mark.parametrize("address", [IP, IP6])
async def test_t057_an_address_needs_a_certificate_for_the_address(address):
    async with net() as it:
        it.switchboard.lines[address, 8448] = it.web.port
        it.web.names[None] = server_context("a.test")
        there = Route(address, address, address, (Target(address, 8448),))
        with pytest.raises(RemoteUnreachable) as caught:
            await it.client.exchange(there, GET, QUICK)
        assert "IP address mismatch" in caught.value.text
        it.web.names[None] = leaf([x509.DNSName("1.2.3.4")], address)
        with pytest.raises(RemoteUnreachable):
            await it.client.exchange(there, GET, QUICK)
        it.web.certify(address)
        await it.client.exchange(there, GET, QUICK)
        assert [seen.sni for seen in it.web.seen] == [None], "no SNI for an address"


async def test_t057_the_context_as_the_server_makes_it(tmp_path):
    file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(file)
    context = new_client_context([file])
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    async with net() as it:
        it.switchboard._context = context
        it.site("a.test")
        # Without an authority key identifier, which Python 3.13 would ask for.
        it.web.names["a.test"] = leaf([DNS("a.test")])
        await it.client.exchange(route(), GET, QUICK)
        it.switchboard._context = None  # the system's authorities, read at first use
        with pytest.raises(RemoteUnreachable):
            await it.client.exchange(route(name="again"), GET, QUICK)
        assert it.switchboard._context.verify_mode == ssl.CERT_REQUIRED
        assert it.switchboard._context.check_hostname


def test_authorities_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "ca.pem"
    for content in (None, b"", b"nonsense"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(OSError, match=r"ca\.pem"):
            new_client_context([file])
