"""Finding people, and the rooms that one shares with them.

Matrix v1.19, Client-Server API, "User Directory", "Mutual Rooms" ([C12.10], [C12.11], T107).
"""

from __future__ import annotations

from matrixbox.accounts.throttle import SEARCHES
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import is_compliant_user_id
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, InvalidParam
from matrixbox.rooms import user_directory
from matrixbox.rooms.user_directory import MAX_LIMIT

routes = RouteTable()

DEFAULT_LIMIT = 10


@routes.post("/_matrix/client/v3/user_directory/search", auth=Auth.USER)
async def search(call: Call) -> dict[str, Json]:
    """People by their names and ids."""
    body = await call.json()
    term = parse.text(body, "search_term")
    limit = parse.optional_integer(body, "limit")
    if limit is not None and limit < 0:
        raise BadJson("`limit` is not below 0.")
    services, user = call.services, call.requester.user
    services.throttle.take(SEARCHES, call.requester.user_id)
    settings = services.settings
    household = settings.features.household_directory and not settings.registration.open
    found, limited = await services.store.read_long(
        user_directory.search,
        user,
        term,
        min(DEFAULT_LIMIT if limit is None else limit, MAX_LIMIT),
        household,
    )
    return {"results": [one.json() for one in found], "limited": limited}


@routes.get("/_matrix/client/v1/mutual_rooms", auth=Auth.USER)
async def mutual_rooms(call: Call) -> dict[str, Json]:
    """The rooms that the caller shares with somebody."""
    return _mutual_rooms(call, "from", "next_batch")


@routes.get("/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", auth=Auth.USER)
async def mutual_rooms_of_old(call: Call) -> dict[str, Json]:
    """The same in the form of the proposal, which some clients still ask for."""
    return _mutual_rooms(call, "batch_token", "next_batch_token")


def _mutual_rooms(call: Call, batch: str, next_batch: str) -> dict[str, Json]:
    """The answer, where the two forms name the token that goes on in their own ways."""
    other = call.param("user_id")
    if other is None:
        raise InvalidParam("`user_id` is missing.")
    other_id = parse.user_id(other)
    if other_id == call.requester.user_id or not is_compliant_user_id(other_id):
        raise InvalidParam("`user_id` is somebody else, with an id as they are made today.")
    user, token = call.requester.user, call.param(batch)
    found = call.services.store.read(user_directory.mutual_rooms, user, other_id, token)
    answer: dict[str, Json] = {"joined": found.rooms, "count": found.count}
    if found.next_batch is not None:
        answer[next_batch] = found.next_batch
    return answer
