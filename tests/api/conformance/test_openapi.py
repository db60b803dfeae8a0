"""The reader of OpenAPI documents itself: what it resolves, what it lets through, what it finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conformance.conftest import WITHOUT_DATA, spec_data
from tests.api.conformance.openapi.checking import Checker, NotConforming
from tests.api.conformance.openapi.documents import BadReference, Documents
from tests.api.conformance.openapi.events import EventSchemas, events_in
from tests.api.conformance.openapi.operations import JSON, Operations
from tests.api.conformance.openapi.schemas import Checked
from tests.api.conformance.wire import NO_BODY, Answer, Request
from tests.reporting import did_not_run

BASE = {"servers": [{"variables": {"basePath": {"default": "/_matrix/client/v3"}}}]}
THING = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "owner": {"type": "string", "format": "mx-user-id"},
        "parts": {"type": "array", "items": {"$ref": "part.yaml"}},
    },
    "required": ["name"],
}
PART = {"type": "object", "properties": {"size": {"type": "integer"}}}
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
}


def write(root, name: str, value: Any) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))  # JSON is YAML


@pytest.fixture
def checker(tmp_path) -> Checker:
    """A checker that knows two endpoints for things."""
    ok = {"200": {"content": {JSON: {"schema": {"$ref": "definitions/thing.yaml"}}}}}
    refused = {"403": {"description": "not yours"}}
    body = {"requestBody": {"required": True, "content": {JSON: {"schema": PART}}}}
    paths = {
        "/thing/{thingId} ": {"get": {"responses": {**ok, **refused}}},
        "/thing/{thingId}/part/": {"put": {"responses": ok, **body}},
        "/thing/all": {"get": {"responses": ok}},
    }
    write(tmp_path, "api/client-server/things.yaml", {**BASE, "paths": paths})
    write(tmp_path, "api/client-server/definitions/thing.yaml", THING)
    write(tmp_path, "api/client-server/definitions/part.yaml", PART)
    return Checker.of(tmp_path)


def answer(
    body: Any,
    status: int = 200,
    path: str = "/thing/1",
    *,
    method: str = "GET",
    sent: Any = NO_BODY,
    **headers: str,
) -> Answer:
    request = Request(method, f"/_matrix/client/v3{path}", "", sent, has_token=True)
    found = {**CORS, "content-type": "application/json", **headers}
    return Answer(request, status, found, json.dumps(body).encode())


def test_a_right_answer_is_let_through_and_remembered(checker):
    checker.check(answer({"name": "n", "owner": "@a:b.test", "parts": [{"size": 1}]}))
    assert dict(checker.good) == {"GET /_matrix/client/v3/thing/{thingId}": 1}
    checker.check(answer({"errcode": "M_FORBIDDEN", "error": "No."}, 403))
    assert checker.errors["GET /_matrix/client/v3/thing/{thingId}"] == {403}


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (answer({}), "'name' is a required property"),
        (answer({"name": 5}), "at /name"),
        (answer({"name": "n", "owner": "alice"}), "at /owner"),
        (answer({"name": "n", "parts": [{"size": "x"}]}), "at /parts/0/size"),
        (answer({"name": "n", "nmae": "m"}), "/nmae is not in the description"),
        (answer({"name": "n", "parts": [{"sizes": 1}]}), "/parts/0/sizes is not"),
        (answer([]), "is not of type 'object'"),
        (answer({"name": "n"}, 201), "the status 201 is not documented"),
        (answer({"name": "n"}, path="/other"), "nothing describes this endpoint"),
        (answer({"name": "n"}, **{"content-type": "text/html"}), "Content-Type"),
        (answer({"name": "n"}, **{"access-control-allow-origin": "b.test"}), "allow-origin"),
        (answer({"name": "n"}, **{"access-control-allow-methods": "GET"}), "allow-methods"),
        (answer({"errcode": "M_FORBIDDEN"}, 403), "`error` is no text"),
        (answer({"error": "No."}, 403), "errcode is None"),
        (answer({"errcode": "M_NO", "error": "No."}, 403), "errcode is 'M_NO'"),
        (answer({"errcode": "M_NOT_FOUND", "error": "No."}, 403), "comes with the status 403"),
        (answer({"errcode": "M_UNKNOWN", "error": "No."}, 500), "the status 500"),
        (answer({"errcode": "M_LIMIT_EXCEEDED", "error": "No."}, 429), "lacks retry_after_ms"),
        (answer({"errcode": "M_UNKNOWN_TOKEN", "error": "No."}, 401), "lacks soft_logout"),
        (answer({"errcode": "M_FORBIDDEN", "error": "No.", "why": 1}, 403), "why is in the body"),
        (answer({"flows": [], "params": {}}, 401), "`session` or `params`"),
    ],
)
def test_a_wrong_answer_is_found(wrong, expected, checker):
    with pytest.raises(NotConforming) as caught:
        checker.check(wrong)
    assert expected in str(caught.value)
    assert not checker.good


@pytest.mark.parametrize("sent", [NO_BODY, {"size": "x"}])
def test_a_wrong_request_is_found(sent, checker):
    put = answer({"name": "n"}, path="/thing/1/part/", method="PUT", sent=sent)
    checker.check(put)
    with pytest.raises(NotConforming):
        checker.check(put, request_too=True)


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/thing/1", "/thing/{thingId}"),
        ("GET", "/thing/all", "/thing/all"),
        ("GET", "/thing/", "/thing/{thingId}"),
        ("GET", "/thing/a%2Fb", "/thing/{thingId}"),
        ("PUT", "/thing/all/part", "/thing/{thingId}/part/"),
        ("PUT", "/thing/1", None),
        ("GET", "/thing/1/2", None),
    ],
)
def test_which_operation_a_path_asks_for(method, path, found, checker):
    operation = checker.operations.find(method, f"/_matrix/client/v3{path}")
    assert (operation and operation.path) == (found and f"/_matrix/client/v3{found}")


def test_references(tmp_path):
    write(tmp_path, "a/one.yaml", {"$ref": "../b/two.yaml#/deep/0", "added": 1, "kept": "mine"})
    write(tmp_path, "b/two.yaml", {"deep": [{"$ref": "#/x~1y"}], "x/y": {"kept": "no", "own": 2}})
    assert Documents(tmp_path).read("a/one.yaml") == {"added": 1, "kept": "mine", "own": 2}


@pytest.mark.parametrize(
    "reference", ["two.yaml", "#/none", "#/list/7", "../../outside.yaml", "one.yaml"]
)
def test_bad_references(reference, tmp_path):
    """Missing, out of the folder, or round in a circle."""
    write(tmp_path, "outside.yaml", {})
    write(tmp_path, "data/a/one.yaml", {"list": [], "there": {"$ref": reference}})
    with pytest.raises(BadReference):
        Documents(tmp_path / "data").read("a/one.yaml")


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("mx-user-id", "@a:b.test:1", "a:b"),
        ("mx-room-id", "!" + 43 * "a", "!a"),
        ("mx-room-id", "!a:b", "#a:b"),
        ("mx-event-id", "$" + 43 * "_", "$a b"),
        ("mx-room-alias", "#a b:c", "#" + 256 * "a" + ":b"),
        ("mx-mxc-uri", "mxc://b.test/a_b", "http://b.test/a"),
        ("mx-server-name", "[::1]:8448", "a/b"),
        ("mx-unpadded-base64", "aa+/", "aa=="),
        ("uri", "https://b.test", "b.test"),
    ],
)
def test_formats(name, right, wrong):
    checked = Checked({"type": "string", "format": name})
    assert [*checked.problems(right)] == []
    assert [*checked.problems(wrong)]


def test_true_is_no_integer():
    assert [*Checked({"type": "integer"}).problems(True)]


# The official files.


@pytest.fixture(scope="module")
def official() -> Documents:
    """The specification's own data."""
    folder = spec_data()
    if folder is None:
        did_not_run(WITHOUT_DATA)
    return Documents(folder)


