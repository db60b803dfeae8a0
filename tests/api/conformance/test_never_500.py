"""Whatever a request holds, the answer is one of the protocol, and the server goes on.

T090: every node of every body, replaced by any JSON value. T091: every segment of every path.
T085 to T089: bodies that are damaged JSON. Each endpoint gets $MATRIXBOX_NEVER_500 requests, drawn
with $MATRIXBOX_SEED.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest

from matrixbox.api.routes import Auth
from tests.api.conformance import seeds
from tests.api.conformance.conftest import Houses
from tests.api.conformance.damage import Damage
from tests.api.conformance.errors import error_problems, header_problems
from tests.api.conformance.refusals import Target, targets
from tests.api.conformance.seeds import Setting
from tests.api.conformance.server import MAILING
from tests.api.conformance.wire import NO_BODY, Answer

REQUESTS = int(os.environ.get("MATRIXBOX_NEVER_500", "60"))
SEED = os.environ.get("MATRIXBOX_SEED", "1")
TARGETS = {target.name: target for target in targets()}
# What the requests begin with is right, but not on this server, or not twice.
FOLLOWING = "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{event_id}"
REFUSED = {
    f"GET {FOLLOWING}/subscription": 404,
    f"PUT {FOLLOWING}/subscription": 400,
    # Keys that are not signed, and a device that is therefore not there.
    f"POST {seeds.CLIENT}/v3/keys/device_signing/upload": 400,
    f"POST {seeds.CLIENT}/unstable/keys/device_signing/upload": 400,
    f"PUT {seeds.DEHYDRATED}": 400,
    f"GET {seeds.DEHYDRATED}": 404,
    f"DELETE {seeds.DEHYDRATED}": 404,
    f"POST {seeds.DEHYDRATED}/{{device_id}}/events": 404,
    f"GET {seeds.DEHYDRATED}/{{device_id}}/events": 404,
    "GET /_matrix/client/v1/register/m.login.registration_token/validity": 403,
    # The place belongs to nobody who administers the server.
    **{
        f"{method} {seeds.CLIENT}/v1/admin/{what}/{{user_id}}": 403
        for method in ("GET", "PUT")
        for what in ("lock", "suspend")
    },
    f"POST {seeds.CLIENT}/v3/refresh": 401,
    # No telephones, no identity servers, and nothing that has been proven.
    **{
        f"POST {seeds.CLIENT}/v3/{path}/msisdn/requestToken": 400
        for path in ("register", "account/password", "account/3pid")
    },
    f"POST {seeds.CLIENT}/v3/account/3pid/bind": 400,
    f"POST {seeds.CLIENT}/v3/account/3pid": 403,
    f"POST {seeds.CLIENT}/v3/account/3pid/add": 403,
    f"GET {seeds.CLIENT}/unstable/org.matrixbox/email/{{sid}}": 400,
    f"POST {seeds.CLIENT}/unstable/org.matrixbox/email/{{sid}}": 415,
    "GET /_synapse/admin/v1/register": 200,
    "POST /_synapse/admin/v1/register": 403,
    "GET /_matrix/client/v3/auth/{auth_type}/fallback/web": 400,
    "POST /_matrix/client/v3/auth/{auth_type}/fallback/web": 415,
    "PUT /_matrix/client/v3/directory/room/{room_alias}": 409,
    "POST /_matrix/client/v3/rooms/{room_id}/invite": 403,
    "POST /_matrix/client/v3/rooms/{room_id}/unban": 403,
    "POST /_matrix/client/v3/rooms/{room_id}/forget": 400,
    "POST /_matrix/client/v3/knock/{room_id_or_alias}": 403,
}


@pytest.fixture(scope="module")
def setting(houses: Houses) -> Setting:
    """Two people in a room, on a server that also sends mail."""
    return Setting(houses.on(MAILING))


def check(target: Target, answer: Answer) -> None:
    """The answer must be one of the protocol."""
    # Other servers are named at random, and none of them is there.
    assert answer.status < 500 or answer.status in (502, 504), str(answer)
    if not target.route.cors and answer.headers["content-type"].startswith("text/html"):
        return
    problems = header_problems(answer)
    problems += error_problems(answer) if answer.status >= 400 else []
    assert not problems, f"{answer}: {problems}"
    assert answer.status >= 400 or isinstance(answer.json, dict | list), answer


def ask(target: Target, setting: Setting, path: str, query: str, body: Any) -> Answer:
    """Send a request as the place's user; where the password is asked for, give it."""
    user = setting.place.user
    token = None if target.route.auth is Auth.NONE else user.token
    connection, method = setting.house.connection, target.route.method
    answer = connection.ask(method, path, body, token=token, query=query)
    check(target, answer)
    if answer.status == 401 and answer.errcode is None and isinstance(body, dict):
        body = {**body, "auth": user.password_stage(answer.json["session"])}
        answer = connection.ask(method, path, body, token=token, query=query)
        check(target, answer)
    return answer


@pytest.mark.parametrize("name", TARGETS)
def test_the_requests_they_begin_with_are_right(name, setting):
    """Else nothing behind the first check would be reached."""
    target = TARGETS[name]
    for body in seeds.bodies(target):
        sent = setting.filled(body) if target.is_json else NO_BODY
        query = seeds.raw_query(seeds.query(target))
        answer = ask(target, setting, target.path(setting.place.values), query, sent)
        assert answer.status == REFUSED.get(name, 200), str(answer)
        if name in seeds.ENDING or target.route.method == "DELETE":
            setting.renew()


@pytest.mark.parametrize("name", TARGETS)
def test_no_request_makes_the_server_fail(name, setting):
    """T085 to T091: a 4xx or a 2xx in the form of the protocol, from the same process."""
    target = TARGETS[name]
    damage = Damage(Random(f"{SEED} {name}"))
    for _ in range(REQUESTS):
        answer = ask(target, setting, *damage.request(target, setting))
        worked = answer.status == 200 and name in seeds.ENDING
        if worked or answer.errcode == "M_UNKNOWN_TOKEN":
            setting.renew()
    assert setting.house.server.is_alive
    assert setting.house.server.bugs() == []
