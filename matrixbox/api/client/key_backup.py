"""Backups of room keys.

Matrix v1.19, Client-Server API, "Server-side key backups" ([C17.11] to [C17.14], T129).
"""

from __future__ import annotations

from collections.abc import Sequence

from matrixbox.api import bounds, parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.e2ee import key_backup
from matrixbox.e2ee.key_backup import Result
from matrixbox.errors import BadJson, InvalidParam, MissingParam
from matrixbox.store.key_backup import Session

routes = RouteTable()

VERSION = "/_matrix/client/v3/room_keys/version"
KEYS = "/_matrix/client/v3/room_keys/keys"
ROOM = f"{KEYS}/{{room_id}}"
SESSION = f"{ROOM}/{{session_id}}"


def _algorithm_and_data(body: parse.Body) -> tuple[str, parse.Body]:
    algorithm = parse.text(body, "algorithm")
    auth_data = parse.optional_object(body, "auth_data")
    if auth_data is None:
        raise MissingParam("`auth_data` is missing.")
    return algorithm, auth_data


@routes.post(VERSION, auth=Auth.USER)
async def create(call: Call) -> dict[str, Json]:
    """Begin a new backup."""
    algorithm, auth_data = _algorithm_and_data(await call.json())
    version = await call.services.store.write(
        key_backup.create, call.requester.user, algorithm, auth_data
    )
    return {"version": version}


@routes.get(VERSION, auth=Auth.USER)
async def newest(call: Call) -> dict[str, Json]:
    """The newest backup."""
    found = call.services.store.read(key_backup.version, call.requester.user, None)
    return key_backup.shown(found)


@routes.get(f"{VERSION}/{{version}}", auth=Auth.USER)
async def get(call: Call) -> dict[str, Json]:
    """A backup."""
    version = call.path["version"]
    found = call.services.store.read(key_backup.version, call.requester.user, version)
    return key_backup.shown(found)


@routes.put(f"{VERSION}/{{version}}", auth=Auth.USER)
async def update(call: Call) -> dict[str, Json]:
    """Change what a backup is signed by."""
    body = await call.json()
    algorithm, auth_data = _algorithm_and_data(body)
    version = call.path["version"]
    if parse.optional_text(body, "version") not in (None, version):
        raise InvalidParam("`version` is not the one of the path.")
    await call.services.store.write(
        key_backup.update, call.requester.user, version, algorithm, auth_data
    )
    return {}


@routes.delete(f"{VERSION}/{{version}}", auth=Auth.USER)
async def delete(call: Call) -> dict[str, Json]:
    """Delete a backup with its keys."""
    version = call.path["version"]
    await call.services.store.write(key_backup.delete, call.requester.user, version)
    return {}


# --- keys


def _version(call: Call) -> str:
    version = call.param("version")
    if version is None:
        raise MissingParam("`version` is missing.")
    return version


async def _put(call: Call, sessions: Sequence[Session]) -> dict[str, Json]:
    """Store sessions, so many in each transaction that nobody has to wait long for them."""
    version, user = _version(call), call.requester.user
    write = call.services.store.write
    first = sessions[: key_backup.BATCH]
    result: Result = await write(key_backup.put, user, version, first)
    for start in range(key_backup.BATCH, len(sessions), key_backup.BATCH):
        more = sessions[start : start + key_backup.BATCH]
        result = await write(key_backup.put, user, version, more)
    return result.answer()


def _place(call: Call) -> tuple[str | None, str | None]:
    """The room and the session of the path, if any."""
    room_id = call.path.get("room_id")
    return room_id and parse.room_id(room_id), call.path.get("session_id")


async def _delete(call: Call) -> dict[str, Json]:
    room_id, session_id = _place(call)
    result: Result = await call.services.store.write(
        key_backup.remove, call.requester.user, _version(call), room_id, session_id
    )
    return result.answer()


async def _read(call: Call) -> list[Session]:
    room_id, session_id = _place(call)
    found: list[Session] = await call.services.store.read_long(
        key_backup.read, call.requester.user, _version(call), room_id, session_id
    )
    return found


@routes.put(KEYS, auth=Auth.USER, body_limit=bounds.BODY_KEYS)
async def put_all(call: Call) -> dict[str, Json]:
    """Store sessions of several rooms."""
    rooms = parse.optional_object(await call.json(), "rooms")
    if rooms is None:
        raise BadJson("`rooms` is an object.")
    parsed = [key_backup.parse_room(room_id, room) for room_id, room in rooms.items()]
    return await _put(call, [session for sessions in parsed for session in sessions])


@routes.put(ROOM, auth=Auth.USER, body_limit=bounds.BODY_KEYS)
async def put_room(call: Call) -> dict[str, Json]:
    """Store sessions of one room."""
    room_id = parse.room_id(call.path["room_id"])
    return await _put(call, key_backup.parse_room(room_id, await call.json()))


@routes.put(SESSION, auth=Auth.USER, body_limit=bounds.BODY_KEYS)
async def put_session(call: Call) -> dict[str, Json]:
    """Store one session."""
    room_id = parse.room_id(call.path["room_id"])
    session = key_backup.parse_session(room_id, call.path["session_id"], await call.json())
    return await _put(call, [session])


@routes.get(KEYS, auth=Auth.USER)
async def get_all(call: Call) -> dict[str, Json]:
    """All keys of a backup."""
    return key_backup.shown_rooms(await _read(call))


@routes.get(ROOM, auth=Auth.USER)
async def get_room(call: Call) -> dict[str, Json]:
    """The keys of one room."""
    return key_backup.shown_sessions(await _read(call))


@routes.get(SESSION, auth=Auth.USER)
async def get_session(call: Call) -> dict[str, Json]:
    """The keys of one session."""
    return key_backup.shown_session((await _read(call))[0])


@routes.delete(KEYS, auth=Auth.USER)
async def delete_all(call: Call) -> dict[str, Json]:
    """Remove all keys."""
    return await _delete(call)


@routes.delete(ROOM, auth=Auth.USER)
async def delete_room(call: Call) -> dict[str, Json]:
    """Remove the keys of one room."""
    return await _delete(call)


@routes.delete(SESSION, auth=Auth.USER)
async def delete_session(call: Call) -> dict[str, Json]:
    """Remove the keys of one session."""
    return await _delete(call)
