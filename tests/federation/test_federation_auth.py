"""Requests of other servers: signed for us, with a current key, over what was really sent."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
import trio

from matrixbox.accounts.throttle import Throttle
from matrixbox.api.asgi import Application
from matrixbox.api.federation_auth import KEYS_WAIT_S, FederationAuthenticator
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.clock import SimulatedClock
from matrixbox.core.json import encode_canonical
from matrixbox.core.signing import encode_base64
from matrixbox.federation.client import request_bytes
from matrixbox.tasks import at_once
from tests.api.asking import ask
from tests.federation.inside import HOME, Inside, a_ring, a_store, key_named
from tests.federation.test_client import Diary


class Site:
    """An application with some routes for servers, and a server that asks."""

    def __init__(self, store):
        self.clock = SimulatedClock()
        self.net = Inside(self.clock)
        self.far = self.net.server("far.test")
        self.ring = a_ring(store, self.clock, self.net)
        self.diary = Diary()
        self.throttle = Throttle(self.clock)
        self.authenticator = FederationAuthenticator(
            HOME, self.ring, self.diary, self.throttle, at_once
        )
        self.app = Application(
            a_table(),
            services=None,
            authenticators={Auth.FEDERATION: self.authenticator.origin},
        )

    def header(
        self, method, target, content=None, *, key=None, destination=HOME, said_to=..., **said
    ):
        """An Authorization header; `said_to` is the destination in the header, None for none."""
        key = key or self.far.key
        origin = said.get("origin", "far.test")
        encoded = None if content is None else encode_canonical(content)
        message = request_bytes(method, target, origin, destination, encoded)
        to = destination if said_to is ... else said_to
        fields = {"origin": origin, "key": key.key_id, "sig": encode_base64(key.sign(message))}
        if to is not None:
            fields["destination"] = to
        return "X-Matrix " + ",".join(f'{name}="{value}"' for name, value in fields.items())

    async def get(self, target, *headers, **how):
        """A GET with these Authorization headers."""
        return await ask(
            self.app, "GET", target, headers=[("authorization", one) for one in headers], **how
        )

    async def put(self, target, body, *headers, **how):
        """A PUT with this body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await ask(
            self.app,
            "PUT",
            target,
            headers=[("authorization", one) for one in headers],
            pieces=[data],
            **how,
        )


def a_table():
    routes = RouteTable()

    @routes.get("/f/get/{what}", auth=Auth.FEDERATION)
    async def get(call):
        return {"origin": call.origin, "what": call.path["what"], "spender": call.spender}

    @routes.put("/f/put", auth=Auth.FEDERATION)
    async def put(call):
        return {"origin": call.origin, "body": await call.json()}

    return routes


@asynccontextmanager
async def a_site():
    with a_store() as store:
        yield Site(store)


async def test_b4_01_a_signed_request_is_let_in_with_its_origin(autojump_clock):
    async with a_site() as site:
        got = await site.get("/f/get/x?a=b", site.header("GET", "/f/get/x?a=b"))
        assert got.json() == {"origin": "far.test", "what": "x", "spender": "far.test"}
        assert site.diary.told[-1] == "alive far.test"
        body = {"b": 1, "a": ["é"]}
        got = await site.put("/f/put", body, site.header("PUT", "/f/put", body))
        assert got.json() == {"origin": "far.test", "body": body}
        assert site.far.times_asked_for_keys() == 1


async def refused(site, got):
    assert (got.status, got.json()["errcode"]) == (401, "M_UNAUTHORIZED")
    assert not [told for told in site.diary.told if told.startswith("alive")]
    return True


async def test_b4_05_without_a_signature_nobody_gets_in(autojump_clock):
    async with a_site() as site:
        for headers in ([], ["Bearer abc"], ["X-Matrix "], ["X-Matrix origin=far.test"], [""]):
            assert await refused(site, await site.get("/f/get/x", *headers))
            assert await refused(site, await site.put("/f/put", {}, *headers))
        assert site.far.asked == []


