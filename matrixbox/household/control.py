"""The local control socket: how the command line reaches a running server.

A Unix socket in the data folder, mode 0600, for the server's own user and root only. One connection
carries one call: a line of JSON with `call` and `with`, answered by a line with `result`, or with
`error` and perhaps `errcode`. The server offers functions by name; `serve` registers them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import trio

from matrixbox.core.json import CLIENT, Json, JsonError, decode, encode
from matrixbox.errors import MatrixError, NotFound
from matrixbox.observe import log

Function: TypeAlias = Callable[[Mapping[str, Json]], Awaitable[Json]]
"""Takes the call's named arguments; may raise MatrixError, whose text the caller sees."""

MAX_REQUEST_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024
CALL_DEADLINE_S = 60.0
CALLS_AT_ONCE = 4
"""People at a terminal; a script that calls in parallel waits in the socket's backlog."""


class ControlError(Exception):
    """The running server refused the call, or failed; the text is for people."""


class NotRunning(Exception):
    """Nobody listens on the socket."""


async def listen(
    path: Path,
    functions: Mapping[str, Function],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve calls until cancelled. Raises OSError when the socket cannot be made.

    The caller holds the data folder's lock, so a socket found there belongs to a dead process.
    """
    with _short_name(path) as name, trio.socket.socket(socket.AF_UNIX) as listener:
        _remove(path)
        await listener.bind(name)
        os.chmod(name, 0o600)
        listener.listen(16)
        slots = trio.Semaphore(CALLS_AT_ONCE)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await slots.acquire()
                    connection, _ = await listener.accept()
                    nursery.start_soon(
                        _serve_one, connection, functions, slots, name="household.control call"
                    )
        finally:
            _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _serve_one(
    connection: trio.socket.SocketType, functions: Mapping[str, Function], slots: trio.Semaphore
) -> None:
    """Answer one call; whatever goes wrong stays in this connection."""
    try:
        with connection, contextlib.suppress(OSError):  # the caller went away: nobody to tell
            if not _is_trusted(connection):
                log.warning("control call refused", reason="another user")
                return
            with trio.move_on_after(CALL_DEADLINE_S):
                request = await _read_line(connection)
                answer = encode(await _answer(request, functions)) + b"\n"
                while answer:
                    sent = await connection.send(answer)
                    answer = answer[sent:]
    finally:
        slots.release()


async def _answer(request: bytes, functions: Mapping[str, Function]) -> dict[str, Json]:
    name: Json = None
    try:
        call = decode(request, CLIENT)
        if not isinstance(call, dict) or not isinstance(call.get("with"), dict):
            return {"error": "The call is not of the right form"}
        name, arguments = call.get("call"), call["with"]
        assert isinstance(arguments, dict)
        if not isinstance(name, str) or name not in functions:
            return {"error": "The running server does not know this call; is it an older one?"}
        result = await functions[name](arguments)
    except JsonError:
        return {"error": "The call is not JSON"}
    except MatrixError as error:
        return {"error": error.text, "errcode": error.errcode}
    except Exception as error:  # noqa: BLE001 - one call fails alone
        error_id = log.bug("control call failed", error, call=name)
        return {"error": f"Internal error {error_id}; see the server's log"}
    log.info("control call", call=name)
    return {"result": result}


async def _read_line(connection: trio.socket.SocketType) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < MAX_REQUEST_BYTES:
        piece = await connection.recv(MAX_REQUEST_BYTES - len(received))
        if not piece:
            break
        received += piece
    return bytes(received)


def _is_trusted(connection: trio.socket.SocketType) -> bool:
    """Whether the caller is root or the server's own user, as the kernel says."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


def call(path: Path, name: str, arguments: Mapping[str, Json]) -> Json:
    """Call a function of the running server, from an ordinary program without an event loop.

    Raises NotRunning when nobody listens, ControlError when the server says no or nothing.
    """
    with _short_name(path) as address, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CALL_DEADLINE_S + 5)
        try:
            connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(str(path)) from error
        except OSError as error:
            raise ControlError(f"The server's control socket {path}: {error.strerror}") from error
        try:
            connection.sendall(encode({"call": name, "with": dict(arguments)}) + b"\n")
            received = _receive_line(connection)
            answer = decode(received, CLIENT)
        except (OSError, JsonError) as error:
            raise ControlError("The running server did not answer; see its log") from error
    if not isinstance(answer, dict) or "result" not in answer:
        told = answer.get("error") if isinstance(answer, dict) else None
        raise ControlError(str(told or "The running server gave no answer"))
    result: Json = answer["result"]
    return result


def _receive_line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < MAX_ANSWER_BYTES:
        piece = connection.recv(65_536)
        if not piece:
            break
        received += piece
    return bytes(received)


def text_of(arguments: Mapping[str, Json], name: str) -> str:
    """An argument that must be text; raises NotFound, which an honest caller never sees."""
    value = arguments.get(name)
    if not isinstance(value, str):
        raise NotFound(f"The call lacks {name}")
    return value


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """A name for the socket that fits into the 108 bytes that the kernel takes."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotRunning(str(path)) from error
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
