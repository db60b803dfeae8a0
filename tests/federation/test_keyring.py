"""Whose signatures are believed, and which servers are asked for keys meanwhile."""

from __future__ import annotations

import pytest
import trio

from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import ServerName
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import encode_base64, hash_and_sign_event, sign_json, sign_redacted
from matrixbox.federation import keyring as keyring_module
from matrixbox.federation.client import request_bytes
from matrixbox.federation.destinations import Destinations
from matrixbox.rooms.remote import Signed
from matrixbox.store import server_keys
from tests.federation.inside import (
    DAY_MS,
    HOME,
    HOME_KEY,
    HOUR_MS,
    Inside,
    a_client,
    a_ring,
    a_store,
    key_named,
    pdu_of,
)

VALID, INVALID, UNKNOWN = Signed.VALID, Signed.INVALID, Signed.UNKNOWN
V4, V5, V11 = ROOM_VERSIONS["4"], ROOM_VERSIONS["5"], ROOM_VERSIONS["11"]
V1, V9, V12 = ROOM_VERSIONS["1"], ROOM_VERSIONS["9"], ROOM_VERSIONS["12"]


@pytest.fixture
async def clock(autojump_clock):
    return SimulatedClock()


@pytest.fixture
async def net(clock):
    return Inside(clock)


@pytest.fixture
def store():
    with a_store() as found:
        yield found


@pytest.fixture
async def ring(store, clock, net):
    """The keyring of home.test, which may ask notary.test."""
    return a_ring(store, clock, net, ("notary.test",))


@pytest.fixture
async def far(net):
    return net.server("far.test")


async def one(ring, rules, pdu):
    [verdict] = await ring.verify(rules, [pdu])
    return verdict


@pytest.mark.parametrize("version", sorted(ROOM_VERSIONS, key=int))
async def test_a_good_signature_is_valid_in_every_room_version(autojump_clock, ring, far, version):
    rules = ROOM_VERSIONS[version]
    assert await one(ring, rules, far.event(rules)) is VALID
    assert far.times_asked_for_keys() == 1


async def test_a4_07_content_that_does_not_match_the_hash_is_not_the_signatures_business(
    autojump_clock, ring, far
):
    """T046: the signature covers the redacted form."""
    pdu = far.event(V11) | {"content": {"body": "another"}}
    assert await one(ring, V11, pdu) is VALID


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pdu: pdu | {"depth": 6},
        lambda pdu: pdu | {"signatures": {}},
        lambda pdu: pdu | {"signatures": {"far.test": {}}},
        lambda pdu: pdu | {"signatures": {"far.test": {"ed25519:x": 5}}},
        lambda pdu: pdu | {"signatures": {"far.test": "ed25519:x"}},
        lambda pdu: pdu | {"signatures": []},
        lambda pdu: pdu | {"sender": "ann"},
        lambda pdu: pdu | {"sender": 7},
        lambda pdu: pdu | {"content": []},
        lambda pdu: pdu | {"origin_server_ts": "now"},
        lambda pdu: {key: value for key, value in pdu.items() if key != "signatures"},
        lambda pdu: {},
    ],
)
async def test_t044_what_is_not_signed_by_the_sender_is_invalid(autojump_clock, ring, far, spoil):
    assert await one(ring, V11, spoil(far.event(V11))) is INVALID


async def test_t044_a_relays_signature_under_its_own_name_is_not_the_senders(
    autojump_clock, ring, net, far
):
    relay = net.server("relay.test")
    pdu = hash_and_sign_event(V11, pdu_of(V11, "far.test"), "relay.test", relay.key)
    assert await one(ring, V11, pdu) is INVALID
    assert far.asked == relay.asked == []


async def test_t044_a_relays_signature_under_the_senders_name_is_invalid(
    autojump_clock, ring, net, far
):
    relay = net.server("relay.test")
    wrong_key = hash_and_sign_event(V11, pdu_of(V11, "far.test"), "far.test", relay.key)
    assert await one(ring, V11, wrong_key) is INVALID
    [signature] = wrong_key["signatures"]["far.test"].values()
    named_alike = wrong_key | {"signatures": {"far.test": {far.key.key_id: signature}}}
    assert await one(ring, V11, named_alike) is INVALID
    assert relay.asked == []


async def test_t044_600_further_signatures_cause_no_request(autojump_clock, ring, net, far):
    pdu = far.event(V11)
    signatures = dict(pdu["signatures"])
    for number in range(600):
        signatures[f"s{number}.test"] = {"ed25519:a": "AAAA"}
    assert await one(ring, V11, pdu | {"signatures": signatures}) is VALID
    assert net.most_at_once == 1
    assert len(far.asked) == 1


