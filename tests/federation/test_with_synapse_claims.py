"""A real Synapse wants a one-time key of ours while we are down: once we are back it gets one.

Synapse leaves a server alone for ten minutes when it did not reach it. Whoever is written to
meanwhile cannot decrypt what is said, so this has to end when our server starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.federation.pair import Pair, Person, eventually, federating
from tests.federation.test_with_synapse import together

WITHIN_S = 10.0
AS_SYNAPSE_DOES = {"client_timeout": 10_000, "max_short_retries": 1, "max_short_retry_delay": 100}
ALGORITHM = "curve25519"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """With Synapse's own times for servers that it does not reach."""
    with federating(tmp_path_factory.mktemp("claims"), federation=AS_SYNAPSE_DOES) as found:
        yield found


def claimed(alice: Person, bob: Person, device: str) -> str | None:
    """A key of Bob's device for Alice; None where there was no way to his server."""
    body = {"one_time_keys": {bob.user_id: {device: ALGORITHM}}}
    answer = alice.request("POST", "/keys/claim", body)
    given = answer["one_time_keys"].get(bob.user_id, {}).get(device)
    assert given or bob.side.name in answer["failures"], answer
    return given and str(next(iter(given.values())))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_key_is_to_be_had_soon_after_our_start(pair: Pair, end: str) -> None:
    """[C17.04]: each key once, and no long silence after our own downtime."""
    alice, bob, _ = together(pair, "theirs", "12")
    device = bob.request("GET", "/account/whoami")["device_id"]
    keys = {f"{ALGORITHM}:{number}": chr(65 + number) * 43 for number in range(5)}
    bob.request("POST", "/keys/upload", {"one_time_keys": keys})
    given = [claimed(alice, bob, device)]
    getattr(pair.server, end)()
    assert claimed(alice, bob, device) is None
    began = time.monotonic()
    assert claimed(alice, bob, device) is None
    assert time.monotonic() - began < 0.5, "Synapse does not even try now"
    pair.server.start()
    given.append(eventually(lambda: claimed(alice, bob, device), "a key", WITHIN_S))
    assert len({*given}) == 2
    assert {*given} <= {*keys.values()}
