"""Keys, our own and other servers'; public, so nobody signs these requests.

Matrix v1.19, Server-Server API, "Retrieving server keys" ([B3.01], [B3.05], [B3.06], [B3.08]).
"""

from __future__ import annotations

import re

from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import InvalidIdentifier, ServerName, parse_server_name
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, InvalidParam, MissingParam

routes = RouteTable()

_INTEGER = re.compile(r"-?[0-9]{1,20}")


@routes.get("/_matrix/key/v2/server/?", "/_matrix/key/v2/server/{key_id}", auth=Auth.NONE)
async def own_keys(call: Call) -> dict[str, Json]:
    """Our keys; old servers ask for one of them and get all."""
    # In the order of canonical JSON, so that the signature is over these very bytes.
    answer = call.services.federation.own_keys.answer()
    return {key: answer[key] for key in sorted(answer)}


@routes.get(
    "/_matrix/key/v2/query/{server}", "/_matrix/key/v2/query/{server}/{key_id}", auth=Auth.NONE
)
async def query_one(call: Call) -> dict[str, Json]:
    """What one server says about its keys, signed by it and by us."""
    try:
        server = parse_server_name(call.path["server"])
    except InvalidIdentifier as error:
        raise InvalidParam("That is not a server name") from error
    until = call.param("minimum_valid_until_ts")
    if until is not None and not _INTEGER.fullmatch(until):
        raise InvalidParam("minimum_valid_until_ts must be an integer")
    wanted = {server: None if until is None else int(until)}
    return {"server_keys": await call.services.federation.notary.answers(wanted)}


@routes.post("/_matrix/key/v2/query", auth=Auth.NONE)
async def query_many(call: Call) -> dict[str, Json]:
    """What several servers say about their keys."""
    body = await call.json()
    if "server_keys" not in body:
        raise MissingParam("server_keys is missing")
    asked = body["server_keys"]
    if not isinstance(asked, dict):
        raise BadJson("server_keys must be an object")
    wanted: dict[ServerName, int | None] = {}
    for name, criteria in asked.items():
        try:
            wanted[parse_server_name(name)] = _latest(criteria)
        except InvalidIdentifier:
            continue  # nothing is known of such a server
    return {"server_keys": await call.services.federation.notary.answers(wanted)}


def _latest(criteria: Json) -> int | None:
    """Up to when the keys of a server should be valid, by the criteria for each of them."""
    if not isinstance(criteria, dict):
        raise BadJson("The criteria for a server must be an object")
    latest: int | None = None
    for one in criteria.values():
        if not isinstance(one, dict):
            raise BadJson("The criteria for a key must be an object")
        until = one.get("minimum_valid_until_ts")
        if until is not None and type(until) is not int:
            raise BadJson("minimum_valid_until_ts must be an integer")
        if until is not None:
            latest = until if latest is None else max(latest, until)
    return latest
