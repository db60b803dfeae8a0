"""Asking servers in turn, and what a client is told when none of them helped.

Matrix v1.19, Server-Server API, "Joining Rooms" ([B8.08], [B8.10], [B8.13], [K.25]): refusals that
the client can understand are passed on, what is between the servers becomes a 502 or 504.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from matrixbox.core.identifiers import ServerName
from matrixbox.errors import (
    BadGateway,
    Forbidden,
    GatewayTimeout,
    IncompatibleRoomVersion,
    InviteBlocked,
    MatrixError,
    NotFound,
    RemoteError,
    RemoteInvalid,
    RemoteRefused,
    RemoteTimeout,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
)
from matrixbox.observe import log

_PASSED_ON: dict[str, Callable[[str], MatrixError]] = {
    "M_FORBIDDEN": Forbidden,
    "M_INVITE_BLOCKED": InviteBlocked,
    "M_NOT_FOUND": NotFound,
    "M_UNABLE_TO_AUTHORISE_JOIN": UnableToAuthoriseJoin,
    "M_UNABLE_TO_GRANT_JOIN": UnableToGrantJoin,
}
# The more a refusal says, the further up; the client gets the one that says most.
_WEIGHT = (
    BadGateway,
    GatewayTimeout,
    NotFound,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
    IncompatibleRoomVersion,
    InviteBlocked,
    Forbidden,
)


def for_client(error: RemoteError) -> MatrixError:
    """What a client is told of another server's failure."""
    if isinstance(error, RemoteTimeout):
        return GatewayTimeout("The other server did not answer in time.")
    if not isinstance(error, RemoteRefused):
        return BadGateway("The other server could not be reached, or its answer was of no use.")
    if error.errcode == "M_INCOMPATIBLE_ROOM_VERSION":
        version = error.fields.get("room_version")
        named = version if isinstance(version, str) else "unknown"
        return IncompatibleRoomVersion(
            "This server does not know the version of that room.", room_version=named
        )
    text = error.text
    passed_on = _PASSED_ON.get(error.errcode or "")
    if passed_on is not None and 400 <= error.status < 500:
        return passed_on(text or "The other server refuses.")
    if error.status == 403:
        return Forbidden(text or "The other server refuses.")
    if error.status == 404:
        return NotFound(text or "The other server does not know that.")
    return BadGateway(f"The other server failed with status {error.status}.")


async def in_turn(
    what: str,
    servers: Sequence[ServerName],
    attempt: Callable[[ServerName], Awaitable[None]],
) -> None:
    """Try one server after the other until one helps; raise what says most about the failures."""
    if not servers:
        raise NotFound("No server is known that could help with that room.")
    failures: list[MatrixError] = []
    for server in servers:
        try:
            return await attempt(server)
        except RemoteError as error:
            level = log.warning if isinstance(error, RemoteInvalid) else log.info
            level("a server did not help with a room", room=what, reason=str(error))
            failures.append(for_client(error))
    raise max(failures, key=lambda failure: _WEIGHT.index(type(failure)))


def too_slow(what: str) -> MatrixError:
    """A whole undertaking took too long."""
    return GatewayTimeout(f"The other servers took too long with {what}.")
