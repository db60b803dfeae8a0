"""Real answers, good and bad, of every endpoint, against the official OpenAPI files.

Without the environment variable MATRIXBOX_SPEC_DATA the scenarios are played all the same, and
each says that its answers were not held against the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.api.conformance.conftest import WITHOUT_DATA, Houses
from tests.api.conformance.openapi.checking import Checker
from tests.api.conformance.refusals import Place, Target, refused_everything, targets
from tests.api.conformance.scenarios import SCENARIOS, Scenario
from tests.api.conformance.scenarios.table import load
from tests.api.conformance.server import OPEN
from tests.reporting import did_not_run

load()
TARGETS = {target.name: target for target in targets()}
# Endpoints of ours that the specification describes in words only, or not at all.
NOT_IN_THE_FILES = re.compile(
    r"\w+ (/_synapse/.*|/_matrix/client/unstable/.*|/_matrix/client/v4/sync"
    r"|/_matrix/client/v3/auth/[^/]+/fallback/web|/_matrix/static/.*)"
)

# Documented refusals that nothing provokes, and why. A server may always answer 429; this one
# counts how often only what costs much or what strangers may do.
NOT_PROVOKED: dict[str, dict[int, str]] = {
    "GET /.well-known/matrix/client": {404: "clients are always told where the server is"},
    "GET /_matrix/client/v3/account/whoami": {403: "only application services are refused so"},
    "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}": {404: "PUT makes the rule"},
    "GET /_matrix/client/v3/initialSync": {404: "it is said of a picture that is not there"},
    "POST /_matrix/client/v3/rooms/{roomId}/report": {404: "nobody learns if there is one"},
    "POST /_matrix/client/v3/users/{userId}/report": {404: "as above"},
    "GET /_matrix/client/v3/login": {404: "login with a password is always on"},
    "GET /_matrix/client/v3/profile/{userId}": {
        403: "profiles are no secret to those with a token"
    },
    "GET /_matrix/client/v3/profile/{userId}/{keyName}": {403: "as above"},
    "GET /_matrix/client/v3/presence/{userId}/status": {
        404: "who shares no room is refused alike, whether or not there is such a user"
    },
}
# What this server cannot do, however well it is asked.
NEVER_WORK = {
    f"POST /_matrix/client/v3/{path}": why
    for path, why in (
        ("account/3pid", "no identity server is trusted"),
        ("account/3pid/bind", "no identity server is trusted"),
        ("account/3pid/msisdn/requestToken", "there is nothing that sends messages to telephones"),
        ("account/password/msisdn/requestToken", "likewise"),
        ("register/msisdn/requestToken", "likewise"),
    )
}
NEVER_FAIL = {
    "GET /.well-known/matrix/client",
    "GET /_matrix/client/v3/login",
    "GET /_matrix/client/versions",
}
COUNTED = {
    "GET /_matrix/client/v1/register/m.login.registration_token/validity",
    "POST /_matrix/client/v3/join/{roomIdOrAlias}",
    "POST /_matrix/client/v3/knock/{roomIdOrAlias}",
    "POST /_matrix/client/v3/login",
    "POST /_matrix/client/v3/rooms/{roomId}/invite",
    "POST /_matrix/client/v3/rooms/{roomId}/join",
}


class Plays:
    """Everything that is done to the servers, each once, in whatever order tests ask for it."""

    def __init__(self, houses: Houses) -> None:
        self.houses = houses
        self._done: set[str] = set()
        self._place: Place | None = None

    def scenario(self, scenario: Scenario) -> None:
        """Play a scenario; it must cover what it says."""
        checker = self.houses.checker
        before = {} if checker is None else dict(checker.good)
        if self._once(scenario.name, lambda: scenario.play(self.houses.on(scenario.settings))):
            if checker is None:
                return
            seen = {name for name, count in checker.good.items() if count > before.get(name, 0)}
            claimed = {name for name in scenario.covers if not NOT_IN_THE_FILES.fullmatch(name)}
            assert claimed - set(NEVER_WORK) <= seen, "it claims to cover what it does not"

    def refusals(self, target: Target) -> None:
        """Ask an endpoint for what every endpoint refuses."""
        house = self.houses.on(OPEN)
        if self._place is None:
            self._place = Place.of(house)
        place = self._place
        self._once(target.name, lambda: refused_everything(house, place, target))

    def everything(self) -> None:
        """All of them."""
        for scenario in SCENARIOS.values():
            self.scenario(scenario)
        for target in TARGETS.values():
            self.refusals(target)

    def _once(self, name: str, play: Callable[[], None]) -> bool:
        if name in self._done:
            return False
        self._done.add(name)
        play()
        return True


@pytest.fixture(scope="module")
def plays(houses: Houses) -> Iterator[Plays]:
    """What has been done to the servers of this file."""
    return Plays(houses)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, plays):
    plays.scenario(SCENARIOS[name])
    if plays.houses.checker is None:
        did_not_run(WITHOUT_DATA)


@pytest.mark.parametrize("name", TARGETS)
def test_what_every_endpoint_refuses(name, plays):
    """C1.01 to C1.07; T085 to T088, T090, T091."""
    plays.refusals(TARGETS[name])
    if plays.houses.checker is None:
        did_not_run(WITHOUT_DATA)


def form(operation: str) -> str:
    """An operation without the names of its parameters, which differ from those of the routes."""
    return re.sub(r"\{\w+\*?\}", "{}", operation)


def test_every_route_is_covered_by_a_scenario():
    covered = {form(name) for scenario in SCENARIOS.values() for name in scenario.covers}
    covered |= {name.removesuffix("/") for name in covered}
    covered.add("GET /_synapse/admin/v1/register")  # every scenario on a closed server begins there
    covered.add("POST /_synapse/admin/v1/register")
    short = {form(name) + "/{}" for name in TARGETS if name.endswith("/state/{event_type}")}
    assert short <= covered
    assert {
        name for name in TARGETS if form(name) not in covered and form(name) + "/{}" not in short
    } == set()


@pytest.fixture
def all_seen(plays: Plays) -> Checker:
    """The checker that has seen everything."""
    if plays.houses.checker is None:
        did_not_run(WITHOUT_DATA)
    plays.everything()
    return plays.houses.checker


def served(checker: Checker) -> dict[str, set[int]]:
    """The operations of our routes, with the refusals that are documented."""
    found = {}
    for target in TARGETS.values():
        path = target.path(dict.fromkeys(target.parameters, "x"))
        operation = checker.operations.find(target.route.method, path)
        if operation is None:
            assert NOT_IN_THE_FILES.fullmatch(target.name), f"nothing describes {target.name}"
        else:
            found[operation.name] = {status for status in operation.statuses if status >= 400}
    return found


def test_every_operation_has_a_good_answer_and_an_error(all_seen):
    operations = served(all_seen)
    assert {name for name in operations if not all_seen.good[name]} == set(NEVER_WORK)
    assert {name for name in operations if not all_seen.errors[name]} == NEVER_FAIL


def test_every_documented_refusal_was_provoked(all_seen):
    missing = {}
    for name, documented in served(all_seen).items():
        left = documented - all_seen.errors[name] - set(NOT_PROVOKED.get(name, {}))
        if name not in COUNTED:
            left.discard(429)
        if left:
            missing[name] = left
    assert missing == {}


# Who may call an endpoint, where this server departs from the files, and why.
OTHER_SECURITY = {
    "GET /_matrix/client/v1/room_summary/{roomIdOrAlias}": "a token is asked for (T107)",
    "GET /_matrix/client/v3/profile/{userId}": "a token is asked for (T094)",
    "GET /_matrix/client/v3/profile/{userId}/{keyName}": "a token is asked for (T094)",
    "GET /_matrix/client/v3/publicRooms": "a token may be asked for, by configuration",
    "GET /_matrix/client/versions": "a token changes nothing",
    "POST /_matrix/client/v3/account/deactivate": "there is no other way than by one's password",
}


def test_the_same_endpoints_ask_for_a_token(checker):
    if checker is None:
        did_not_run(WITHOUT_DATA)
    security = {"none": "none", "optional": "optional", "user": "required"}
    different = set()
    for target in TARGETS.values():
        path = target.path(dict.fromkeys(target.parameters, "x"))
        operation = checker.operations.find(target.route.method, path)
        if operation and operation.security != security[target.route.auth.value]:
            different.add(operation.name)
    assert different == set(OTHER_SECURITY)
