"""Our own keys and those of others, as we tell of them, and what notaries tell us."""

from __future__ import annotations

import json

import pytest
import trio

from matrixbox.clock import SimulatedClock
from matrixbox.core.events import parse_event
from matrixbox.core.identifiers import ServerName
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.core.signing import json_signature_valid, sign_json
from matrixbox.federation import keyring as keyring_module
from matrixbox.federation.notary import SERVERS_ASKED, Notary
from matrixbox.federation.own_keys import OwnKeys
from matrixbox.rooms.remote import Signed
from matrixbox.store.server_keys import OldKey
from tests.federation.inside import (
    DAY_MS,
    HOME,
    HOME_KEY,
    HOUR_MS,
    Inside,
    a_ring,
    a_store,
    key_named,
)

V11 = ROOM_VERSIONS["11"]
FAR = ServerName("far.test")


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
    return a_ring(store, clock, net, ("notary.test",))


@pytest.fixture
async def notary(store, clock, ring):
    return Notary(store, clock, ring, ring.own)


@pytest.fixture
async def far(net):
    return net.server("far.test")


# --- our own


async def test_b3_01_our_answer_is_signed_and_lasts_a_day(clock):
    own = OwnKeys(HOME, HOME_KEY, [OldKey("ed25519:o", bytes(32), 77)], clock)
    now_ms = clock.now_ms()
    answer = own.answer()
    assert answer["server_name"] == HOME
    assert answer["verify_keys"] == {HOME_KEY.key_id: {"key": HOME_KEY.verify_key_base64}}
    assert answer["old_verify_keys"] == {"ed25519:o": {"key": "A" * 43, "expired_ts": 77}}
    assert now_ms <= answer["valid_until_ts"] - DAY_MS <= clock.now_ms()
    assert json_signature_valid(answer, HOME, HOME_KEY.key_id, HOME_KEY.verify_key)


async def test_b3_02_we_never_say_what_runs_out_within_an_hour(autojump_clock, clock):
    own = OwnKeys(HOME, HOME_KEY, [], clock)
    for _ in range(60):
        left = own.answer()["valid_until_ts"] - clock.now_ms()
        assert 23 * HOUR_MS <= left <= 24 * HOUR_MS
        await trio.sleep(1700)
    clock.step(-30 * DAY_MS)  # T153
    assert own.answer()["valid_until_ts"] - clock.now_ms() <= 24 * HOUR_MS


# --- as a notary


async def test_b3_05_what_a_server_says_is_signed_by_it_and_by_us(autojump_clock, notary, far):
    [answer] = await notary.answers({FAR: None})
    assert json_signature_valid(answer, FAR, far.key.key_id, far.key.verify_key)
    assert json_signature_valid(answer, HOME, HOME_KEY.key_id, HOME_KEY.verify_key)


async def test_b3_06_servers_of_which_nothing_is_known_are_left_out(autojump_clock, notary, far):
    answers = await notary.answers({ServerName("gone.test"): None, FAR: None, HOME: None})
    assert [answer["server_name"] for answer in answers] == [FAR, HOME]
    assert await notary.answers({}) == []


async def test_b3_05_an_answer_is_kept_for_half_its_life(autojump_clock, notary, far):
    for _ in range(11):
        await notary.answers({FAR: None})
        await trio.sleep(3600)
    assert far.times_asked_for_keys() == 1
    await trio.sleep(3601)
    await notary.answers({FAR: None})
    assert far.times_asked_for_keys() == 2


async def test_b3_05_the_last_answer_is_told_when_the_server_is_gone(autojump_clock, notary, far):
    [before] = await notary.answers({FAR: None})
    far.is_up = False
    await trio.sleep(60 * DAY_MS / 1000)
    [after] = await notary.answers({FAR: None})
    assert after == before


async def test_b3_06_a_longer_validity_asks_the_server_again(autojump_clock, notary, far, clock):
    await notary.answers({FAR: None})
    await trio.sleep(3600)
    await notary.answers({FAR: clock.now_ms() + 22 * HOUR_MS})
    assert far.times_asked_for_keys() == 1
    [answer] = await notary.answers({FAR: clock.now_ms() + 24 * HOUR_MS})
    assert far.times_asked_for_keys() == 2
    assert answer["valid_until_ts"] == clock.now_ms() + DAY_MS


async def test_t049_one_query_asks_at_most_100_servers_8_at_once(autojump_clock, notary, net):
    names = [net.server(f"s{number}.test").name for number in range(250)]
    answers = await notary.answers(dict.fromkeys(names))
    assert len(answers) == SERVERS_ASKED == 100
    assert net.most_at_once <= 8
    assert sum(far.times_asked_for_keys() for far in net.servers.values()) == 100


async def test_t049_a_query_ends_after_10_seconds_whatever_others_do(autojump_clock, notary, net):
    for number in range(50):
        net.server(f"s{number}.test").takes_s = 9.0
    started = trio.current_time()
    answers = await notary.answers(dict.fromkeys(net.servers))
    assert trio.current_time() - started <= 10.01
    assert len(answers) == 8


@pytest.mark.parametrize(
    "said",
    [
        {"type": "m.room.create", "sender": "@a:home.test", "content": {}},
        {"method": "PUT", "uri": "/_matrix/federation/v1/send/1", "origin": "home.test"},
        {"server_name": "home.test"},
        {"verify_keys": {}},
    ],
)
async def test_t050_nothing_but_answers_about_keys_is_countersigned(
    autojump_clock, notary, far, said
):
    far.respond = lambda request: (200, far.keys(**said))
    assert await notary.answers({FAR: None}) == []