async def test_t068_an_unsigned_body_is_not_even_read(autojump_clock):
    async with a_site() as site:
        got = await site.put("/f/put", b"{" * 10)
        assert await refused(site, got)


@pytest.mark.parametrize(
    "signed",
    ["/f/get/y", "/f/get/x?", "/f/get/x?a=c", "/f/get/%78", "/f/get/x?a=b&", "/F/get/x", "f/get/x"],
)
async def test_t065_a_signature_over_another_target_opens_nothing(autojump_clock, signed):
    async with a_site() as site:
        assert await refused(site, await site.get("/f/get/x?a=b", site.header("GET", signed)))


@pytest.mark.parametrize(
    "target", ["/f/get/%21room%3Ax", "/f/get/!room:x", "/f/get/a%2Fb", "/f/get/%61?x=%41&y=A"]
)
async def test_b1_04_t065_what_was_sent_is_what_must_be_signed(autojump_clock, target):
    async with a_site() as site:
        assert (await site.get(target, site.header("GET", target))).status == 200


async def test_t065_method_body_and_presence_of_a_body_are_signed(autojump_clock):
    async with a_site() as site:
        put = site.header("PUT", "/f/put", {"a": 1})
        assert (await site.put("/f/put", b'{ "a" : 1 }', put)).status == 200
        site.diary.told.clear()
        assert await refused(site, await site.put("/f/put", {"a": 2}, put))
        assert await refused(site, await site.put("/f/put", {"a": 1, "b": 2}, put))
        no_content = site.header("PUT", "/f/put")
        assert await refused(site, await site.put("/f/put", {}, no_content))
        other_method = site.header("POST", "/f/put", {"a": 1})
        assert await refused(site, await site.put("/f/put", {"a": 1}, other_method))
        with_content = site.header("GET", "/f/get/x", {})
        assert await refused(site, await site.get("/f/get/x", with_content))


async def test_t065_a_header_that_claims_another_method_changes_nothing(autojump_clock):
    async with a_site() as site:
        got = await ask(
            site.app,
            "GET",
            "/f/get/x",
            headers=[
                ("authorization", site.header("DELETE", "/f/get/x")),
                ("x-http-method-override", "DELETE"),
            ],
        )
        assert await refused(site, got)


async def test_t066_a_request_for_another_server_is_refused(autojump_clock):
    async with a_site() as site:
        other = site.header("GET", "/f/get/x", destination="other.test")
        assert await refused(site, await site.get("/f/get/x", other))
        lying = site.header("GET", "/f/get/x", destination="other.test", said_to=HOME)
        assert await refused(site, await site.get("/f/get/x", lying))
        unsaid = site.header("GET", "/f/get/x", destination="other.test", said_to=None)
        assert await refused(site, await site.get("/f/get/x", unsaid))
        case = site.header("GET", "/f/get/x", said_to="HOME.test")
        assert await refused(site, await site.get("/f/get/x", case))  # [B4.07]


async def test_t066_old_servers_do_not_say_for_whom_it_is(autojump_clock):
    """[B4.04]: but they sign it."""
    async with a_site() as site:
        unsaid = site.header("GET", "/f/get/x", said_to=None)
        assert (await site.get("/f/get/x", unsaid)).status == 200


async def test_t058_nobody_speaks_in_our_own_name(autojump_clock):
    async with a_site() as site:
        ours = site.header("GET", "/f/get/x", origin=HOME, key=site.authenticator.keyring.own.key)
        assert await refused(site, await site.get("/f/get/x", ours))


async def test_t048_an_old_key_signs_no_requests(autojump_clock):
    async with a_site() as site:
        first = site.far.key
        site.far.change_key(key_named("second"))
        assert await refused(
            site, await site.get("/f/get/x", site.header("GET", "/f/get/x", key=first))
        )
        assert (await site.get("/f/get/x", site.header("GET", "/f/get/x"))).status == 200