async def test_t044_further_keys_of_the_sender_are_passed_over_and_asked_for_once(
    autojump_clock, ring, net, far
):
    """[A4.04]: one good signature with a known key is enough."""
    pdu = far.event(V11)
    own = pdu["signatures"]["far.test"]
    many = {f"ed25519:k{number}": "AAAA" for number in range(600)}
    assert await one(ring, V11, pdu | {"signatures": {"far.test": own | many}}) is VALID
    assert far.times_asked_for_keys() == 1


async def test_a4_04_every_signature_with_a_known_key_must_be_good(autojump_clock, ring, net, far):
    first = far.key
    far.change_key(key_named("second"))
    pdu = far.event(V11, origin_server_ts=far.clock.now_ms() - DAY_MS)
    both = sign_redacted(V11, pdu, "far.test", first)
    assert await one(ring, V11, both) is VALID
    spoilt = {**both["signatures"]["far.test"], first.key_id: encode_base64(bytes(64))}
    assert await one(ring, V11, both | {"signatures": {"far.test": spoilt}}) is INVALID


async def test_a4_06_the_key_of_a_policy_server_is_not_looked_for(autojump_clock, ring, far):
    pdu = far.event(V11)
    own = pdu["signatures"]["far.test"]
    with_policy = {"far.test": own | {"ed25519:policy_server": "AAAA"}}
    assert await one(ring, V11, pdu | {"signatures": with_policy}) is VALID
    only_policy = {"far.test": {"ed25519:policy_server": "AAAA"}}
    assert await one(ring, V11, pdu | {"signatures": only_policy}) is INVALID


async def test_a4_05_an_invite_by_third_party_needs_no_signature_of_the_senders_server(
    autojump_clock, ring, far
):
    pdu = pdu_of(V11, "far.test", type="m.room.member", state_key="@bob:home.test")
    invite = pdu | {"content": {"membership": "invite", "third_party_invite": {}}}
    assert await one(ring, V11, invite) is VALID
    join = pdu | {"content": {"membership": "join", "third_party_invite": {}}}
    assert await one(ring, V11, join) is INVALID
    assert far.asked == []


async def test_a2_01_versions_1_and_2_ask_the_server_of_the_event_id_too(
    autojump_clock, ring, net, far
):
    other = net.server("other.test")
    pdu = far.event(V1, event_id="$event:other.test")
    assert await one(ring, V1, pdu) is INVALID
    assert await one(ring, V1, sign_redacted(V1, pdu, "other.test", other.key)) is VALID
    assert await one(ring, V11, far.event(V11, event_id="$event:other.test")) is VALID
    assert await one(ring, V1, far.event(V1) | {"event_id": "$opaque"}) is INVALID


@pytest.mark.parametrize("membership", ["join", "invite", "leave"])
async def test_k_10_who_authorised_a_join_signs_too(autojump_clock, ring, net, far, membership):
    resident = net.server("resident.test")
    content = {
        "membership": membership,
        "join_authorised_via_users_server": "@admin:resident.test",
    }
    pdu = far.event(V9, type="m.room.member", state_key="@ann:far.test", content=content)
    assert await one(ring, V9, pdu) is INVALID
    assert await one(ring, V9, sign_redacted(V9, pdu, "resident.test", resident.key)) is VALID


# --- time


def signed_at(far, ts, rules=V11):
    return far.event(rules, origin_server_ts=ts)


async def test_t048_from_version_5_on_the_key_must_be_valid_at_the_events_time(
    autojump_clock, ring, far
):
    """[B3.04]: and the server is asked again before that is concluded."""
    now = far.clock.now_ms()
    assert await one(ring, V5, signed_at(far, now, V5)) is VALID
    assert await one(ring, V5, signed_at(far, now - 1000 * DAY_MS, V5)) is VALID
    assert await one(ring, V5, signed_at(far, now + 2 * DAY_MS, V5)) is INVALID
    assert far.times_asked_for_keys() == 1  # the answer was new, asking again would not help
    assert await one(ring, V4, signed_at(far, now + 2 * DAY_MS, V4)) is VALID


