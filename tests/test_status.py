"""The specification status page says what the routes and the tests say."""

from __future__ import annotations

from pathlib import Path

from matrixbox.api.client.table import client_routes
from tests.status import Endpoint, calls_of, endpoints, is_served, page

PAGE = Path(__file__).resolve().parents[1] / "matrixbox" / "docs" / "status.md"


def test_the_page_is_made_from_the_routes_and_tests_of_this_tree():
    """If this fails: python -m tests.status > matrixbox/docs/status.md"""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_an_endpoint_is_served_only_with_its_method():
    table = client_routes()
    path = "/_matrix/client/v3/rooms/{roomId}/leave"
    assert is_served(table, Endpoint("client-server", "POST", path, "", ""))
    assert not is_served(table, Endpoint("client-server", "PUT", path, "", ""))
    assert not is_served(table, Endpoint("client-server", "POST", path + "/x", "", ""))


def test_a_call_counts_with_ids_or_names_in_the_path_and_to_its_end():
    endpoint = Endpoint("server-server", "GET", "/_matrix/federation/v1/state/{roomId}", "", "")
    sources = {
        "named": 'f"/_matrix/federation/v1/state/{room_id}?event_id=x"',
        "an id": '"/_matrix/federation/v1/state/!a:b.test"',
        "another": '"/_matrix/federation/v1/state_ids/!a:b.test"',
        "longer": '"/_matrix/federation/v1/state/!a:b.test/more"',
    }
    assert calls_of(sources, endpoint) == ["named", "an id"]


def test_every_endpoint_of_the_list_is_known_once():
    every = [(endpoint.method, endpoint.path) for endpoint in endpoints()]
    assert len(every) == len(set(every)) > 200
