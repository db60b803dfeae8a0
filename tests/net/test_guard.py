"""Which addresses, names and ports are dialled (threats T053; [B2.11])."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.net.guard import AddressGuard, InvalidHost, is_port_allowed, parse_host

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255",
    "127.0.0.1", "127.255.255.254", "169.254.0.1", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.2.1", "192.88.99.1",
    "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7",
    "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::",
    "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:192.168.1.1", "::ffff:0.0.0.0", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "64:ff9b::c0a8:101", "64:ff9b:1::808:808", "100::1", "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1",
    "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "2002:a00:1::1", "3fff::1",
    "4000::1", "5f00::1", "fc00::1", "fd00::2", "fdff::1", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "ff0e::1", "2606:4700::1111%lo",
]  # fmt: skip

ALLOWED = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1",
    "126.255.255.255", "128.0.0.1", "169.253.1.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",
    "192.167.1.1", "192.169.1.1", "198.17.0.1", "198.20.0.1", "223.255.255.255",
    "2001:200::1", "2001:470::1", "2003::1", "2606:4700:4700::1111", "2a00:1450::1",
    "3ffe::1", "2620:fe::fe", "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_t053_special_addresses_are_not_dialled(text):
    assert not AddressGuard().allows(ip_address(text))


@pytest.mark.parametrize("text", ALLOWED)
def test_t053_addresses_of_the_internet_are_dialled(text):
    assert AddressGuard().allows(ip_address(text))
    assert AddressGuard(allow_private=True).allows(ip_address(text))


@pytest.mark.parametrize("text", ["127.0.0.1", "10.0.0.1", "::1", "fd00::2", "fe80::1", "2002::1"])
def test_private_addresses_are_dialled_when_the_setting_says_so(text):
    assert AddressGuard(allow_private=True).allows(ip_address(text))


@pytest.mark.parametrize("text", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"])
def test_t053_no_setting_opens_what_is_no_single_machine(text):
    assert not AddressGuard(allow_private=True).allows(ip_address(text))
    mapped = f"::ffff:{text}" if "." in text else text
    assert not AddressGuard(allow_private=True).allows(ip_address(mapped))


@given(st.ip_addresses())
def test_t053_what_python_calls_private_is_refused_by_us_too(address):
    """Our table refuses more than the standard library's, and never less but for NAT64."""
    if AddressGuard().allows(address):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_t053_an_embedded_address_counts_as_itself(address):
    guard = AddressGuard()
    for prefix in ("::ffff:", "64:ff9b::"):
        assert guard.allows(ip_address(f"{prefix}{address}")) is guard.allows(address)


@pytest.mark.parametrize(
    "text",
    [
        *("127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0", "0x7f000001", "example.0x1", "1.2.3"),
        *("1.2.3.4.5", "01.02.03.04", "1.2.3.999", "a.1", "example.org.7"),
        *(
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "-a.test",
            "a-.test",
            "a" * 64 + ".test",
            "a." * 127 + "test",
        ),
        *(
            "１２７.0.0.1",
            "exämple.org",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a%00",
            "a\n",
            "a\x00b",
            "[1.2.3.4]",
        ),
        *("[::1", "::1]", "[fe80::1%eth0", "[]", "[:::]"),
    ],
)
def test_t053_what_is_no_host_name_is_refused(text):
    with pytest.raises(InvalidHost):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("hs1", "hs1"),
        ("my_container", "my_container"),
        ("1and1.com", "1and1.com"),
        ("127.0.0.1", ip_address("127.0.0.1")),
        ("[2001:db8::1]", ip_address("2001:db8::1")),
        ("2001:DB8::1", ip_address("2001:db8::1")),
    ],
)
def test_t059_host_names_and_literals(text, found):
    assert parse_host(text) == found


@given(st.text(max_size=300))
def test_t056_any_text_is_a_host_or_refused(text):
    try:
        found = parse_host(text)
    except InvalidHost:
        return
    if isinstance(found, str):
        assert found.isascii()
        assert len(found) <= 253
        assert parse_host(found) == found


@pytest.mark.parametrize("port", [0, -1, 22, 25, 53, 110, 143, 465, 587, 993, 6667, 65536])
def test_t056_ports_of_mail_and_shells_are_not_dialled(port):
    assert not is_port_allowed(port)


@pytest.mark.parametrize("port", [80, 443, 8080, 8443, 8448, 28448, 65535])
def test_ports_of_web_servers_are_dialled(port):
    assert is_port_allowed(port)