async def test_t048_a_key_is_fetched_anew_when_it_has_run_out(autojump_clock, ring, far):
    assert await one(ring, V11, signed_at(far, far.clock.now_ms())) is VALID
    await trio.sleep(2 * DAY_MS / 1000)
    assert await one(ring, V11, signed_at(far, far.clock.now_ms())) is VALID
    assert far.times_asked_for_keys() == 2


async def test_t048_a_key_that_cannot_be_fetched_anew_is_unknown_not_wrong(
    autojump_clock, ring, far
):
    assert await one(ring, V11, signed_at(far, far.clock.now_ms())) is VALID
    await trio.sleep(2 * DAY_MS / 1000)
    far.is_up = False
    late = signed_at(far, far.clock.now_ms())
    assert await one(ring, V11, late) is UNKNOWN
    assert await one(ring, V4, signed_at(far, far.clock.now_ms(), V4)) is VALID
    far.is_up = True
    await trio.sleep(2 * keyring_module.ASK_AGAIN_S)
    assert await one(ring, V11, late) is VALID


async def test_t047_a_validity_of_centuries_counts_for_a_week(autojump_clock, ring, far):
    far.valid_for_ms = 9000 * 365 * DAY_MS
    assert await one(ring, V11, signed_at(far, far.clock.now_ms() + 6 * DAY_MS)) is VALID
    assert await one(ring, V11, signed_at(far, far.clock.now_ms() + 8 * DAY_MS)) is INVALID


async def test_b3_02_an_old_key_is_good_for_events_before_it_ran_out(autojump_clock, ring, far):
    before = signed_at(far, far.clock.now_ms() - HOUR_MS)
    at_the_end = signed_at(far, far.clock.now_ms())
    very_old_room = signed_at(far, far.clock.now_ms() + HOUR_MS, V4)
    far.change_key(key_named("second"))
    assert await one(ring, V11, before) is VALID
    assert await one(ring, V11, at_the_end) is INVALID
    assert await one(ring, V4, very_old_room) is VALID


async def test_a_key_that_vanished_stays_for_older_events_and_signs_no_requests(
    autojump_clock, ring, far
):
    first, said = far.key, far.clock.now_ms()
    before = signed_at(far, said - HOUR_MS)
    assert await one(ring, V11, before) is VALID
    far.key = key_named("second")
    await trio.sleep(HOUR_MS / 1000)
    assert await one(ring, V11, signed_at(far, far.clock.now_ms())) is VALID
    assert await one(ring, V11, before) is VALID
    message, signatures = a_request("far.test", first)
    assert await ring.verify_request(far.name, message, signatures) is INVALID


# --- requests


def a_request(origin, key):
    message = request_bytes("GET", "/x", origin, HOME, None)
    return message, {key.key_id: encode_base64(key.sign(message))}


async def test_b4_06_requests_are_signed_with_current_keys(autojump_clock, ring, far):
    first = far.key
    message, signatures = a_request("far.test", first)
    assert not ring.knows_for_request(far.name, signatures)
    assert await ring.verify_request(far.name, message, signatures) is VALID
    assert ring.knows_for_request(far.name, signatures)
    assert await ring.verify_request(far.name, message + b" ", signatures) is INVALID
    await trio.sleep(keyring_module.ASK_CALLER_AGAIN_S + 1)
    far.change_key(key_named("second"))
    message, signatures = a_request("far.test", far.key)
    assert await ring.verify_request(far.name, message, signatures) is VALID
    message, signatures = a_request("far.test", first)
    assert await ring.verify_request(far.name, message, signatures) is INVALID  # T048


async def test_t047_a_key_in_both_lists_signs_no_requests(autojump_clock, ring, far):
    far.old[far.key.key_id] = {
        "key": far.key.verify_key_base64,
        "expired_ts": far.clock.now_ms(),
    }
    message, signatures = a_request("far.test", far.key)
    assert await ring.verify_request(far.name, message, signatures) is INVALID
    assert await one(ring, V11, signed_at(far, far.clock.now_ms() - HOUR_MS)) is VALID


async def test_a_request_of_a_server_that_is_down_is_unknown(autojump_clock, ring, net):
    message, signatures = a_request("nowhere.test", key_named("x"))
    assert await ring.verify_request(ServerName("nowhere.test"), message, signatures) is UNKNOWN


async def test_t048_a_request_needs_a_key_that_has_not_run_out(autojump_clock, ring, far):
    message, signatures = a_request("far.test", far.key)
    assert await ring.verify_request(far.name, message, signatures) is VALID
    await trio.sleep(2 * DAY_MS / 1000)
    far.is_up = False
    assert await ring.verify_request(far.name, message, signatures) is UNKNOWN


