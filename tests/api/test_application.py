"""From a request to its answer, in process: C1.01-C1.08, B1.02-B1.04, F1.01, T076, T077, T091."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from matrixbox.api.answers import Response
from matrixbox.api.app import make_quart
from matrixbox.api.asgi import Application
from matrixbox.api.bounds import Bounds
from matrixbox.api.call import Answer, Call
from matrixbox.api.routes import Auth, BodyKind, Mount, RouteTable
from matrixbox.errors import Forbidden, LimitExceeded, MissingToken, UserInUse
from tests.api.asking import Got, ask

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
}


class Seen:
    """What handlers were given."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.household: list[str] = []
        self.release = trio.Event()


def table() -> RouteTable:
    routes = RouteTable()

    @routes.get("/a/{name}", auth=Auth.NONE)
    async def get(call: Call) -> Answer:
        call.services.calls.append(call)
        return {"name": call.path["name"]}

    @routes.post("/json", "/large", auth=Auth.NONE, body_limit=3_000_000)
    async def echo(call: Call) -> Answer:
        assert await call.json() is await call.json()
        return await call.json()

    @routes.post("/optional", auth=Auth.NONE, body=BodyKind.JSON_OR_EMPTY)
    async def optional(call: Call) -> Answer:
        return await call.json()

    @routes.post("/federation", auth=Auth.FEDERATION)
    async def federation(call: Call) -> Answer:
        return {"n": len(await call.json())}

    @routes.post("/form", auth=Auth.NONE, body=BodyKind.FORM)
    async def form(call: Call) -> Answer:
        return {name: list(values) for name, values in (await call.form()).items()}

    @routes.post("/nothing", auth=Auth.NONE, body=BodyKind.NONE)
    async def nothing(call: Call) -> Answer:
        return {}

    @routes.put("/stream", auth=Auth.NONE, body=BodyKind.STREAM, body_limit=10)
    async def stream(call: Call) -> Answer:
        return {"pieces": [piece.decode() async for piece in call.stream()]}

    @routes.get("/who", auth=Auth.USER, rate="some")
    async def who(call: Call) -> Answer:
        return {"user_id": call.requester}

    @routes.get("/maybe", auth=Auth.OPTIONAL)
    async def maybe(call: Call) -> Answer:
        return {"user_id": call.requester}

    @routes.get("/fails/{how}", auth=Auth.NONE)
    async def fails(call: Call) -> Answer:
        failures: dict[str, BaseException] = {
            "forbidden": Forbidden("No"),
            "in use": UserInUse("Taken"),
            "slow down": LimitExceeded(1500),
            "group": ExceptionGroup("", [ExceptionGroup("", [Forbidden("No")])]),
            "bug": RuntimeError("secret"),
            "groups": ExceptionGroup("", [Forbidden("No"), RuntimeError("secret")]),
        }
        raise failures[call.path["how"]]

    @routes.get("/pieces", auth=Auth.NONE)
    async def pieces(call: Call) -> Answer:
        return Response(headers=((b"content-type", b"text/plain"),), body=_pieces(fails=False))

    @routes.get("/breaks", auth=Auth.NONE)
    async def breaks(call: Call) -> Answer:
        return Response(body=_pieces(fails=True))

    @routes.get("/plain", auth=Auth.NONE)
    async def plain(call: Call) -> Answer:
        return Response(404, b"gone", cors=False)

    @routes.get("/wait", auth=Auth.NONE)
    async def wait(call: Call) -> Answer:
        await call.services.release.wait()
        return {}

    return routes


async def _pieces(*, fails: bool) -> AsyncIterator[bytes]:
    yield b"one "
    if fails:
        raise RuntimeError("a bug")
    yield b"two"


def authenticate(call: Call) -> str | None:
    token = call.header("authorization")
    if token is None:
        if call.route.auth is Auth.OPTIONAL:
            return None
        raise MissingToken
    call.spender = token
    return f"@{token}:x"


async def authenticate_server(call: Call) -> str:
    await trio.lowlevel.checkpoint()
    call.spender = "remote.test"
    return "remote.test"


def limit_rate(call: Call) -> None:
    if call.requester == "@eager:x":
        raise LimitExceeded(60_000)


def application(seen: Seen, mount: Mount = Mount.ASGI, **more: Any) -> Application:
    return Application(
        table(),
        services=seen,
        authenticators={
            Auth.USER: authenticate,
            Auth.OPTIONAL: authenticate,
            Auth.FEDERATION: authenticate_server,
        },
        rate_limits={"some": limit_rate},
        default_mount=mount,
        quart=make_quart,
        on_household=seen.household.append,
        **more,
    )


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(params=[Mount.ASGI, Mount.QUART], ids=["asgi", "quart"])
def app(seen: Seen, request: pytest.FixtureRequest) -> Application:
    """Both mounts behave alike."""
    return application(seen, request.param)


