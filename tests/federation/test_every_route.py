"""Every route for servers: public is what the specification leaves unsigned, and nothing else.

[B4.05], T066, T068, and the first of the live cases: a running server refuses the lot.
"""

from __future__ import annotations

import http.client
import json

import pytest

from matrixbox.api.client.table import client_routes
from matrixbox.api.federation_auth import parse_x_matrix
from matrixbox.api.routes import Auth, BodyKind
from matrixbox.api.server.table import server_routes
from matrixbox.core.signing import encode_base64
from matrixbox.federation.client import request_bytes
from tests.federation.inside import key_named
from tests.server import NAME, running_server

PUBLIC = {
    "GET /_matrix/federation/v1/version",
    "GET /_matrix/key/v2/server/?",
    "GET /_matrix/key/v2/server/{key_id}",
    "GET /_matrix/key/v2/query/{server}",
    "GET /_matrix/key/v2/query/{server}/{key_id}",
    "POST /_matrix/key/v2/query",
    # Its token is what it asks about.
    "GET /_matrix/federation/v1/openid/userinfo",
    "GET /.well-known/matrix/server",
    "GET /.well-known/matrix/support",
}


def routes():
    """Method, pattern, route of everything that servers ask."""
    found = [*server_routes()]
    found += [
        route
        for route in client_routes()
        if any(p.startswith(("/_matrix/federation", "/_matrix/key")) for p in route.patterns)
    ]
    for route in found:
        for pattern in route.patterns:
            yield route.method, pattern, route


SIGNED = [
    (method, pattern, route)
    for method, pattern, route in routes()
    if f"{method} {pattern}" not in PUBLIC
]


def names():
    return [f"{method} {pattern}" for method, pattern, _ in SIGNED]


def test_b4_05_every_route_for_servers_is_signed_but_the_public_ones():
    public = {f"{method} {pattern}" for method, pattern, route in routes()} - {*names()}
    assert public <= PUBLIC
    assert {path for path in PUBLIC if "/_matrix/key/" in path} <= public
    wrong = [
        f"{method} {pattern}"
        for method, pattern, route in SIGNED
        if route.auth is not Auth.FEDERATION
    ]
    assert wrong == []
    assert len(SIGNED) > 20


def test_what_is_signed_is_a_json_object_or_nothing():
    """Else the signature could not be checked."""
    kinds = {(method, route.body) for method, _, route in SIGNED}
    assert kinds <= {
        ("GET", BodyKind.NONE),
        ("PUT", BodyKind.JSON),
        ("POST", BodyKind.JSON),
    }


def test_no_route_of_clients_is_open_to_servers():
    assert [route for route in client_routes() if route.auth is Auth.FEDERATION] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def line(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    yield connection
    connection.close()


def path_of(pattern: str) -> str:
    """A path that a pattern matches."""
    words = {
        "{room_id}": "%21room%3Afar.test",
        "{event_id}": "%24event",
        "{user_id}": "%40ann%3Ahome.test",
    }
    parts = []
    for part in pattern.removesuffix("/?").split("/"):
        if part.startswith("["):
            parts.append(part[1:-1].split("|")[0])
        else:
            parts.append(words.get(part, "x") if part.startswith("{") else part)
    return "/".join(parts)


def forged(method, target, content):
    """Headers that all have something wrong with them."""
    key = key_named("forger")

    def signed(origin, destination, *, said_to=None, uri=target):
        body = None if content is None else json.dumps(content).encode()
        message = request_bytes(method, uri, origin, destination, body)
        return (
            f'X-Matrix origin="{origin}",destination="{said_to or destination}",'
            f'key="{key.key_id}",sig="{encode_base64(key.sign(message))}"'
        )

    return {
        "nothing": None,
        "a token": "Bearer syt_abc",
        "an empty header": "X-Matrix ",
        "half a header": 'X-Matrix origin="127.0.0.1:1"',
        "a server that is not there": signed("127.0.0.1:1", NAME),
        "our own name": signed(NAME, NAME),
        "for another server": signed("127.0.0.1:1", "other.test"),
        "for another server, relabelled": signed("127.0.0.1:1", "other.test", said_to=NAME),
        "an impossible name": signed("a b", NAME),
    }


@pytest.mark.parametrize(("method", "pattern", "route"), SIGNED, ids=names())
def test_b4_05_a_running_server_refuses_what_is_not_signed(line, method, pattern, route):
    target = path_of(pattern)
    content = None if method == "GET" else {}
    for what, header in forged(method, target, content).items():
        if header is not None and what not in ("a token", "an empty header", "half a header"):
            assert "impossible" in what or parse_x_matrix(header) is not None
        headers = {} if header is None else {"Authorization": header}
        body = None if content is None else json.dumps(content)
        line.request(method, target, body=body, headers=headers)
        answer = line.getresponse()
        said = json.loads(answer.read())
        assert (answer.status, said["errcode"]) == (401, "M_UNAUTHORIZED"), what


def test_the_public_routes_answer_anybody(line):
    for target in ("/_matrix/federation/v1/version", "/_matrix/key/v2/server"):
        line.request("GET", target)
        answer = line.getresponse()
        assert answer.status == 200
        answer.read()
    line.request("POST", "/_matrix/key/v2/query", body='{"server_keys":{"home.test":{}}}')
    answer = line.getresponse()
    [said] = json.loads(answer.read())["server_keys"]
    assert said["server_name"] == NAME


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ("", 400, "M_NOT_JSON"),
        ("[]", 400, "M_BAD_JSON"),
        ("{}", 400, "M_MISSING_PARAM"),
        ('{"server_keys":[]}', 400, "M_BAD_JSON"),
        ('{"server_keys":{"a.test":5}}', 400, "M_BAD_JSON"),
        ('{"server_keys":{"a.test":{"ed25519:a":5}}}', 400, "M_BAD_JSON"),
        (
            '{"server_keys":{"a.test":{"ed25519:a":{"minimum_valid_until_ts":"x"}}}}',
            400,
            "M_BAD_JSON",
        ),
        (
            '{"server_keys":{"a.test":{"ed25519:a":{"minimum_valid_until_ts":true}}}}',
            400,
            "M_BAD_JSON",
        ),
    ],
)
def test_t090_queries_for_keys_of_the_wrong_form_are_refused(line, body, status, errcode):
    line.request("POST", "/_matrix/key/v2/query", body=body)
    answer = line.getresponse()
    said = json.loads(answer.read())
    assert (answer.status, said["errcode"]) == (status, errcode)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/_matrix/key/v2/server/", 200),
        ("/_matrix/key/v2/server/ed25519%3Aa", 200),
        ("/_matrix/key/v2/query/home.test", 200),
        ("/_matrix/key/v2/query/home.test/ed25519%3Aa", 200),
        ("/_matrix/key/v2/query/home.test?minimum_valid_until_ts=123", 200),
        ("/_matrix/key/v2/query/home.test?minimum_valid_until_ts=1.5", 400),
        ("/_matrix/key/v2/query/home.test?minimum_valid_until_ts=", 400),
        ("/_matrix/key/v2/query/a%20b", 400),
        ("/_matrix/key/v2/query", 405),
        ("/_matrix/key/v1/server", 404),
        ("/_matrix/federation/v1/nothing", 404),
    ],
)
def test_b3_08_the_forms_of_key_look_ups(line, target, status):
    line.request("GET", target)
    answer = line.getresponse()
    answer.read()
    assert answer.status == status
