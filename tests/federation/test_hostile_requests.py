"""Requests that a hostile server has signed wrongly, or for something else (groups D and F)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from matrixbox.core.signing import SigningKey, sign_json
from tests.federation.hostile import V1, V2, Foe, Reply, local_name
from tests.federation.siege import Siege, besieged

VERSION = f"{V1}/version"  # public
PROFILE = f"{V1}/query/profile?user_id=%40nobody%3A127.0.0.3"


def signed(foe: Foe, method: str, uri: str, body: Any = None, **changed: Any) -> dict[str, Any]:
    """What is signed, with some of it changed; None leaves it out."""
    message = {"method": method, "uri": uri, "origin": foe.name, "destination": foe.victim}
    if body is not None:
        message["content"] = body
    message |= changed
    message = {name: value for name, value in message.items() if value is not None}
    return sign_json(message, message["origin"], foe.key)


def with_header(foe: Foe, header: str, target: str = PROFILE) -> Reply:
    return foe.raw("GET", target, None, {"Authorization": header})


def good_header(foe: Foe, target: str = PROFILE, **fields: str) -> str:
    return foe.authorization(signed(foe, "GET", target), **fields)


def test_a_good_request_is_taken(siege: Siege) -> None:
    assert siege.foe.request("GET", PROFILE).status in (200, 404)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Matrix",
        "X-Matrix ",
        "X-Matrix origin",
        'X-Matrix origin="',
        'X-Matrix origin="a.test"',
        "Bearer abc",
        "X-Matrix " + ",".join(f'x{number}="y"' for number in range(500)),
        'X-Matrix origin="\\",destination="\\",key="\\",sig="\\"',
        'X-Matrix origin="%",destination="%",key="%",sig="%"',
        'X-Matrix origin="a.test",origin="b.test",key="ed25519:a",sig="x"',
        'X-Matrix origin="a.test" destination="b.test" key="ed25519:a" sig="x"',
        "X-Matrix origin=a.test,key=rsa:1,sig=AAAA",
    ],
)
def test_t064_malformed_headers_are_unauthorised(siege: Siege, header: str) -> None:
    reply = with_header(siege.foe, header)
    assert (reply.status, reply.errcode) == (401, "M_UNAUTHORIZED"), reply


def test_t064_parameters_are_read_as_http_has_them(siege: Siege) -> None:
    foe = siege.foe
    signature = signed(foe, "GET", PROFILE)["signatures"][foe.name][foe.key.key_id]
    header = (
        f'x-MATRIX  unknown = "a, \\"b\\"" , KEY={foe.key.key_id},Sig="{signature}",'
        f'origin="{foe.name}" ,destination="{foe.victim}"'
    )
    assert with_header(foe, header).status in (200, 404)


@pytest.mark.parametrize(
    "target",
    [
        f"{V1}/query/profile?user_id=@nobody%3A127.0.0.3",
        f"{V1}/query/profile?user_id=%40nobody%3a127.0.0.3",
        f"{V1}/query%2Fprofile?user_id=%40nobody%3A127.0.0.3",
        f"{V1}//query/profile?user_id=%40nobody%3A127.0.0.3",
        f"{V1}/query/./profile?user_id=%40nobody%3A127.0.0.3",
        f"{V1}/query/profile?user_id=%40nobody%3A127.0.0.3&",
        f"{V1}/query/profile?field=x&user_id=%40nobody%3A127.0.0.3",
        f"{V1}/query/profile",
    ],
)
def test_t065_a_signature_for_one_target_opens_no_other(siege: Siege, target: str) -> None:
    reply = with_header(siege.foe, good_header(siege.foe), target)
    assert reply.status in (400, 401, 404), reply
    if reply.status == 404:
        assert reply.errcode == "M_UNRECOGNIZED"


def test_t065_the_body_is_signed(siege: Siege) -> None:
    foe = siege.foe
    target = f"{V1}/send/other-body"
    body = {"origin": foe.name, "origin_server_ts": 1, "pdus": [], "edus": []}
    header = {"Authorization": foe.authorization(signed(foe, "PUT", target, body))}
    assert foe.raw("PUT", target, {**body, "origin_server_ts": 2}, header).status == 401
    bodiless = {"Authorization": foe.authorization(signed(foe, "PUT", target))}
    assert foe.raw("PUT", target, body, bodiless).status == 401
    reordered = dict(reversed(body.items()))
    assert foe.raw("PUT", target, reordered, header).status == 200
    override = {**header, "X-HTTP-Method-Override": "GET"}
    assert foe.raw("POST", target, body, override).status in (401, 405)


def test_t058_t066_a_request_for_another_server_is_refused(siege: Siege) -> None:
    foe = siege.foe
    for destination in ("other.test", foe.name, foe.victim.upper() + ".", "127.0.0.3"):
        message = signed(foe, "GET", PROFILE, destination=destination)
        header = foe.authorization(message, destination=destination)
        assert with_header(foe, header).status == 401
        # Signed for another, and said to be for us.
        assert with_header(foe, foe.authorization(message)).status == 401


def test_t066_other_names_cannot_be_borrowed(siege: Siege) -> None:
    foe = siege.foe
    for origin in (foe.victim, "127.0.0.9:1", foe.name + "0"):
        message = signed(foe, "GET", PROFILE, origin=origin)
        reply = with_header(foe, foe.authorization(message, origin=origin))
        assert (reply.status, reply.errcode) == (401, "M_UNAUTHORIZED")


def test_t066_the_authenticated_origin_alone_has_authority(siege: Siege) -> None:
    """The `origin` in a transaction's body says nothing."""
    foe = siege.foe
    alice = siege.side.person("alice")
    body = {
        "origin": foe.victim,
        "origin_server_ts": 1,
        "pdus": [],
        "edus": [
            {
                "edu_type": "m.presence",
                "content": {
                    "push": [
                        {"user_id": alice.user_id, "presence": "offline", "status_msg": "hacked"}
                    ]
                },
            }
        ],
    }
    assert foe.request("PUT", f"{V1}/send/lying-origin", body).status in (200, 400, 403)
    found = alice.request("GET", f"/presence/{alice.user_id}/status")
    assert found.get("status_msg") != "hacked"


