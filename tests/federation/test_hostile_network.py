"""Key servers that lie, certificates that are wrong, and addresses that point inside (D, E)."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from matrixbox.core.signing import encode_base64, sign_json
from tests.federation.hostile import ADDRESS, V1, Asked, Foe, Hang
from tests.federation.pair import Refused
from tests.federation.siege import Siege, besieged

PROFILE = f"{V1}/query/profile?user_id=%40nobody%3A127.0.0.3"
KEYS = ("GET", "/key/v2/server")


def resigned(foe: Foe, document: dict[str, Any]) -> dict[str, Any]:
    return sign_json({k: v for k, v in document.items() if k != "signatures"}, foe.name, foe.key)


def hang(asked: Asked) -> Any:
    raise Hang


LIES: dict[str, Any] = {
    "of another server": lambda foe: resigned(foe, foe.keys(server_name="other.test")),
    "not signed": lambda foe: {**foe.keys(), "signatures": {}},
    "signed by another": lambda foe: sign_json(
        {k: v for k, v in foe.keys().items() if k != "signatures"}, "other.test", foe.key
    ),
    "key without a name": lambda foe: foe.keys(
        verify_keys={"ed25519:": {"key": foe.key.verify_key_base64}}
    ),
    "other algorithm": lambda foe: foe.keys(
        verify_keys={"rsa:1": {"key": foe.key.verify_key_base64}}
    ),
    "small order": lambda foe: foe.keys(
        verify_keys={foe.key.key_id: {"key": encode_base64(b"\1" + bytes(31))}}
    ),
    "no keys": lambda foe: foe.keys(verify_keys={}),
    "shapes": lambda foe: foe.keys(verify_keys=[{"key": 1}]),
    "expired": lambda foe: foe.keys(valid_until_ts=int(time.time() * 1000) - 1000),
    "text as time": lambda foe: {**foe.keys(), "valid_until_ts": "later"},
    "only an old key": lambda foe: foe.keys(
        verify_keys={},
        old_verify_keys={foe.key.key_id: {"key": foe.key.verify_key_base64, "expired_ts": 2**52}},
    ),
    "large": lambda foe: foe.keys(padding="x" * 2_000_000),
    "no json": lambda foe: b"\xff\xfe{",
    "list": lambda foe: [foe.keys()],
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_t047_t048_keys_that_are_no_keys(siege: Siege, lie: str) -> None:
    with siege.another() as foe:
        foe.answers[KEYS] = lambda asked: (200, LIES[lie](foe))
        reply = foe.request("GET", PROFILE)
        assert (reply.status, reply.errcode) == (401, "M_UNAUTHORIZED"), reply
        assert len(foe.asked_for("/key/")) <= 4


@pytest.mark.parametrize("kind", ["hangs up", "error", "redirect"])
def test_t048_a_key_server_that_does_not_answer(siege: Siege, kind: str) -> None:
    """It is not known whose request that was: refused, and asked again later."""
    with siege.another() as foe:
        foe.answers[KEYS] = {
            "hangs up": hang,
            "error": lambda asked: (500, {}),
            "redirect": lambda asked: (302, {}),
        }[kind]
        assert foe.request("GET", PROFILE).status == 401


@pytest.mark.parametrize("lie", ["year 9999", "many old keys", "unknown fields"])
def test_t047_exaggerated_keys_are_cut_to_size(siege: Siege, lie: str) -> None:
    with siege.another() as foe:
        old = {
            f"ed25519:o{n}": {"key": foe.key.verify_key_base64, "expired_ts": n}
            for n in range(1_500)
        }
        foe.answers[KEYS] = lambda asked: (
            200,
            {
                "year 9999": lambda: foe.keys(valid_until_ts=253_402_300_799_000),
                "many old keys": lambda: foe.keys(old_verify_keys=old),
                "unknown fields": lambda: foe.keys(planted={"type": "m.room.member"}),
            }[lie](),
        )
        assert foe.request("GET", PROFILE).status in (200, 404)


def test_t050_the_notary_signs_keys_only(siege: Siege) -> None:
    """What is countersigned is a key document of that server, whatever else it holds."""
    with siege.another() as foe:
        event = {"type": "m.room.member", "sender": f"@x:{siege.side.name}", "room_id": "!a:b"}
        foe.answers[KEYS] = lambda asked: (
            200,
            foe.keys(**event, method="PUT", uri="/_matrix", origin=siege.side.name),
        )
        query = {"server_keys": {foe.name: {}}}
        reply = foe.raw("POST", "/_matrix/key/v2/query", query, {})
        assert reply.status == 200
        for document in reply.body["server_keys"]:
            if siege.side.name in document["signatures"]:
                assert document["server_name"] == foe.name
                assert set(document) <= {
                    "server_name",
                    "verify_keys",
                    "old_verify_keys",
                    "valid_until_ts",
                    "signatures",
                }


def certificate(folder: Path, kind: str, good: trustme.CA) -> tuple[Path, Path]:
    """A pair of files."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "self-signed":
        made = trustme.CA().issue_cert(ADDRESS)
    elif kind == "another name":
        made = good.issue_cert("127.0.0.99", "other.test")
    elif kind == "name without address":
        made = good.issue_cert("localhost")
    elif kind == "expired":
        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        made = good.issue_cert(ADDRESS, not_after=past)
    else:
        made = good.issue_cert("other.test", common_name=ADDRESS)
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return chain, key


@pytest.mark.parametrize(
    "kind", ["self-signed", "another name", "name without address", "expired", "common name only"]
)
def test_t057_nothing_is_said_to_a_server_with_a_wrong_certificate(
    siege: Siege, kind: str, tmp_path: Path
) -> None:
    good = trustme.CA.from_pem(
        siege.ca.cert_path.read_bytes(), (siege.ca.folder / "ca.key").read_bytes()
    )
    with siege.another(certificate(tmp_path, kind, good)) as foe:
        alice = siege.side.person("alice")
        room = foe.room("12").room_id
        with pytest.raises(Refused) as refused:
            alice.request("POST", f"/join/{room}?server_name={foe.name}", {})
        assert refused.value.status in (404, 502, 504)
        assert foe.asked == []


@pytest.fixture(scope="module")
def shielded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """A besieged server that may not dial private addresses, as it is by default."""
    outbound = {"allow_private_addresses": False}
    with besieged(tmp_path_factory.mktemp("shielded"), outbound=outbound) as made:
        yield made


def test_t053_no_packet_goes_inside(shielded: Siege) -> None:
    port = shielded.foe.name.rpartition(":")[2]
    alice = shielded.side.person("alice")
    names = [
        f"127.0.0.4:{port}",
        f"localhost:{port}",
        f"[::ffff:127.0.0.4]:{port}",
        f"2130706436:{port}",
        f"0x7f.4:{port}",
        f"127.4:{port}",
    ]
    with shielded.survived():
        for name in names:
            with pytest.raises(Refused):
                alice.request("POST", f"/join/!x:a.test?server_name={name}", {})
            with pytest.raises(Refused):
                alice.request("GET", f"/profile/@x:{name}")
        assert shielded.foe.request("GET", PROFILE).status == 401
    assert shielded.foe.asked == []


def test_t058_our_own_name_is_never_dialled(siege: Siege) -> None:
    alice = siege.side.person("alice")
    with pytest.raises(Refused) as refused:
        alice.request("POST", f"/join/!x:{siege.side.name}?server_name={siege.side.name}", {})
    assert refused.value.status in (403, 404)
    with pytest.raises(Refused) as refused:
        alice.request("GET", f"/directory/room/%23none:{siege.side.name}")
    assert refused.value.status == 404