# --- asking


async def test_b3_07_an_unknown_key_asks_again_and_one_that_is_not_there_does_not(
    autojump_clock, ring, far
):
    assert await one(ring, V11, far.event(V11)) is VALID
    stranger = hash_and_sign_event(V11, pdu_of(V11, "far.test"), "far.test", key_named("stranger"))
    await trio.sleep(1)
    assert await one(ring, V11, stranger) is UNKNOWN  # it was asked for the other key just now
    await trio.sleep(keyring_module.ASK_AGAIN_S)
    assert await one(ring, V11, stranger) is INVALID
    assert far.times_asked_for_keys() == 2
    await trio.sleep(keyring_module.ASK_AGAIN_S / 2)
    assert await one(ring, V11, stranger) is INVALID
    assert far.times_asked_for_keys() == 2
    for _ in range(100):
        await trio.sleep(keyring_module.ASK_AGAIN_S)
        assert await one(ring, V11, stranger) is INVALID
    assert far.times_asked_for_keys() < 10


async def test_a_new_key_is_found_when_it_is_first_seen(autojump_clock, ring, far):
    assert await one(ring, V11, signed_at(far, far.clock.now_ms())) is VALID
    await trio.sleep(2 * keyring_module.ASK_AGAIN_S)
    far.change_key(key_named("second"))
    assert await one(ring, V11, signed_at(far, far.clock.now_ms() + 1)) is VALID


async def test_t049_a_server_that_is_down_is_asked_once_a_minute_and_then_less_often(
    autojump_clock, ring, far
):
    far.is_up = False
    pdu = far.event(V11)
    for _ in range(24 * 60 * 2):
        assert await one(ring, V11, pdu) is UNKNOWN
        await trio.sleep(30)
    assert 24 <= far.times_asked_for_keys() <= 24 + 8


async def test_t049_who_calls_us_is_asked_once_a_minute_however_often_it_failed(
    autojump_clock, ring, far
):
    """Else a server that comes back could not make itself known for an hour."""
    far.is_up = False
    pdu = far.event(V11)
    for _ in range(200):
        await one(ring, V11, pdu)
        await trio.sleep(60)
    far.is_up = True
    message, signatures = a_request("far.test", far.key)
    await trio.sleep(keyring_module.ASK_AGAIN_S)
    assert await ring.verify_request(far.name, message, signatures) is VALID


async def test_a_server_that_is_back_is_asked_soon_whatever_it_answered(
    autojump_clock, store, clock, net, ring, far
):
    """A join begins with other calls to the very server whose keys could not be had before."""
    ring.client = a_client(net, Destinations(store, clock, HOUR_MS / 1000))
    far.is_up = False
    pdu = far.event(V11)
    for _ in range(50):
        assert await one(ring, V11, pdu) is UNKNOWN
        await trio.sleep(60)
    far.is_up = True
    await trio.sleep(keyring_module.ASK_CALLER_AGAIN_S)
    assert await one(ring, V11, pdu) is UNKNOWN  # nobody knows that it is back
    ring.client.destinations.succeeded(far.name)
    assert await one(ring, V11, pdu) is VALID


async def test_t049_5000_servers_cause_at_most_8_fetches_at_once(autojump_clock, ring, net):
    for number in range(300):
        net.server(f"s{number}.test").takes_s = 1.0

    async def ask(number):
        name = ServerName(f"s{number}.test")
        message, signatures = a_request(name, key_named(str(number)))
        with trio.move_on_after(10):
            await ring.verify_request(name, message, signatures)

    async with trio.open_nursery() as nursery:
        for number in range(5000):
            nursery.start_soon(ask, number)
    assert net.most_at_once <= keyring_module.FETCHES_AT_ONCE == 8


async def test_one_fetch_serves_everybody_who_waits_for_it(autojump_clock, ring, far):
    far.takes_s = 5.0
    verdicts = []

    async def ask():
        verdicts.append(await one(ring, V11, far.event(V11)))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert verdicts == [VALID] * 20
    assert far.times_asked_for_keys() == 1


async def test_t049_somebody_who_asks_and_goes_away_keeps_nobody_from_the_answer(
    autojump_clock, ring, far
):
    far.takes_s = 5.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ring.run)
        await trio.testing.wait_all_tasks_blocked()
        message, signatures = a_request("far.test", key_named("forged"))
        with trio.move_on_after(0.1):
            await ring.verify_request(far.name, message, signatures)
        assert await one(ring, V11, far.event(V11)) is VALID
        assert far.times_asked_for_keys() == 1
        nursery.cancel_scope.cancel()


