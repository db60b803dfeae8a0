"""Requests to other servers: how they are signed, and what becomes of answers."""

from __future__ import annotations

import json
import re

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from matrixbox.api.federation_auth import parse_x_matrix
from matrixbox.clock import SimulatedClock
from matrixbox.core.json import RawNumber, encode_canonical
from matrixbox.core.signing import SigningKey, decode_base64, json_signature_valid, sign_json
from matrixbox.errors import (
    RemoteBackingOff,
    RemoteError,
    RemoteInvalid,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnreachable,
)
from matrixbox.federation.client import (
    DEFAULT_LIMITS,
    FederationClient,
    NoBackOff,
    key_target,
    request_bytes,
    target,
)
from matrixbox.tasks import at_once
from tests.federation.inside import HOME, HOME_KEY, Inside, a_client


@define
class Diary:
    """A back-off that writes down what it is told."""

    open: bool = True
    told: list[str] = field(factory=list)

    def may_try(self, server):
        return self.open

    def failed(self, server):
        self.told.append(f"failed {server}")

    def succeeded(self, server):
        self.told.append(f"succeeded {server}")

    def alive(self, server):
        self.told.append(f"alive {server}")


@pytest.fixture
async def net(autojump_clock):
    return Inside(SimulatedClock())


@pytest.fixture
async def far(net):
    found = net.server("far.test")
    found.respond = lambda request: (200, {"fine": True})
    return found


@pytest.fixture
def diary():
    return Diary()


@pytest.fixture
async def client(net, diary):
    return a_client(net, diary)


# --- signing


def test_b4_01_what_is_signed_is_the_specifications_object():
    """With the key of the specification's vectors, and an independent way to sign."""
    key = SigningKey("1", decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
    body = {"b": [1, "é"], "a": {"z": None, "y": 2}}
    whole = {
        "method": "POST",
        "uri": "/target?a=b",
        "origin": "domain",
        "destination": "destination.hs.example.com",
        "content": body,
    }
    message = request_bytes(
        "POST", "/target?a=b", "domain", "destination.hs.example.com", encode_canonical(body)
    )
    assert message == encode_canonical(whole)
    [expected] = sign_json(whole, "domain", key)["signatures"]["domain"].values()
    assert key.sign(message) == decode_base64(expected)


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.none() | st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5)),
)
def test_b4_01_the_signed_bytes_are_canonical_whatever_is_in_them(uri, destination, content):
    whole = {"method": "GET", "uri": uri, "origin": "o", "destination": destination}
    if content is not None:
        whole["content"] = content
    encoded = None if content is None else encode_canonical(content)
    assert request_bytes("GET", uri, "o", destination, encoded) == encode_canonical(whole)


async def test_b4_04_the_header_has_the_form_that_every_server_reads(autojump_clock, client, far):
    await client.put_json(far.name, target("v1", "send", "1"), {"pdus": []})
    [request] = far.asked
    header = dict(request.headers)["authorization"]
    assert re.fullmatch(
        r'X-Matrix origin="home\.test",destination="far\.test",key="ed25519:home",'
        r'sig="[A-Za-z0-9+/]{86}"',
        header,
    )
    found = parse_x_matrix(header)
    signed = {
        "method": "PUT",
        "uri": request.target,
        "origin": HOME,
        "destination": far.name,
        "content": json.loads(request.body),
        "signatures": {HOME: {found.key_id: found.signature}},
    }
    assert json_signature_valid(signed, HOME, HOME_KEY.key_id, HOME_KEY.verify_key)
    assert dict(request.headers)["content-type"] == "application/json"


async def test_b4_01_a_request_without_a_body_is_signed_without_content(
    autojump_clock, client, far
):
    await client.get_json(far.name, target("v1", "event", "$a/b:c"))
    [request] = far.asked
    assert request.body == b""
    assert "content-type" not in dict(request.headers)
    found = parse_x_matrix(dict(request.headers)["authorization"])
    message = request_bytes("GET", request.target, HOME, far.name, None)
    assert HOME_KEY.sign(message) == decode_base64(found.signature)


@given(st.lists(st.text(min_size=1), min_size=1), st.lists(st.tuples(st.text(), st.text())))
def test_b1_04_t091_every_part_of_a_target_is_encoded_once(segments, query):
    found = target(*segments, query=query)
    assert re.fullmatch(r"[A-Za-z0-9._~/?&=%-]+", found)
    path, _, _ = found.partition("?")
    assert path.count("/") == 2 + len(segments)
    assert key_target("v2", "server") == "/_matrix/key/v2/server"


def test_b1_04_targets_look_as_they_should():
    assert target("v1", "event", "$a+/b") == "/_matrix/federation/v1/event/%24a%2B%2Fb"
    assert (
        target("v1", "backfill", "!r:x", query=[("v", "$a"), ("v", "$b"), ("limit", "2")])
        == "/_matrix/federation/v1/backfill/%21r%3Ax?v=%24a&v=%24b&limit=2"
    )


# --- answers


async def test_answers_are_read_as_strictly_as_requests(autojump_clock, client, far):
    far.respond = lambda request: (200, b'{"n":1.50,"i":3,"big":9007199254740993}')
    answer = await client.get_json(far.name, "/x")
    assert answer == {"n": RawNumber("1.50"), "i": 3, "big": RawNumber("9007199254740993")}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"<html>",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    ],
)
async def test_t085_t088_an_answer_that_is_no_strict_object_is_refused(
    autojump_clock, client, far, body
):
    far.respond = lambda request: (200, body)
    with pytest.raises(RemoteInvalid, match=r"far\.test: its answer"):
        await client.get_json(far.name, "/x")


