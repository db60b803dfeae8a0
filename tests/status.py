"""The specification status page, made from the routes and the tests.

    python -m tests.status > matrixbox/docs/status.md

`endpoints.tsv` lists what Matrix v1.19 asks a homeserver to serve.  An endpoint is served if the
route table has it.  Beside it stand the tests: the scenarios whose answers are held against the
official OpenAPI files, and other files of tests that call it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from matrixbox.api.client.table import client_routes
from matrixbox.api.routes import Found, RouteTable
from matrixbox.api.server.table import server_routes
from tests.api.conformance.scenarios import SCENARIOS
from tests.api.conformance.scenarios.table import load

HERE = Path(__file__).resolve().parent
TITLES = {"client-server": "Client-Server API", "server-server": "Server-Server API"}
INTRODUCTION = """\
# Specification status

Every endpoint that Matrix v1.19 asks a homeserver to serve, from the routes and the tests of this
release; made by `python -m tests.status`.  "Scenario" names tests whose answers, good and bad, are
held against the official OpenAPI files; "tests" are other files of tests that call the endpoint.
An endpoint without a test is not claimed to work.
"""


@frozen
class Endpoint:
    """One endpoint of the specification."""

    api: str
    method: str
    path: str
    module: str
    since: str

    @property
    def form(self) -> str:
        """The operation without the names of its parameters."""
        return form(f"{self.method} {self.path}")


def form(operation: str) -> str:
    """An operation without the names of its parameters, which differ from those of the routes."""
    return re.sub(r"\{[^}]*\}", "{}", operation)


def endpoints() -> list[Endpoint]:
    """All that a homeserver serves."""
    with (HERE / "endpoints.tsv").open(encoding="utf-8") as file:
        return [Endpoint(**row) for row in csv.DictReader(file, delimiter="\t")]


def is_served(table: RouteTable, endpoint: Endpoint) -> bool:
    """Whether a route answers; values that fit every parameter stand in its place."""
    path = re.sub(r"\{[^}]*\}", "x", endpoint.path)
    return isinstance(table.find(endpoint.method, path), Found)


def scenarios_of() -> Mapping[str, list[str]]:
    """The scenarios that cover an operation, by its form."""
    load()
    found: dict[str, list[str]] = {}
    for scenario in SCENARIOS.values():
        for operation in scenario.covers:
            found.setdefault(form(operation), []).append(scenario.name)
    return found


def calls_of(sources: Mapping[str, str], endpoint: Endpoint) -> list[str]:
    """The files of tests in whose text the endpoint's path stands."""
    return [name for name, text in sources.items() if _pattern(endpoint).search(text)]


def _pattern(endpoint: Endpoint) -> re.Pattern[str]:
    # A parameter is something in braces, or an id as such; what follows must end the path.
    parts = [
        r"(?:\{[^}/]*\}|[^/\s\"'?]+)" if part.startswith("{") else re.escape(part)
        for part in endpoint.path.split("/")
    ]
    return re.compile("/".join(parts) + r"(?=[?\s\"'`]|$)")


def test_sources() -> dict[str, str]:
    """The texts of all files of tests that call servers, by their names."""
    folders = ("federation", "live", "clients", "e2ee", "push", "sync")
    return {
        str(path.relative_to(HERE)): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted((HERE / folder).rglob("test_*.py"))
    }


def page() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *_sections(endpoints())]) + "\n"


def _sections(every: Sequence[Endpoint]) -> Iterator[str]:
    tables = {"client-server": client_routes(), "server-server": server_routes()}
    tables["server-server"].include(client_routes())  # the well-known documents
    scenarios, sources = scenarios_of(), test_sources()
    for api, title in TITLES.items():
        of_api = [endpoint for endpoint in every if endpoint.api == api]
        served = [endpoint for endpoint in of_api if is_served(tables[api], endpoint)]
        yield f"## {title}\n\n{len(served)} of {len(of_api)} endpoints are served.\n"
        for module in sorted({endpoint.module for endpoint in of_api}):
            yield f"### {module}\n\n| Endpoint | Served | Scenario | Tests |\n|---|---|---|---|"
            for endpoint in of_api:
                if endpoint.module == module:
                    yield _row(endpoint, endpoint in served, scenarios, sources)
            yield ""


def _row(
    endpoint: Endpoint,
    served: bool,
    scenarios: Mapping[str, list[str]],
    sources: Mapping[str, str],
) -> str:
    played = ", ".join(sorted(scenarios.get(endpoint.form, ()))) if served else ""
    called = ", ".join(calls_of(sources, endpoint)) if served else ""
    answer = "yes" if served else "no"
    return f"| `{endpoint.method} {endpoint.path}` | {answer} | {played} | {called} |"


if __name__ == "__main__":
    print(page(), end="")