def failure(got: Got) -> tuple[int | None, str]:
    assert got.json()["error"]
    assert got.headers.items() >= CORS.items()
    assert got.headers["content-type"] == "application/json"
    return got.status, got.json()["errcode"]


async def test_an_answer_is_json_with_its_length_and_cors(app: Application) -> None:
    """[C1.01], [C1.04]."""
    got = await ask(app, "GET", "/a/%C3%A9")
    assert (got.status, got.json()) == (200, {"name": "é"})
    assert got.headers["content-type"] == "application/json"
    assert got.headers["content-length"] == str(len(got.body))
    assert got.headers.items() >= CORS.items()
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        assert method in got.headers["access-control-allow-methods"].split(", ")


async def test_an_unknown_path_and_a_wrong_method_are_unrecognised(app: Application) -> None:
    """[C1.07], [B1.03], T171: and nothing more is said about them."""
    for path in ("/", "/b", "/a", "/a/b/c", "/_matrix/nothing", "/%ff"):
        assert failure(await ask(app, "GET", path)) == (404, "M_UNRECOGNIZED")
    got = await ask(app, "PATCH", "/a/b")
    assert failure(got) == (405, "M_UNRECOGNIZED")
    assert got.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_a_path_that_is_not_utf8_is_an_invalid_parameter(app: Application) -> None:
    for segment in ("%ff", "%2", "\xe9"):
        assert failure(await ask(app, "GET", f"/a/{segment}")) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("path", ["/a/b", "/who", "/json", "/unknown", "/a/%ff", "*"])
async def test_options_runs_nothing(app: Application, seen: Seen, path: str) -> None:
    """[C1.04]."""
    got = await ask(app, "OPTIONS", path, headers=[("content-length", "99999999")])
    assert (got.status, got.body) == (204, b"")
    assert got.headers.items() >= CORS.items()
    assert "content-length" not in got.headers
    assert not seen.calls
    assert not seen.household


async def test_head_runs_the_handler_of_get(app: Application) -> None:
    """The front door leaves the body away; its length stays."""
    got = await ask(app, "HEAD", "/a/b")
    assert got.status == 200
    assert got.headers["content-length"] == str(len(b'{"name":"b"}'))


async def test_a_handler_sees_what_came(app: Application, seen: Seen) -> None:
    headers = [("x-two", "1"), ("x-two", "2"), ("x-one", "\xe9")]
    target = "/a/%21r%2F?q=a+b%2Bc&q=&empty=&q2"
    await ask(app, "GET", target, headers=headers, address="2001:db8::1")
    (call,) = seen.calls
    assert (call.method, call.address, call.is_tls) == ("GET", "2001:db8::1", False)
    assert (call.raw_path, call.raw_query) == ("/a/%21r%2F", "q=a+b%2Bc&q=&empty=&q2")
    assert call.path == {"name": "!r/"}
    assert call.query == {"q": ["a b+c", ""], "empty": [""], "q2": [""]}
    assert (call.param("q"), call.param("empty"), call.param("no")) == ("a b+c", "", None)
    assert (call.header("x-one"), call.header("x-two"), call.header("no")) == ("é", "2", None)
    assert call.all_headers("x-two") == ["1", "2"]


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=5))
def test_every_parameter_survives_a_query(parameters: dict[str, str]) -> None:
    from urllib.parse import urlencode

    seen = Seen()
    try:
        query = urlencode(parameters)
    except UnicodeEncodeError:
        return
    trio.run(ask, application(seen), "GET", f"/a/b?{query}")
    assert seen.calls[0].query == {name: [value] for name, value in parameters.items()}


@pytest.mark.parametrize("query", ["a=%ff", "%=1", "a=%u0041", "&".join(["a=1"] * 300)])
async def test_a_malformed_query_is_an_invalid_parameter(seen: Seen, query: str) -> None:
    routes = RouteTable()

    @routes.get("/q", auth=Auth.NONE)
    async def get(call: Call) -> Answer:
        return {"a": call.param("a")}

    app = Application(routes, services=seen, authenticators={})
    assert failure(await ask(app, "GET", f"/q?{query}")) == (400, "M_INVALID_PARAM")


