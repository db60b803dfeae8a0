"""E-mail addresses: what proves them, for how long, and for whom (C4.05 to C4.10, T094, T097)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from matrixbox.accounts import addresses, registration
from matrixbox.accounts.addresses import LINK_S, MAX_ADDRESSES, MAX_WAITING, Proof, Wish
from matrixbox.accounts.letters import Site
from matrixbox.core.identifiers import ServerName
from matrixbox.errors import InvalidParam, LimitExceeded, ThreepidRefused
from matrixbox.store import addresses as stored
from matrixbox.store import mail
from matrixbox.store.addresses import Purpose
from matrixbox.store.database import Store
from matrixbox.store.nids import UserNid
from matrixbox.store.runner import Runner

SITE = Site("home.test", "https://home.test/")
NOW = 1_700_000_000_000
HOUR = round(LINK_S * 1000)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store.open(":memory:", runner=Runner.INLINE) as found:
        yield found


async def account(store: Store, name: str) -> UserNid:
    made = await store.write(registration.make_account, ServerName("home.test"), name, None, NOW)
    return made.user


async def ask(
    store: Store,
    address: str,
    purpose: Purpose = Purpose.ADD,
    attempt: int = 1,
    secret: str = "s",
    now_ms: int = NOW,
) -> tuple[str, str]:
    """Ask for a message; the session, and the token in the newest message ("" without a link)."""
    wish = Wish(purpose, address, secret, attempt)
    sid = await store.write(addresses.request, wish, SITE, now_ms)

    def newest(tx) -> str:
        text = tx.one("SELECT text FROM mail ORDER BY mail_id DESC LIMIT 1")[0]
        return text.partition("?token=")[2].partition("\n")[0]

    return sid, store.read(newest)


async def prove(store: Store, address: str, purpose: Purpose = Purpose.ADD) -> Proof:
    sid, token = await ask(store, address, purpose)
    await store.write(addresses.confirm, sid, token, NOW)
    return Proof(sid, "s", purpose)


async def refused(store: Store, code: str, function, *args) -> None:
    with pytest.raises(ThreepidRefused) as caught:
        await store.write(function, *args)
    assert caught.value.errcode == code


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Ann@Example.ORG", "ann@example.org"),
        (" ann@example.org ", "ann@example.org"),
        ("a.b+tag@sub.example.org", "a.b+tag@sub.example.org"),
        ("a@localhost", "a@localhost"),
        ("O'Neil_x-y@example.org", "o'neil_x-y@example.org"),
    ],
)
def test_addresses_are_compared_without_case(given: str, kept: str) -> None:
    """G.09."""
    assert addresses.parse_email(given) == kept


@pytest.mark.parametrize(
    "given", ["", "a", "a@", "@b.org", "a@b@c.org", ".a@b.org", "a..b@b.org", "a@b_c.org",
              "a@b.org\r\nBcc: x@y.org", "a,b@c.org", "a@b.org.", "a\0@b.org", "ß@b.örg"],
)  # fmt: skip
def test_what_mail_servers_might_take_for_something_else_is_no_address(given: str) -> None:
    with pytest.raises(InvalidParam):
        addresses.parse_email(given)


async def test_a_link_is_good_for_an_hour_and_for_one_use(store: Store) -> None:
    sid, token = await ask(store, "a@example.org")
    await refused(store, "M_SESSION_EXPIRED", addresses.confirm, sid, token, NOW + HOUR)
    await refused(store, "M_TOKEN_INCORRECT", addresses.confirm, sid, token + "x", NOW)
    await refused(store, "M_NO_VALID_SESSION", addresses.confirm, "x", token, NOW)
    await store.write(addresses.confirm, sid, token, NOW + HOUR - 1)
    await refused(store, "M_TOKEN_INCORRECT", addresses.confirm, sid, token, NOW + HOUR)


async def test_what_was_proven_is_good_for_an_hour_for_one_use_and_one_purpose(
    store: Store,
) -> None:
    ann = await account(store, "ann")
    proof = await prove(store, "a@example.org")
    code = "M_THREEPID_AUTH_FAILED"
    for wrong in (
        Proof(proof.sid, "another", proof.purpose),
        Proof("unknown", "s", proof.purpose),
        Proof(proof.sid, "s", Purpose.PASSWORD),
        Proof(proof.sid, "s", Purpose.REGISTER),
    ):
        await refused(store, code, addresses.give, ann, wrong, NOW)
    await refused(store, code, addresses.give, ann, proof, NOW + HOUR)
    await store.write(addresses.give, ann, proof, NOW + HOUR - 1)
    await refused(store, code, addresses.give, ann, proof, NOW + HOUR - 1)
    assert [one.address for one in store.read(stored.of_user, ann)] == ["a@example.org"]


async def test_an_address_belongs_to_one_account(store: Store) -> None:
    """Both have proven it at the same time; who comes second is refused, and nothing is changed."""
    ann, bob = await account(store, "ann"), await account(store, "bob")
    first = await prove(store, "a@example.org")
    sid, token = await ask(store, "a@example.org", secret="t")
    await store.write(addresses.confirm, sid, token, NOW)
    await store.write(addresses.give, bob, first, NOW)
    second = Proof(sid, "t", Purpose.ADD)
    await refused(store, "M_THREEPID_IN_USE", addresses.give, ann, second, NOW)
    assert store.read(stored.owner, "a@example.org") == bob
    assert store.read(stored.of_user, ann) == []


async def test_t094_a_message_without_a_link_proves_nothing(store: Store) -> None:
    ann = await account(store, "ann")
    await store.write(addresses.give, ann, await prove(store, "a@example.org"), NOW)
    for purpose, address in (
        (Purpose.ADD, "a@example.org"),
        (Purpose.REGISTER, "a@example.org"),
        (Purpose.PASSWORD, "nobody@example.org"),
    ):
        sid, token = await ask(store, address, purpose)
        assert token == ""
        for tried in ("", "x"):
            await refused(store, "M_TOKEN_INCORRECT", addresses.confirm, sid, tried, NOW)
    sid, token = await ask(store, "a@example.org", Purpose.PASSWORD)
    await store.write(addresses.confirm, sid, token, NOW)


async def test_only_a_greater_attempt_brings_another_message(store: Store) -> None:
    """C4.05; what was proven stays so."""
    sid, token = await ask(store, "a@example.org", attempt=3)
    for attempt in (3, 2, -1):
        assert (await ask(store, "a@example.org", attempt=attempt))[0] == sid
    assert store.read(mail.count) == 1
    await store.write(addresses.confirm, sid, token, NOW)
    again, newer = await ask(store, "a@example.org", attempt=4)
    assert (again, newer != token) == (sid, True)
    proof = Proof(sid, "s", Purpose.ADD)
    store.read(addresses.require_proven, proof, NOW)
    await ask(store, "a@example.org", attempt=5, now_ms=NOW + HOUR - 1)
    await refused(store, "M_THREEPID_AUTH_FAILED", addresses.use, proof, NOW + HOUR)


async def test_messages_and_addresses_are_bounded(store: Store) -> None:
    ann = await account(store, "ann")
    for number in range(MAX_ADDRESSES):
        proof = await prove(store, f"a{number}@example.org")
        await store.write(addresses.give, ann, proof, NOW)
    proof = await prove(store, "more@example.org")
    await refused(store, "M_THREEPID_DENIED", addresses.give, ann, proof, NOW)
    for number in range(MAX_WAITING - store.read(mail.count)):
        await ask(store, f"b{number}@example.org")
    with pytest.raises(LimitExceeded):
        await ask(store, "last@example.org")
