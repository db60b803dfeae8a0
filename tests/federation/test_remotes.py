"""Questions about rooms: what is asked, and which shapes of answers are taken."""

from __future__ import annotations

import json

import pytest

from matrixbox.clock import SimulatedClock
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.json import RawNumber
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.errors import RemoteInvalid, RemoteRefused
from matrixbox.federation import remotes as module
from matrixbox.federation.remotes import RoomRemotes
from matrixbox.rooms.remote import State, StateIds
from tests.federation.inside import Inside, a_client

V1, V11 = ROOM_VERSIONS["1"], ROOM_VERSIONS["11"]
ROOM, EVENT = RoomId("!room:far.test"), EventId("$event")


@pytest.fixture
async def net(autojump_clock):
    return Inside(SimulatedClock())


@pytest.fixture
async def far(net):
    return net.server("far.test")


@pytest.fixture
async def remotes(net):
    return RoomRemotes(a_client(net))


def says(far, value, status=200):
    far.respond = lambda request: (status, value)


async def test_an_event(autojump_clock, remotes, far):
    says(far, {"origin": "far.test", "origin_server_ts": 1, "pdus": [{"type": "x"}]})
    assert await remotes.event(far.name, V11, EVENT) == {"type": "x"}
    assert far.asked[0].target == "/_matrix/federation/v1/event/%24event"


@pytest.mark.parametrize("pdus", [[], [1], [{}, {}], None, {}, "x"])
async def test_an_answer_without_exactly_one_event_is_refused(autojump_clock, remotes, far, pdus):
    says(far, {"pdus": pdus} if pdus != {} else {})
    with pytest.raises(RemoteInvalid):
        await remotes.event(far.name, V11, EVENT)


async def test_missing_events(autojump_clock, remotes, far):
    says(far, {"events": [{"depth": n} for n in range(30)]})
    ids = [EventId("$a"), EventId("$b")]
    found = await remotes.missing_events(
        far.name, V11, ROOM, earliest=ids, latest=[EVENT], limit=20, min_depth=3
    )
    assert found == [{"depth": n} for n in range(20)]
    [request] = far.asked
    assert request.method == "POST"
    assert request.target == "/_matrix/federation/v1/get_missing_events/%21room%3Afar.test"
    assert json.loads(request.body) == {
        "earliest_events": ids,
        "latest_events": [EVENT],
        "limit": 20,
        "min_depth": 3,
    }


async def test_state_ids(autojump_clock, remotes, far):
    says(far, {"pdu_ids": ["$a", "$b", "$a", 7, "x"], "auth_chain_ids": ["$c"]})
    found = await remotes.state_ids(far.name, V11, ROOM, EVENT)
    assert found == StateIds(("$a", "$b"), ("$c",))
    assert far.asked[0].target.endswith("/state_ids/%21room%3Afar.test?event_id=%24event")


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"pdu_ids": []},
        {"pdu_ids": {}, "auth_chain_ids": []},
        {"pdu_ids": ["$a"] * (module.MAX_STATE_IDS + 1), "auth_chain_ids": []},
    ],
)
async def test_a_state_without_its_lists_or_with_endless_ones_is_refused(
    autojump_clock, remotes, far, said
):
    says(far, said)
    with pytest.raises(RemoteInvalid):
        await remotes.state_ids(far.name, V11, ROOM, EVENT)


async def test_state(autojump_clock, remotes, far):
    says(far, {"auth_chain": [{"a": 1}], "pdus": [{"b": 2}, [], None]})
    assert await remotes.state(far.name, V11, ROOM, EVENT) == State(({"b": 2},), ({"a": 1},))


async def test_event_auth(autojump_clock, remotes, far):
    says(far, {"auth_chain": [{"a": 1}, {"b": 2}]})
    assert await remotes.event_auth(far.name, V11, ROOM, EVENT) == [{"a": 1}, {"b": 2}]
    assert far.asked[0].target.endswith("/event_auth/%21room%3Afar.test/%24event")


async def test_backfill(autojump_clock, remotes, far):
    says(far, {"pdus": [{"n": n} for n in range(9)]})
    before = [EventId("$a"), EventId("$b")]
    found = await remotes.backfill(far.name, V11, ROOM, before=before, limit=5)
    assert found == [{"n": n} for n in range(7)]
    assert far.asked[0].target.endswith("/backfill/%21room%3Afar.test?v=%24a&v=%24b&limit=5")


async def test_t085_one_bad_event_harms_only_itself(autojump_clock, remotes, far):
    says(
        far,
        b'{"events": [{"a":1}, {"a":1,"a":2}, {"b":NaN}, {"c":"\\ud800"}, {"d":'
        + b"[" * 126
        + b"]" * 126
        + b'}, {"e":2}]}',
    )
    found = await remotes.missing_events(far.name, V11, ROOM, earliest=[], latest=[EVENT], limit=20)
    assert [sorted(pdu) for pdu in found] == [["a"], ["d"], ["e"]]


async def test_t086_numbers_stay_as_they_were_written(autojump_clock, remotes, far):
    says(far, b'{"pdus": [{"depth": 1.0, "n": 1e10}]}')
    assert await remotes.event(far.name, V1, EVENT) == {
        "depth": RawNumber("1.0"),
        "n": RawNumber("1e10"),
    }


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"pdus":[', b"<html>", b'{"pdus":[}]', b'{"pdus":[],"pdus":[]}']
)
async def test_what_cannot_be_taken_apart_is_refused(autojump_clock, remotes, far, body):
    says(far, body)
    with pytest.raises(RemoteInvalid):
        await remotes.backfill(far.name, V11, ROOM, before=[EVENT], limit=5)


async def test_too_many_events_are_refused(autojump_clock, remotes, far):
    says(far, {"pdus": [{}] * (module.MAX_EVENTS + 100)})
    with pytest.raises(RemoteInvalid):
        await remotes.backfill(far.name, V11, ROOM, before=[EVENT], limit=5)


async def test_a_refusal_passes_through(autojump_clock, remotes, far):
    says(far, {"errcode": "M_FORBIDDEN", "error": "not in the room"}, 403)
    with pytest.raises(RemoteRefused):
        await remotes.state(far.name, V11, ROOM, EVENT)