async def test_a_json_body_is_read_whatever_its_content_type(app: Application) -> None:
    """[B1.02], [C1.01]."""
    for headers in ([], [("content-type", "text/plain")], [("content-type", "multipart/x")]):
        got = await ask(app, "POST", "/json", headers=headers, pieces=[b'{"a"', b":[1,", b"2]}"])
        assert got.json() == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", (400, "M_NOT_JSON")),
        (b"{", (400, "M_NOT_JSON")),
        (b'{"a":1,"a":2}', (400, "M_NOT_JSON")),
        (b'{"a":"\\ud800"}', (400, "M_NOT_JSON")),
        (b'{"a":"\xff"}', (400, "M_NOT_JSON")),
        (b'\xef\xbb\xbf{"a":1}', (400, "M_NOT_JSON")),
        (b'{"a":NaN}', (400, "M_NOT_JSON")),
        (b"[]", (400, "M_BAD_JSON")),
        (b"null", (400, "M_BAD_JSON")),
        (b'{"a":' * 70 + b"1" + b"}" * 70, (400, "M_BAD_JSON")),
        (b'{"a":1e999}', (400, "M_BAD_JSON")),
        (b'{"a":[' + b"[]," * 60_000 + b"0]}", (413, "M_TOO_LARGE")),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_json_that_is_not_acceptable(
    app: Application, body: bytes, code: tuple[int, str]
) -> None:
    """T085-T088, T078."""
    assert failure(await ask(app, "POST", "/json", pieces=[body])) == code


async def test_a_server_is_told_bad_json_for_too_many_elements(app: Application) -> None:
    """T078: the codes differ."""
    body = b'{"a":[' + b"0," * 300_000 + b"0]}"
    got = await ask(app, "POST", "/federation", pieces=[body])
    assert got.json() == {"n": 1}
    body = b'{"a":[' + b"[]," * 300_001 + b"0]}"
    assert failure(await ask(app, "POST", "/federation", pieces=[body])) == (400, "M_BAD_JSON")


async def test_an_empty_body_may_stand_for_an_empty_object(app: Application) -> None:
    assert (await ask(app, "POST", "/optional")).json() == {}
    assert (await ask(app, "POST", "/optional", pieces=[b'{"a":1}'])).json() == {"a": 1}
    assert failure(await ask(app, "POST", "/optional", pieces=[b" "])) == (400, "M_NOT_JSON")


async def test_limits_hold_by_the_announced_and_by_the_real_length(app: Application) -> None:
    """T076."""
    announced = await ask(app, "POST", "/json", headers=[("content-length", "3000001")])
    assert failure(announced) == (413, "M_TOO_LARGE")
    real = await ask(app, "POST", "/json", pieces=[b" " * 1_000_000] * 4)
    assert failure(real) == (413, "M_TOO_LARGE")
    ignored = await ask(app, "POST", "/nothing", headers=[("content-length", "3000001")])
    assert ignored.status == 200


async def test_a_coded_body_is_refused(app: Application) -> None:
    """T077."""
    for coding in ("gzip", "identity", "br"):
        got = await ask(app, "POST", "/json", headers=[("content-encoding", coding)])
        assert failure(got) == (415, "M_UNKNOWN")


async def test_a_form_is_read_on_a_page_and_nowhere_else(app: Application) -> None:
    """T077: 64 KiB and 50 fields."""
    kind = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8")
    got = await ask(app, "POST", "/form", headers=[kind], pieces=[b"a=1+2&b=%C3%A9&a="])
    assert got.json() == {"a": ["1 2", ""], "b": ["é"]}
    for body in (b"a=%ff", b"a=\xe9", b"a=1&" * 60):
        got = await ask(app, "POST", "/form", headers=[kind], pieces=[body])
        assert failure(got) == (400, "M_BAD_JSON")
    assert failure(await ask(app, "POST", "/form", pieces=[b"a=1"])) == (415, "M_UNKNOWN")
    many = await ask(app, "POST", "/form", headers=[kind], pieces=[b"a" * 70_000])
    assert failure(many) == (413, "M_TOO_LARGE")


async def test_a_stream_comes_in_pieces_up_to_its_limit(seen: Seen) -> None:
    app = application(seen)
    got = await ask(app, "PUT", "/stream", pieces=[b"abc", b"", b"def"])
    assert got.json() == {"pieces": ["abc", "def"]}
    long = await ask(app, "PUT", "/stream", pieces=[b"abcdef", b"ghijk"])
    assert failure(long) == (413, "M_TOO_LARGE")


