"""Account data and tags.

Matrix v1.19, Client-Server API, "Client Config", "Room Tagging" ([C15.05] to [C15.08], T081).
"""

from __future__ import annotations

from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client.filters import require_self
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.errors import BadJson, InvalidParam, NotFound, ServerManaged, TooLarge
from matrixbox.rooms import push_rules
from matrixbox.store import account_data, members, names
from matrixbox.store.account_data import GLOBAL, Entry
from matrixbox.store.caches import Session
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

USER = "/_matrix/client/v3/user/{user_id}"
MANAGED = ("m.fully_read", "m.push_rules")
TAGS = "m.tag"
MAX_BYTES = 256 * 1024
MAX_ENTRIES = 1_000
MAX_TAG_BYTES = 255


def _room(call: Call) -> RoomNid:
    """The room of the path, which one must have been in."""
    room = call.services.store.read(names.room_nid, parse.room_id(call.path["room_id"]))
    member = room and call.services.store.read(members.get, room, call.requester.user)
    if room is None or member is None:
        raise NotFound("You were never in that room.")
    return RoomNid(room)


def _put(tx: Tx, who: Session, room: RoomNid, kind: str, json: bytes) -> None:
    if len(json) > MAX_BYTES:
        raise TooLarge(f"An entry of account data has at most {MAX_BYTES} bytes.")
    if (
        account_data.get(tx, who.user, room, kind) is None
        and account_data.count(tx, who.user) >= MAX_ENTRIES
    ):
        raise InvalidParam(f"A user has at most {MAX_ENTRIES} entries of account data.")
    account_data.put(tx, who.user, Entry(room, kind, json, tx.position()))
    tx.changed(users=(who.user,))


async def _set(call: Call, room: RoomNid) -> dict[str, Json]:
    content = await call.json()
    kind = call.path["type"]
    if kind in MANAGED:
        raise ServerManaged(f"{kind} has an endpoint of its own.")
    await call.services.store.write(_put, call.requester, room, kind, encode(content))
    return {}


def _get(call: Call, room: RoomNid) -> Response:
    kind = call.path["type"]
    if kind == push_rules.TYPE and room == GLOBAL:
        rules = call.services.store.read(push_rules.rules_of, call.requester.user)
        return Response(body=encode(push_rules.content_of(rules)), headers=JSON_HEADERS)
    found = call.services.store.read(account_data.get, call.requester.user, room, kind)
    if found is None:
        raise NotFound("There is no such account data.")
    return Response(body=found, headers=JSON_HEADERS)


@routes.put(f"{USER}/account_data/{{type}}", auth=Auth.USER)
async def put_global(call: Call) -> dict[str, Json]:
    """Store an entry of the account."""
    require_self(call)
    return await _set(call, GLOBAL)


@routes.get(f"{USER}/account_data/{{type}}", auth=Auth.USER)
async def get_global(call: Call) -> Response:
    """Read an entry of the account."""
    require_self(call)
    return _get(call, GLOBAL)


@routes.put(f"{USER}/rooms/{{room_id}}/account_data/{{type}}", auth=Auth.USER)
async def put_for_room(call: Call) -> dict[str, Json]:
    """Store an entry about a room."""
    require_self(call)
    return await _set(call, _room(call))


@routes.get(f"{USER}/rooms/{{room_id}}/account_data/{{type}}", auth=Auth.USER)
async def get_for_room(call: Call) -> Response:
    """Read an entry about a room."""
    require_self(call)
    return _get(call, _room(call))


# --- tags


def _tags(tx: Tx, who: Session, room: RoomNid) -> dict[str, Json]:
    stored = account_data.get(tx, who.user, room, TAGS)
    content = {} if stored is None else decode_stored(stored)
    tags = content.get("tags") if isinstance(content, dict) else None
    return dict(tags) if isinstance(tags, dict) else {}


def _set_tag(tx: Tx, who: Session, room: RoomNid, tag: str, content: Json) -> None:
    _put(tx, who, room, TAGS, encode({"tags": {**_tags(tx, who, room), tag: content}}))


def _remove_tag(tx: Tx, who: Session, room: RoomNid, tag: str) -> None:
    tags = _tags(tx, who, room)
    if tags.pop(tag, None) is not None:
        _put(tx, who, room, TAGS, encode({"tags": tags}))


@routes.get(f"{USER}/rooms/{{room_id}}/tags", auth=Auth.USER)
async def tags(call: Call) -> dict[str, Json]:
    """The tags of a room."""
    require_self(call)
    return {"tags": call.services.store.read(_tags, call.requester, _room(call))}


@routes.put(f"{USER}/rooms/{{room_id}}/tags/{{tag}}", auth=Auth.USER)
async def set_tag(call: Call) -> dict[str, Json]:
    """Tag a room."""
    require_self(call)
    content = await call.json()
    tag = call.path["tag"]
    if len(tag.encode()) > MAX_TAG_BYTES:
        raise InvalidParam(f"A tag has at most {MAX_TAG_BYTES} bytes.")
    order = content.get("order")
    if order is not None and (isinstance(order, bool) or not isinstance(order, int | float)):
        raise BadJson("`order` is a number.")
    await call.services.store.write(_set_tag, call.requester, _room(call), tag, content)
    return {}


@routes.delete(f"{USER}/rooms/{{room_id}}/tags/{{tag}}", auth=Auth.USER)
async def remove_tag(call: Call) -> dict[str, Json]:
    """Take a tag off a room."""
    require_self(call)
    await call.services.store.write(_remove_tag, call.requester, _room(call), call.path["tag"])
    return {}