async def test_b4_06_several_headers_count_together(autojump_clock):
    async with a_site() as site:
        good = site.header("GET", "/f/get/x")
        unknown = site.header("GET", "/f/get/x", key=key_named("unknown"))
        assert (await site.get("/f/get/x", unknown, good)).status == 200
        assert (await site.get("/f/get/x", "Bearer abc", good)).status == 200
        site.diary.told.clear()
        other = site.header("GET", "/f/get/x", origin="other.test")
        assert await refused(site, await site.get("/f/get/x", good, other))
        assert await refused(site, await site.get("/f/get/x", *[good] * 5))


async def test_t066_a_stolen_name_needs_its_key(autojump_clock):
    async with a_site() as site:
        thief = key_named("thief")
        forged = site.header("GET", "/f/get/x", key=type(thief)(site.far.key.version, thief.seed))
        assert await refused(site, await site.get("/f/get/x", forged))


async def test_t049_a_server_whose_keys_cannot_be_had_waits_10_seconds_at_most(autojump_clock):
    async with a_site() as site:
        site.far.takes_s = 60.0
        started = trio.current_time()
        assert await refused(site, await site.get("/f/get/x", site.header("GET", "/f/get/x")))
        assert trio.current_time() - started <= KEYS_WAIT_S + 0.01 == 10.01


async def test_t049_servers_that_wait_for_keys_take_no_slots_from_others(autojump_clock):
    async with a_site() as site:
        (await site.get("/f/get/x", site.header("GET", "/f/get/x"))).json()
        for number in range(400):
            site.net.server(f"s{number}.test").takes_s = 60.0
        answers = []

        async def stranger(number):
            header = site.header("GET", "/f/get/x", origin=f"s{number}.test")
            got = await site.get("/f/get/x", header, address=f"198.51.100.{number % 250}")
            answers.append(got.status)

        async with trio.open_nursery() as nursery:
            for number in range(400):
                nursery.start_soon(stranger, number)
            await trio.sleep(1)
            started = trio.current_time()
            got = await site.get("/f/get/x", site.header("GET", "/f/get/x"))
            assert got.status == 200
            assert trio.current_time() - started < 0.1
        assert set(answers) == {401, 429}
        assert answers.count(401) <= 50


async def test_t068_after_60_failures_a_minute_an_address_is_told_to_wait(autojump_clock):
    async with a_site() as site:
        bad = site.header("GET", "/f/get/y")
        statuses = [(await site.get("/f/get/x", bad)).status for _ in range(80)]
        assert statuses == [401] * 60 + [429] * 20
        good = site.header("GET", "/f/get/x")
        assert (await site.get("/f/get/x", good)).status == 429
        assert (await site.get("/f/get/x", good, address="198.51.100.7")).status == 200
        await trio.sleep(2)
        assert (await site.get("/f/get/x", good)).status == 200


async def test_t068_behind_our_own_proxy_forgeries_do_not_lock_out_who_they_name(autojump_clock):
    async with a_site() as site:
        good = site.header("GET", "/f/get/x")
        assert (await site.get("/f/get/x", good, address="127.0.0.1")).status == 200
        for _ in range(100):
            got = await site.get("/f/get/y", good, address="127.0.0.1")  # signed for another target
            assert got.status in (401, 429)
        assert (await site.get("/f/get/x", good, address="127.0.0.1")).status == 200


async def test_t068_behind_our_own_proxy_one_server_does_not_lock_out_the_others(autojump_clock):
    async with a_site() as site:
        bad = site.header("GET", "/f/get/y", origin="bad.test")
        for _ in range(100):
            got = await site.get("/f/get/x", bad, address="127.0.0.1")
        assert got.status == 429
        good = site.header("GET", "/f/get/x")
        assert (await site.get("/f/get/x", good, address="127.0.0.1")).status == 200
