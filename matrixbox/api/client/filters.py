"""Stored filters.

Matrix v1.19, Client-Server API, "Filtering" ([C8.08] to [C8.11]).
"""

from __future__ import annotations

from functools import lru_cache

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.filters import Filter, InvalidFilter, parse_filter
from matrixbox.core.json import CLIENT, Json, JsonError, decode, decode_stored, encode_canonical
from matrixbox.errors import BadJson, Forbidden, InvalidParam, NotFound, TooLarge
from matrixbox.store import account_data
from matrixbox.store.caches import Session
from matrixbox.store.transaction import Tx

routes = RouteTable()

MAX_FILTERS = 200
MAX_BYTES = 16 * 1024
UNKNOWN = "There is no such filter."


@routes.post("/_matrix/client/v3/user/{user_id}/filter", auth=Auth.USER, guest_ok=True)
async def define(call: Call) -> dict[str, Json]:
    """Store a filter for later."""
    require_self(call)
    body = await call.json()
    try:
        parse_filter(body)
    except InvalidFilter as error:
        raise BadJson(str(error)) from error
    json = encode_canonical(body)
    if len(json) > MAX_BYTES:
        raise TooLarge(f"A filter has at most {MAX_BYTES} bytes.")
    number = await call.services.store.write(_store, call.requester, json)
    return {"filter_id": str(number)}


def _store(tx: Tx, who: Session, json: bytes) -> int:
    number = account_data.add_filter(tx, who.user, json)
    if number >= MAX_FILTERS:
        raise InvalidParam(f"A user stores at most {MAX_FILTERS} filters.")
    return number


@routes.get("/_matrix/client/v3/user/{user_id}/filter/{filter_id}", auth=Auth.USER, guest_ok=True)
async def get(call: Call) -> Json:
    """A stored filter, as it was given."""
    require_self(call)
    return decode_stored(stored_filter(call, call.path["filter_id"]))


def require_self(call: Call) -> None:
    """Raise Forbidden unless the path names the caller."""
    if parse.user_id(call.path["user_id"]) != call.requester.user_id:
        raise Forbidden("That belongs to another user.")


def stored_filter(call: Call, filter_id: str) -> bytes:
    """A filter of the caller by its id; raises NotFound."""
    found: bytes | None = None
    if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 10:
        found = call.services.store.read(
            account_data.get_filter, call.requester.user, int(filter_id)
        )
    if found is None:
        raise NotFound(UNKNOWN)
    return found


def named_or_inline(call: Call, given: str | None) -> Filter:
    """The filter of a sync: the id of a stored one, or itself in JSON."""
    if given is None:
        return Filter()
    try:
        if given.startswith("{"):
            return _read(given.encode())
        return _read(stored_filter(call, given))
    except (InvalidFilter, JsonError) as error:
        raise InvalidParam(f"`filter`: {error}") from error


@lru_cache(maxsize=256)
def _read(json: bytes) -> Filter:
    """A filter from its JSON; the same few are read at each sync."""
    return parse_filter(decode(json, CLIENT))