async def test_keys_are_kept_over_a_restart(autojump_clock, ring, far, store, clock, net):
    pdu = far.event(V11)
    assert await one(ring, V11, pdu) is VALID
    far.is_up = False
    again = a_ring(store, clock, net)
    assert await one(again, V11, pdu) is VALID
    assert far.times_asked_for_keys() == 1


async def test_what_is_remembered_is_bounded(autojump_clock, ring, net, monkeypatch):
    monkeypatch.setattr(keyring_module, "SERVERS_REMEMBERED", 10)
    for number in range(30):
        far = net.server(f"s{number}.test")
        assert await one(ring, V11, far.event(V11)) is VALID
    assert len(ring._known) <= 10
    assert len(ring._asked) <= 10


async def test_the_oldest_of_too_many_servers_are_forgotten(autojump_clock, store, clock, net):
    ring = a_ring(store, clock, net)
    for number in range(8):
        far = net.server(f"s{number}.test")
        await one(ring, V11, far.event(V11))
        await trio.sleep(1)
    assert await store.write(server_keys.forget_oldest, 5) == 3
    assert not store.read(server_keys.keys_of, ServerName("s0.test"))
    assert store.read(server_keys.keys_of, ServerName("s3.test"))
    assert store.read(server_keys.answer_of, ServerName("s0.test")) is None


async def test_our_own_events_need_nobody(autojump_clock, ring, net):
    pdu = hash_and_sign_event(V11, pdu_of(V11, HOME), HOME, HOME_KEY)
    assert await one(ring, V11, pdu) is VALID
    forged = hash_and_sign_event(V11, pdu_of(V11, HOME), HOME, key_named("thief"))
    assert await one(ring, V11, forged) is INVALID
    assert net.most_at_once == 0


async def test_many_events_keep_their_order(autojump_clock, ring, net):
    servers = [net.server(f"s{number}.test") for number in range(7)]
    servers[3].is_up = False
    pdus, wanted = [], []
    for number in range(200):
        far = servers[number % 7]
        pdu = far.event(V11, depth=number)
        if number % 5 == 0:
            pdu["depth"] += 1
        pdus.append(pdu)
        wanted.append(UNKNOWN if number % 7 == 3 else INVALID if number % 5 == 0 else VALID)
    assert await ring.verify(V11, pdus) == wanted
    assert [far.times_asked_for_keys() for far in servers] == [1] * 7


# --- answers that are no good, by way of the network


@pytest.mark.parametrize(
    "said",
    [
        (500, {}),
        (200, []),
        (200, {}),
        (200, b"<html>"),
        (200, b'{"server_name":"far.test","server_name":"far.test"}'),
        (302, {}),
    ],
)
async def test_t047_a_useless_answer_leaves_the_verdict_open(autojump_clock, ring, far, said):
    far.respond = lambda request: said
    assert await one(ring, V11, far.event(V11)) is UNKNOWN


async def test_t047_other_bytes_under_a_known_name_are_believed_from_the_server_itself(
    autojump_clock, ring, far, store
):
    """A server that was installed anew."""
    first = far.event(V11)
    assert await one(ring, V11, first) is VALID
    far.key = keyring_key_with_other_bytes(far.key)
    await trio.sleep(2 * DAY_MS / 1000)
    assert await one(ring, V11, signed_at(far, far.clock.now_ms())) is VALID
    assert await one(ring, V11, first) is INVALID


def keyring_key_with_other_bytes(key):
    return type(key)(key.version, bytes(31) + b"\x07")


# --- objects


async def test_an_object_is_checked_with_the_keys_of_whoever_should_have_signed_it(
    autojump_clock, ring, far
):
    signed = sign_json({"mxid": "@a:far.test"}, "far.test", far.key)
    assert await ring.verify_json(far.name, signed) is VALID
    assert await ring.verify_json(far.name, signed | {"mxid": "@b:far.test"}) is INVALID
    assert await ring.verify_json(ServerName("other.test"), signed) is INVALID
    assert await ring.verify_json(far.name, {"signatures": 7}) is INVALID
    late = far.clock.now_ms() + 2 * DAY_MS
    assert await ring.verify_json(far.name, signed, late) is INVALID
    nobody = sign_json({}, "nowhere.test", far.key)
    assert await ring.verify_json(ServerName("nowhere.test"), nobody) is UNKNOWN