async def test_a_client_that_goes_away_gets_no_answer_and_is_no_error(
    app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    for method, path in (("POST", "/json"), ("PUT", "/stream")):
        got = await ask(app, method, path, pieces=[b'{"a'], hangs_up=True)
        assert got.status is None
    assert not caplog.records


async def test_the_requester_is_the_authenticators_word(app: Application, seen: Seen) -> None:
    """[C1.05], [C1.06]: how is the authenticator's business."""
    assert failure(await ask(app, "GET", "/who")) == (401, "M_MISSING_TOKEN")
    assert not seen.household
    got = await ask(app, "GET", "/who", headers=[("authorization", "a")], address="192.0.2.9")
    assert got.json() == {"user_id": "@a:x"}
    assert seen.household == ["192.0.2.9"]
    assert (await ask(app, "GET", "/maybe")).json() == {"user_id": None}
    maybe = await ask(app, "GET", "/maybe", headers=[("authorization", "b")])
    assert maybe.json() == {"user_id": "@b:x"}


async def test_limits_say_when_to_come_back(app: Application) -> None:
    """[F1.01]."""
    got = await ask(app, "GET", "/who", headers=[("authorization", "eager")])
    assert failure(got) == (429, "M_LIMIT_EXCEEDED")
    assert got.headers["retry-after"] == "60"
    assert got.json()["retry_after_ms"] == 60_000
    assert (await ask(app, "GET", "/fails/slow%20down")).headers["retry-after"] == "2"


async def test_failures_become_standard_errors(app: Application) -> None:
    """[C1.02]."""
    assert failure(await ask(app, "GET", "/fails/forbidden")) == (403, "M_FORBIDDEN")
    assert failure(await ask(app, "GET", "/fails/in%20use")) == (400, "M_USER_IN_USE")
    assert failure(await ask(app, "GET", "/fails/group")) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("how", ["bug", "groups"])
async def test_a_bug_is_logged_with_an_id_and_the_client_learns_the_id_only(
    app: Application, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """T171."""
    got = await ask(app, "GET", f"/fails/{how}")
    assert failure(got) == (500, "M_UNKNOWN")
    (record,) = caplog.records
    error_id = record.__dict__["fields"]["error_id"]
    assert got.json()["error"] == f"Internal server error {error_id}"
    assert record.__dict__["fields"]["route"] == "GET /fails/{how}"


async def test_answers_other_than_json(app: Application) -> None:
    got = await ask(app, "GET", "/pieces")
    assert (got.status, got.body) == (200, b"one two")
    assert got.headers["content-type"] == "text/plain"
    assert "content-length" not in got.headers
    plain = await ask(app, "GET", "/plain")
    assert (plain.status, plain.body) == (404, b"gone")
    assert "access-control-allow-origin" not in plain.headers


async def test_a_streamed_answer_to_head_is_not_made(seen: Seen) -> None:
    got = await ask(application(seen), "HEAD", "/pieces")
    assert (got.status, got.body) == (200, b"")


async def test_an_answer_that_breaks_off_is_left_unfinished(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    got = await ask(application(seen), "GET", "/breaks")
    assert (got.status, got.body, got.is_whole) == (200, b"one ", False)
    assert [record.getMessage() for record in caplog.records] == ["answer broke off"]


async def test_no_slot_within_the_wait_is_a_429(seen: Seen, autojump_clock: MockClock) -> None:
    app = application(seen, bounds=Bounds(requests_at_once=2))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, app, "GET", "/wait")
        await wait_all_tasks_blocked()
        assert failure(await ask(app, "GET", "/a/b")) == (429, "M_LIMIT_EXCEEDED")
        assert trio.current_time() == pytest.approx(20)
        seen.release.set()
    assert (await ask(app, "GET", "/a/b")).status == 200


async def test_large_bodies_wait_on_disk(seen: Seen, tmp_path: Path) -> None:
    """T076: an unnamed file in the folder that is given."""
    app = application(seen, spool_folder=tmp_path)
    body = [b'{"a":"', *[b"x" * 100_000] * 20, b'"}']
    got = await ask(app, "POST", "/large", pieces=body)
    assert len(got.json()["a"]) == 2_000_000
    assert not os.listdir(tmp_path)
    gone = application(seen, spool_folder=tmp_path / "none")
    assert failure(await ask(gone, "POST", "/large", pieces=body)) == (503, "M_UNKNOWN")
    small = await ask(gone, "POST", "/large", pieces=[b"{}"])
    assert small.status == 200


def test_an_application_is_complete_or_is_not_made(seen: Seen) -> None:
    routes = RouteTable()

    async def handler(call: Call) -> Answer:
        return {}

    routes.add("GET", "/a", handler=handler, auth=Auth.USER, rate="some")
    authenticators = {Auth.USER: authenticate}
    with pytest.raises(ValueError, match="nothing authenticates user"):
        Application(routes, services=seen, authenticators={})
    with pytest.raises(ValueError, match="no rate limit"):
        Application(routes, services=seen, authenticators=authenticators)
    limits = {"some": limit_rate}
    with pytest.raises(ValueError, match="no Quart"):
        Application(
            routes,
            services=seen,
            authenticators=authenticators,
            rate_limits=limits,
            default_mount=Mount.QUART,
        )
    Application(routes, services=seen, authenticators=authenticators, rate_limits=limits)


async def test_another_asgi_server_can_run_it(seen: Seen) -> None:
    """ASGI stays the contract: life spans are answered, websockets refused."""
    app = application(seen)
    sent: list[Any] = []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    messages.append({"type": "websocket.connect"})
    await app({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
