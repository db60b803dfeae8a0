"""The Authorization header of servers: what is read, what is refused (T064, [B4.02], [B4.03])."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matrixbox.api.federation_auth import MAX_PARAMETERS, XMatrix, parse_x_matrix
from matrixbox.errors import Unauthorized

PLAIN = XMatrix("far.test", "home.test", "ed25519:a", "c2ln")

GOOD = [
    'X-Matrix origin="far.test",destination="home.test",key="ed25519:a",sig="c2ln"',
    "X-Matrix origin=far.test,destination=home.test,key=ed25519:a,sig=c2ln",
    'X-Matrix    origin="far.test" , destination="home.test"\t,\tkey="ed25519:a",sig="c2ln"',
    'x-matrix ORIGIN="far.test",Destination="home.test",KEY="ed25519:a",Sig="c2ln"',
    'X-MATRIX sig="c2ln",key="ed25519:a",origin="far.test",destination="home.test"',
    'X-Matrix origin="far\\.te\\st",destination="home.test",key="ed25519\\:a",sig="c2ln"',
    'X-Matrix origin = "far.test",destination= "home.test",key ="ed25519:a",sig=c2ln',
    'X-Matrix origin=far.test,,destination="home.test", ,key="ed25519:a",sig="c2ln",',
    'X-Matrix origin=far.test,destination=home.test,key=ed25519:a,sig="c2ln",new="a,b\\"c",x=',
    'X-Matrix origin="far.test",destination="home.test",key="ed25519:a",signature="c2ln"',
]


@pytest.mark.parametrize("header", GOOD)
def test_b4_03_all_forms_that_rfc_9110_and_older_servers_use_are_read(header):
    assert parse_x_matrix(header) == PLAIN


def test_b4_03_values_without_quotes_may_hold_what_base64_and_ports_need():
    header = "X-Matrix origin=[::1]:8448,key=ed25519:a,sig=AB+/cd=="
    assert parse_x_matrix(header) == XMatrix("[::1]:8448", None, "ed25519:a", "AB+/cd==")


@pytest.mark.parametrize(
    "header", ["", "Bearer abc", "Basic eDp5", "X-Matrix", "X-Matrixorigin=a", "X-Matrix\torigin=a"]
)
def test_t064_another_scheme_is_not_ours(header):
    assert parse_x_matrix(header) is None


@pytest.mark.parametrize(
    "header",
    [
        "X-Matrix ",
        "X-Matrix ,",
        "X-Matrix origin",
        'X-Matrix origin="far.test"',
        'X-Matrix origin="far.test",key="ed25519:a"',
        'X-Matrix key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="far.test",sig="c2ln"',
        'X-Matrix origin="far.test"key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="far.test" key="ed25519:a" sig="c2ln"',
        'X-Matrix origin="far.test,key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="far.test",key="ed25519:a",sig="c2ln',
        'X-Matrix origin="far.test\\",key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="far.test",origin="far.test",key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="far test",key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="far/test",key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="",key="ed25519:a",sig="c2ln"',
        'X-Matrix origin="far.test",key="rsa:a",sig="c2ln"',
        'X-Matrix origin="far.test",key="ed25519:",sig="c2ln"',
        'X-Matrix origin="far.test",key="ed25519:a b",sig="c2ln"',
        'X-Matrix origin="f\xe4r.test",key="ed25519:a",sig="c2ln"',
        "X-Matrix =a,b=c",
        'X-Matrix "a"="b"',
        "X-Matrix " + ",".join(f"p{n}=v" for n in range(MAX_PARAMETERS + 1)),
        GOOD[0] + "".join(f",p{n}=v" for n in range(10_000)),
    ],
)
def test_t064_what_is_malformed_is_refused(header):
    with pytest.raises(Unauthorized):
        parse_x_matrix(header)


def test_t064_sixteen_parameters_are_read():
    further = "".join(f",p{n}=v" for n in range(MAX_PARAMETERS - 4))
    assert parse_x_matrix(GOOD[0] + further) == PLAIN


values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30)


@given(
    st.sampled_from(["far.test", "far.test:8448", "[2001:db8::1]:80", "1.2.3.4"]),
    st.none() | values,
    st.from_regex(r"ed25519:[a-zA-Z0-9_]+", fullmatch=True),
    values,
    st.randoms(use_true_random=False),
)
def test_t064_what_is_written_is_read_again(origin, destination, key_id, signature, rng):
    wanted = {"origin": origin, "key": key_id, "sig": signature, "x": "y,z"}
    if destination is not None:
        wanted["destination"] = destination
    fields = list(wanted.items())
    rng.shuffle(fields)
    parts = []
    for name, value in fields:
        escaped = "".join("\\" + c if c in '"\\' or rng.random() < 0.2 else c for c in value)
        parts.append(rng.choice([name, name.upper()]) + f'="{escaped}"')
    header = "X-Matrix" + " " * rng.randint(1, 3) + rng.choice([",", " ,\t", ", "]).join(parts)
    assert parse_x_matrix(header) == XMatrix(origin, destination, key_id, signature)


@given(st.text(st.characters(codec="latin-1"), max_size=200))
@example('origin="\\')
@example("a" * 5000)
@example('a="' + "\\" * 5000)
@example("a= " * 5000)
def test_t064_no_header_raises_anything_else(text):
    for header in (text, "X-Matrix " + text, GOOD[0] + text):
        try:
            found = parse_x_matrix(header)
        except Unauthorized:
            continue
        assert found is None or isinstance(found, XMatrix)


@pytest.mark.parametrize(
    "hostile", ['a="' + "\\a" * 8000, " \t" * 8000, "a" * 16_000, "a=" * 8000, 'a="b"' * 3000]
)
def test_t080_a_header_of_16_kib_is_read_in_no_time(hostile):
    started = time.process_time()
    with pytest.raises(Unauthorized):
        parse_x_matrix("X-Matrix " + hostile)
    assert time.process_time() - started < 0.1