def examples(documents: Documents) -> Iterator[tuple[str, Checked, Any]]:
    """Every example of an answer, with the schema it stands beside."""
    for operation in Operations(documents):
        for variant in operation.variants:
            for status, response in variant["responses"].items():
                described = response.get("content", {}).get(JSON, {})
                for name, example in described.get("examples", {}).items():
                    checked = Checked(described["schema"])
                    yield f"{operation.name} {status} {name}", checked, example["value"]


def test_every_official_file_can_be_read(official):
    names = official.names("**/*.yaml")
    assert len(names) > 300
    for name in names:
        official.read(name)


def test_every_official_example_is_let_through(official):
    checked = [(name, [*schema.problems(value)]) for name, schema, value in examples(official)]
    assert len(checked) > 200
    assert [entry for entry in checked if entry[1]] == []


def test_damaged_official_examples_are_found(official):
    """Whatever member a schema requires: without it, the example is refused."""
    damaged = 0
    for name, schema, value in examples(official):
        for member in schema.schema.get("required", ()):
            rest = {key: one for key, one in value.items() if key != member}
            assert [*schema.problems(rest)], f"{name} without {member}"
            damaged += 1
    assert damaged > 100


def test_official_example_events_are_let_through_and_damaged_ones_found(official):
    schemas = EventSchemas(official)
    seen = 0
    for name in official.names("event-schemas/examples/m.*.yaml"):
        event = official.read(name)
        if "sender" in event and "state_key" in event:
            assert [*schemas.problems(event)] == [], name
            assert [*schemas.problems({**event, "state_key": 5})], name
            seen += 1
    assert seen > 20
    member = {"type": "m.room.member", "sender": "@a:b", "state_key": "@a:b"}
    for content in ({"membership": "maybe"}, {}, {"membership": "join", "avatar_url": "http://x"}):
        assert [*schemas.problems({**member, "content": content})]
    levels = {"type": "m.room.power_levels", "sender": "@a:b", "state_key": ""}
    assert [*schemas.problems({**levels, "content": {"ban": "50"}})]


def test_events_are_found_at_any_depth():
    event = {"type": "m.a", "content": {"type": "m.no", "content": {}}}
    later = {"type": "m.b", "content": {}, "unsigned": {"because": event}}
    found = [one["type"] for one in events_in({"x": [later, {"content": {}}]})]
    assert found == ["m.b", "m.a"]