@pytest.mark.parametrize(
    "key_id", ["ed25519:unknown", "ed25519:", "rsa:far", "ed25519:" + "x" * 300]
)
def test_t048_a_key_that_the_origin_does_not_have(siege: Siege, key_id: str) -> None:
    other = SigningKey("unknown", bytes(range(32)))
    foe = siege.foe
    message = {"method": "GET", "uri": PROFILE, "origin": foe.name, "destination": foe.victim}
    signature = next(iter(sign_json(message, foe.name, other)["signatures"][foe.name].values()))
    fields = {"origin": foe.name, "destination": foe.victim, "key": key_id, "sig": signature}
    header = "X-Matrix " + ",".join(f'{name}="{value}"' for name, value in fields.items())
    assert with_header(foe, header).status == 401


@pytest.mark.parametrize("signature", ["", "AAAA", "A" * 86, "!" * 86, "é", "A" * 8000])
def test_t045_broken_signatures(siege: Siege, signature: str) -> None:
    header = good_header(siege.foe, sig=signature)
    try:
        reply = with_header(siege.foe, header)
    except UnicodeEncodeError:
        reply = with_header(siege.foe, header.encode().decode("latin-1"))
    assert reply.status in (400, 401, 431), reply


def test_federation_is_closed_without_a_signature(siege: Siege) -> None:
    """[B4.01]: nothing but the version and the keys is told to strangers."""
    room = local_name(siege.home_room)
    for method, target in (
        ("GET", f"{V1}/state/{room}?event_id=%24x"),
        ("GET", f"{V1}/state_ids/{room}?event_id=%24x"),
        ("GET", f"{V1}/event/%24x"),
        ("GET", f"{V1}/event_auth/{room}/%24x"),
        ("GET", f"{V1}/backfill/{room}?v=%24x&limit=1"),
        ("GET", f"{V1}/make_join/{room}/%40x%3A{siege.foe.name}"),
        ("GET", f"{V1}/publicRooms"),
        ("GET", PROFILE),
    ):
        reply = siege.foe.raw(method, target, None, {})
        assert (reply.status, reply.errcode) == (401, "M_UNAUTHORIZED"), target
    for method, target in (
        ("PUT", f"{V1}/send/x"),
        ("POST", f"{V1}/get_missing_events/{room}"),
        ("PUT", f"{V2}/send_join/{room}/%24x"),
        ("PUT", f"{V2}/send_leave/{room}/%24x"),
        ("PUT", f"{V2}/invite/{room}/%24x"),
    ):
        reply = siege.foe.raw(method, target, {}, {})
        assert (reply.status, reply.errcode) == (401, "M_UNAUTHORIZED"), target
    assert siege.foe.raw("GET", VERSION, None, {}).status == 200
    assert siege.foe.raw("GET", "/_matrix/key/v2/server", None, {}).status == 200


def test_t049_names_of_unknown_servers_cause_few_requests(siege: Siege) -> None:
    """Many origins that do not exist: each is tried once, few at a time, and answers come."""
    foe = siege.foe

    def ask(number: int) -> tuple[int, float]:
        origin = f"127.0.0.4:{20_000 + number % 200}"
        message = signed(foe, "GET", PROFILE, origin=origin)
        started = time.monotonic()
        reply = with_header(foe, foe.authorization(message, origin=origin))
        return reply.status, time.monotonic() - started

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(400)))
    assert {status for status, _ in answers} <= {401, 429}
    assert max(took for _, took in answers) < 15


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """A besieged server with its rate limits on."""
    limits = {"rate_limits": True, "password_hash_cost": "lowest"}
    with besieged(tmp_path_factory.mktemp("limited"), limits=limits) as made:
        yield made


def test_t068_nonsense_signatures_do_not_slow_the_household(limited: Siege) -> None:
    foe = limited.foe
    assert foe.request("GET", PROFILE).status in (200, 404)
    header = good_header(foe, sig="A" * 86)
    stop = time.monotonic() + 3

    def flood(_: int) -> set[int]:
        found: set[int] = set()
        while time.monotonic() < stop:
            found.add(with_header(foe, header).status)
        return found

    worst = 0.0
    with limited.survived(), ThreadPoolExecutor(4) as pool:
        floods = [pool.submit(flood, number) for number in range(4)]
        while time.monotonic() < stop:
            started = time.monotonic()
            limited.home.sync()
            worst = max(worst, time.monotonic() - started)
            time.sleep(0.05)
        statuses = set().union(*(each.result() for each in floods))
    assert statuses == {401, 429}
    assert worst < 0.5