async def test_t050_what_we_countersign_is_no_event_and_no_request(autojump_clock, notary, far):
    """Not even with members that no answer about keys has."""
    far.respond = lambda request: (200, far.keys(hashes={}, depth=1, prev_events=[], extra=1))
    [answer] = await notary.answers({FAR: None})
    for rules in ROOM_VERSIONS.values():
        with pytest.raises(Exception, match=r"type|sender|is not"):
            parse_event(rules, answer)
    assert not {"method", "uri", "origin", "destination"} & set(answer)


# --- asking notaries


def notary_says(net, name, servers, key=None):
    """A server that knows the keys of others."""
    far = net.server(name, key)

    def respond(request):
        if request.target != "/_matrix/key/v2/query":
            return None
        asked = json.loads(request.body)["server_keys"]
        found = [servers[server] for server in asked if server in servers]
        return 200, {"server_keys": [sign_json(said, name, far.key) for said in found]}

    far.respond = respond
    return far


async def test_t048_a_server_that_is_gone_is_vouched_for_by_a_notary(
    autojump_clock, ring, net, far
):
    pdu = far.event(V11)
    notary_says(net, "notary.test", {"far.test": far.keys()})
    far.is_up = False
    assert await ring.verify(V11, [pdu]) == [Signed.VALID]
    assert far.times_asked_for_keys() == 1


async def test_the_server_itself_is_asked_first_when_there_are_few(autojump_clock, ring, net, far):
    witness = notary_says(net, "notary.test", {"far.test": far.keys()})
    assert await ring.verify(V11, [far.event(V11)]) == [Signed.VALID]
    assert witness.asked == []


async def test_a_notary_is_asked_first_when_there_are_many(autojump_clock, ring, net):
    """Else a large room with hundreds of servers that are gone could not be joined."""
    fars = [net.server(f"s{number}.test") for number in range(230)]
    pdus = [far.event(V11) for far in fars]
    witness = notary_says(net, "notary.test", {far.name: far.keys() for far in fars})
    for far in fars:
        far.is_up = False
    assert await ring.verify(V11, pdus) == [Signed.VALID] * 230
    assert sum(far.times_asked_for_keys() for far in fars) == 0
    queries = [json.loads(asked.body) for asked in witness.asked if asked.method == "POST"]
    assert [len(query["server_keys"]) for query in queries] == [100, 100, 30]


async def test_a_notarys_answer_that_it_has_not_signed_counts_for_nothing(
    autojump_clock, ring, net, far
):
    pdu = far.event(V11)
    witness = net.server("notary.test")
    far.is_up = False
    for signed in (far.keys(), sign_json(far.keys(), "notary.test", key_named("thief"))):
        witness.respond = lambda request, said=signed: (
            (200, {"server_keys": [said]}) if request.method == "POST" else None
        )
        assert await ring.verify(V11, [pdu]) == [Signed.UNKNOWN]
        await trio.sleep(7200)


async def test_t047_a_notary_cannot_put_another_key_in_the_place_of_one(
    autojump_clock, ring, net, far
):
    pdu = far.event(V11)
    assert await ring.verify(V11, [pdu]) == [Signed.VALID]
    real, far.key = far.key, type(far.key)(far.key.version, bytes(31) + b"\x05")
    forged, forgery = far.keys(), far.event(V11, origin_server_ts=far.clock.now_ms() + 2 * DAY_MS)
    far.key, far.is_up = real, False
    notary_says(net, "notary.test", {"far.test": forged})
    await trio.sleep(3 * DAY_MS / 1000)
    assert await ring.verify(V11, [forgery]) != [Signed.VALID]
    assert await ring.verify(V11, [pdu]) == [Signed.VALID]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"server_keys": {}},
        {"server_keys": [5, None, {}, {"server_name": 7}, {"server_name": "far.test"}]},
        [],
    ],
)
async def test_t090_a_notary_that_talks_nonsense_harms_nobody(autojump_clock, ring, net, far, said):
    pdu = far.event(V11)
    far.is_up = False
    net.server("notary.test").respond = lambda request: (200, said)
    assert await ring.verify(V11, [pdu]) == [Signed.UNKNOWN]


async def test_t049_a_notary_is_asked_about_a_server_as_rarely_as_the_server(
    autojump_clock, ring, net, far
):
    pdu = far.event(V11)
    far.is_up = False
    witness = notary_says(net, "notary.test", {})
    for _ in range(3600):
        assert await ring.verify(V11, [pdu]) == [Signed.UNKNOWN]
        await trio.sleep(1)
    assert far.times_asked_for_keys() <= 8
    assert sum(request.method == "POST" for request in witness.asked) <= 8


async def test_a_notary_that_was_not_chosen_is_never_asked(autojump_clock, store, clock, net, far):
    ring = a_ring(store, clock, net)
    pdu = far.event(V11)
    witness = notary_says(net, "notary.test", {"far.test": far.keys()})
    far.is_up = False
    assert await ring.verify(V11, [pdu]) == [Signed.UNKNOWN]
    assert witness.asked == []
    assert keyring_module.SERVERS_PER_NOTARY_QUERY == 100