async def test_version_1_of_some_endpoints_answers_a_list(autojump_clock, client, far):
    far.respond = lambda request: (200, [200, {"state": []}])
    assert await client.put_any(far.name, "/x", {}) == [200, {"state": []}]


async def test_an_error_tells_status_code_and_fields(autojump_clock, client, far):
    said = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "no", "room_version": "3"}
    far.respond = lambda request: (400, said)
    with pytest.raises(RemoteRefused) as raised:
        await client.get_json(far.name, "/x")
    refused = raised.value
    assert (refused.status, refused.errcode) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert refused.text.endswith(" no")
    assert refused.fields == {"room_version": "3"}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errcode":7,"error":[]}', b'"M_X"', b"x" * 100_000]
)
@pytest.mark.parametrize("status", [100, 301, 302, 307, 400, 403, 404, 418, 429, 500, 599])
async def test_any_error_is_a_refusal_with_its_status(autojump_clock, client, far, body, status):
    """[B1.05]: redirects are not followed."""
    far.respond = lambda request: (status, body)
    with pytest.raises(RemoteRefused) as raised:
        await client.get_json(far.name, "/x")
    assert (raised.value.status, raised.value.errcode) == (status, None)
    assert len(far.asked) == 1


async def test_a_long_error_text_is_cut(autojump_clock, client, far):
    far.respond = lambda request: (400, {"errcode": "M_" + "X" * 9000, "error": "y" * 9000})
    with pytest.raises(RemoteRefused) as raised:
        await client.get_json(far.name, "/x")
    assert len(str(raised.value)) <= 1100
    assert raised.value.errcode is not None
    assert len(raised.value.errcode) <= 500


async def test_t058_we_never_ask_ourselves(autojump_clock, client):
    with pytest.raises(RemoteInvalid, match="this server"):
        await client.get_json(HOME, "/x")


async def test_a_large_answer_is_read_elsewhere(autojump_clock, net, far):
    called = []

    async def offload(function, *args):
        called.append(function)
        return await at_once(function, *args)

    client = FederationClient(HOME, HOME_KEY, net, NoBackOff(), offload)
    far.respond = lambda request: (200, {"a": "x" * 200_000})
    await client.get_json(far.name, "/x")
    far.respond = lambda request: (200, {"a": "x"})
    await client.get_json(far.name, "/x")
    assert len(called) == 1  # T079


# --- streams


async def test_an_answer_can_be_taken_piece_by_piece(autojump_clock, client, far, diary):
    async with client.stream("PUT", far.name, "/x", {"a": 1}, limits=DEFAULT_LIMITS) as answer:
        pieces = [piece async for piece in answer]
    assert json.loads(b"".join(pieces)) == {"fine": True}
    assert len(pieces) == 2
    assert diary.told == ["succeeded far.test"]


async def test_an_error_is_told_before_anything_is_streamed(autojump_clock, client, far, diary):
    far.respond = lambda request: (403, {"errcode": "M_FORBIDDEN", "error": "no"})
    with pytest.raises(RemoteRefused) as raised:
        async with client.stream("GET", far.name, "/x", limits=DEFAULT_LIMITS):
            pass
    assert (raised.value.status, raised.value.errcode) == (403, "M_FORBIDDEN")
    far.respond = lambda request: (500, b"z" * 1_000_000)
    with pytest.raises(RemoteRefused):
        async with client.stream("GET", far.name, "/x", limits=DEFAULT_LIMITS):
            pass


async def test_what_the_reader_of_a_stream_raises_says_nothing_about_the_server(
    autojump_clock, client, far, diary
):
    with pytest.raises(RemoteInvalid):
        async with client.stream("GET", far.name, "/x", limits=DEFAULT_LIMITS):
            raise RemoteInvalid(far.name, "nonsense")
    assert diary.told == []


# --- back-off


async def test_t083_a_server_that_backs_off_is_not_asked(autojump_clock, client, far, diary):
    diary.open = False
    with pytest.raises(RemoteBackingOff):
        await client.get_json(far.name, "/x")
    with pytest.raises(RemoteBackingOff):
        async with client.stream("GET", far.name, "/x", limits=DEFAULT_LIMITS):
            pass
    assert far.asked == diary.told == []
    await client.get_json(far.name, "/x", ignore_backoff=True)
    assert diary.told == ["succeeded far.test"]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (200, "succeeded"),
        (400, "succeeded"),
        (401, "succeeded"),
        (404, "succeeded"),
        (429, "succeeded"),
        (500, "succeeded"),
        (502, "failed"),
        (503, "failed"),
        (504, "failed"),
        (522, "failed"),
    ],
)
async def test_who_refuses_is_there_and_who_has_a_proxy_say_so_is_not(
    autojump_clock, client, far, diary, status, told
):
    far.respond = lambda request: (status, {})
    try:
        await client.get_json(far.name, "/x")
    except RemoteRefused:
        assert status != 200
    assert diary.told == [f"{told} far.test"]


@pytest.mark.parametrize("error", [RemoteUnreachable, RemoteTimeout])
async def test_who_cannot_be_reached_has_failed(autojump_clock, client, far, diary, error):
    def respond(request):
        raise error("far.test", "no")

    far.respond = respond
    with pytest.raises(RemoteError):
        await client.post_json(far.name, "/x", {})
    assert diary.told == ["failed far.test"]


async def test_whoever_talks_nonsense_has_neither_failed_nor_succeeded(
    autojump_clock, client, far, diary
):
    def respond(request):
        raise RemoteInvalid("far.test", "not HTTP")

    far.respond = respond
    with pytest.raises(RemoteInvalid):
        await client.get_json(far.name, "/x")
    assert diary.told == []
