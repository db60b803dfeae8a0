"""The two families of failure: what a client may see, and what a remote server did wrong.

Matrix v1.19, Client-Server API, "Standard error response", and the response tables of the
endpoints. A `MatrixError` may be raised anywhere above `core/`; `api/errors.py` alone turns it into
an answer. A `RemoteError` is handled where the remote call is made and never reaches a client as it
is. Anything else that escapes is a bug.

Statuses follow the response tables; where the text gives none, the one that most servers send is
used. Where one code comes with two statuses, the rarer one is a subclass; codes that only one
feature uses share a class. Order: any endpoint, accounts, rooms, other features, remote servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class MatrixError(Exception):
    """A failure that a client or another server may see.

    `text` is for people and must not hold secrets; `fields` are the further members of the answer
    that the specification gives to some codes.
    """

    status: int = 500
    errcode: str = "M_UNKNOWN"

    def __init__(self, text: str, **fields: object) -> None:
        self.text = text
        self.fields = fields
        super().__init__(text)

    def json(self) -> dict[str, object]:
        """The body of the answer, also used where an error stands inside a larger answer."""
        return {"errcode": self.errcode, "error": self.text, **self.fields}


class Forbidden(MatrixError):
    """The requester is known and may not do this."""

    status, errcode = 403, "M_FORBIDDEN"


class UnknownToken(MatrixError):
    """The access or refresh token is not, or no longer, valid; `soft_logout` keeps the device."""

    status, errcode = 401, "M_UNKNOWN_TOKEN"

    def __init__(
        self, text: str = "Unknown or expired access token", *, soft_logout: bool = False
    ) -> None:
        super().__init__(text, soft_logout=soft_logout)


class MissingToken(MatrixError):
    """No access token was given."""

    status, errcode = 401, "M_MISSING_TOKEN"

    def __init__(self, text: str = "Missing access token") -> None:
        super().__init__(text)


class UserLocked(MatrixError):
    """The account is locked: log in again later, but keep the device's data."""

    status, errcode = 401, "M_USER_LOCKED"

    def __init__(self, text: str = "This account is locked") -> None:
        super().__init__(text, soft_logout=True)


class UserSuspended(MatrixError):
    """The account may read and leave, but not do this."""

    status, errcode = 403, "M_USER_SUSPENDED"


class BadJson(MatrixError):
    """Valid JSON, but not of the form that is asked for."""

    status, errcode = 400, "M_BAD_JSON"


class ServerManaged(BadJson):
    """Account data of a type that only the server writes."""

    status = 405


class NotJson(MatrixError):
    """The body is not JSON."""

    status, errcode = 400, "M_NOT_JSON"


class NotFound(MatrixError):
    """Nothing there, or nothing that the requester may know of."""

    status, errcode = 404, "M_NOT_FOUND"


class LimitExceeded(MatrixError):
    """Too many requests; `retry_after_ms` says how long to wait."""

    status, errcode = 429, "M_LIMIT_EXCEEDED"

    def __init__(self, retry_after_ms: int, text: str = "Too many requests") -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__(text, retry_after_ms=retry_after_ms)


class Unrecognized(MatrixError):
    """No such endpoint."""

    status, errcode = 404, "M_UNRECOGNIZED"

    def __init__(self, text: str = "Unrecognised request") -> None:
        super().__init__(text)


class MethodNotAllowed(Unrecognized):
    """The endpoint exists, but not with this method."""

    status = 405


class Unknown(MatrixError):
    """The request is wrong in a way that no other code names."""

    status, errcode = 400, "M_UNKNOWN"


class Conflict(Unknown):
    """What should be made exists already (an alias)."""

    status = 409


class Unavailable(Unknown):
    """Not now: the server is stopping, out of disk, or without a clock."""

    status = 503


class BadGateway(Unknown):
    """Another server was needed and failed."""

    status = 502


class GatewayTimeout(Unknown):
    """Another server was needed and did not answer in time."""

    status = 504


class MissingParam(MatrixError):
    """A required parameter is missing."""

    status, errcode = 400, "M_MISSING_PARAM"


class InvalidParam(MatrixError):
    """A parameter has an impossible value."""

    status, errcode = 400, "M_INVALID_PARAM"


class TooLarge(MatrixError):
    """The request, or something in it, is too large."""

    status, errcode = 413, "M_TOO_LARGE"


class RemoteTooLarge(TooLarge):
    """What another server would have to send us is too large."""

    status = 502


class ResourceLimitExceeded(MatrixError):
    """The server is out of something (disk, room for accounts); `admin_contact` says whom to ask.

    The specification requires `admin_contact`.
    """

    status, errcode = 403, "M_RESOURCE_LIMIT_EXCEEDED"

    def __init__(self, text: str, *, admin_contact: str) -> None:
        super().__init__(text, admin_contact=admin_contact)


class UserLimitExceeded(MatrixError):
    """The account has reached a limit of its own; `info_uri` and `can_upgrade` may be given."""

    status, errcode = 403, "M_USER_LIMIT_EXCEEDED"


class Unauthorized(MatrixError):
    """Login failed for a reason that is not named."""

    status, errcode = 401, "M_UNAUTHORIZED"


class AuthenticationNeeded(MatrixError):
    """User-interactive authentication is not complete.

    The answer holds `flows`, `params`, `session` and `completed`; `errcode` and `error` only when a
    stage was tried and failed (`failure`). Client-Server API, "User-Interactive
    Authentication API".
    """

    status, errcode = 401, "M_FORBIDDEN"

    def __init__(self, *, failure: MatrixError | None = None, **fields: object) -> None:
        self.failure = failure
        super().__init__("Authentication needed" if failure is None else failure.text, **fields)

    def json(self) -> dict[str, object]:
        """The state of the session, and how the last stage failed if it did."""
        if self.failure is None:
            return dict(self.fields)
        return {**self.failure.json(), **self.fields}


class UserInUse(MatrixError):
    """The user name is taken."""

    status, errcode = 400, "M_USER_IN_USE"


class InvalidUsername(MatrixError):
    """The user name is not a valid one."""

    status, errcode = 400, "M_INVALID_USERNAME"


class Exclusive(MatrixError):
    """The name lies in an application service's own namespace."""

    status, errcode = 400, "M_EXCLUSIVE"


class WeakPassword(MatrixError):
    """The password is too short or too long."""

    status, errcode = 400, "M_WEAK_PASSWORD"


class UserDeactivated(MatrixError):
    """The account has been deactivated."""

    status, errcode = 403, "M_USER_DEACTIVATED"


class GuestAccessForbidden(MatrixError):
    """The room or the server does not allow guests."""

    status, errcode = 403, "M_GUEST_ACCESS_FORBIDDEN"


class CaptchaNeeded(MatrixError):
    """A captcha must be solved."""

    status, errcode = 401, "M_CAPTCHA_NEEDED"


class CaptchaInvalid(MatrixError):
    """The captcha was not solved."""

    status, errcode = 401, "M_CAPTCHA_INVALID"


THREEPID_STATUS: Mapping[str, int] = {
    "M_THREEPID_AUTH_FAILED": 403,
    "M_THREEPID_DENIED": 403,
    "M_THREEPID_IN_USE": 400,
    "M_THREEPID_NOT_FOUND": 400,
    "M_THREEPID_MEDIUM_NOT_SUPPORTED": 400,
    "M_SERVER_NOT_TRUSTED": 400,
    "M_TOKEN_INCORRECT": 400,
    "M_NO_VALID_SESSION": 400,
    "M_SESSION_EXPIRED": 400,
    "M_SESSION_NOT_VALIDATED": 400,
}


class ThreepidRefused(MatrixError):
    """An e-mail address or telephone number cannot be used; `errcode`, of the table, says why.

    The last four codes are those of validation sessions (`submit_url`).
    """

    def __init__(self, errcode: str, text: str) -> None:
        self.errcode = errcode
        self.status = THREEPID_STATUS[errcode]
        super().__init__(text)


class RoomInUse(MatrixError):
    """The alias that createRoom asks for is taken."""

    status, errcode = 400, "M_ROOM_IN_USE"


class InvalidRoomState(MatrixError):
    """The initial state that createRoom asks for is not allowed."""

    status, errcode = 400, "M_INVALID_ROOM_STATE"


class UnsupportedRoomVersion(MatrixError):
    """This server does not know the room version."""

    status, errcode = 400, "M_UNSUPPORTED_ROOM_VERSION"


class IncompatibleRoomVersion(MatrixError):
    """The room's version is not one that the joining server knows."""

    status, errcode = 400, "M_INCOMPATIBLE_ROOM_VERSION"

    def __init__(self, text: str, *, room_version: str) -> None:
        super().__init__(text, room_version=room_version)


class BadAlias(MatrixError):
    """An alias in m.room.canonical_alias does not point at the room."""

    status, errcode = 400, "M_BAD_ALIAS"


class BadState(MatrixError):
    """The membership change is impossible from where the user is, such as unban without a ban."""

    status, errcode = 403, "M_BAD_STATE"


class DuplicateAnnotation(MatrixError):
    """The user has sent this reaction to this event already."""

    status, errcode = 400, "M_DUPLICATE_ANNOTATION"


class InviteBlocked(MatrixError):
    """The invited user does not take invites from this sender."""

    status, errcode = 403, "M_INVITE_BLOCKED"


class CannotLeaveServerNoticeRoom(MatrixError):
    """The server notices room cannot be left."""

    status, errcode = 403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"


class UnableToAuthoriseJoin(MatrixError):
    """This server cannot tell whether the join rule's conditions are met; ask another one."""

    status, errcode = 400, "M_UNABLE_TO_AUTHORISE_JOIN"


class UnableToGrantJoin(MatrixError):
    """The conditions are met, but nobody here may authorise the join; ask another server."""

    status, errcode = 400, "M_UNABLE_TO_GRANT_JOIN"


class KeyTooLarge(MatrixError):
    """The name of a profile field is too long."""

    status, errcode = 400, "M_KEY_TOO_LARGE"


class ProfileTooLarge(MatrixError):
    """The profile would grow beyond 64 KiB."""

    status, errcode = 400, "M_PROFILE_TOO_LARGE"


class InvalidSignature(MatrixError):
    """A cross-signing signature does not verify."""

    status, errcode = 400, "M_INVALID_SIGNATURE"


class WrongRoomKeysVersion(MatrixError):
    """The key backup has moved on to another version."""

    status, errcode = 403, "M_WRONG_ROOM_KEYS_VERSION"

    def __init__(self, text: str, *, current_version: str) -> None:
        super().__init__(text, current_version=current_version)


class CannotOverwriteMedia(MatrixError):
    """Something has been uploaded under this id already."""

    status, errcode = 409, "M_CANNOT_OVERWRITE_MEDIA"


class NotYetUploaded(MatrixError):
    """The media id exists, its content does not yet."""

    status, errcode = 504, "M_NOT_YET_UPLOADED"


class AppserviceLoginUnsupported(MatrixError):
    """Application services get no access token here; they act with their own."""

    status, errcode = 400, "M_APPSERVICE_LOGIN_UNSUPPORTED"


class UnknownDevice(MatrixError):
    """The device that an application service names does not exist."""

    status, errcode = 400, "M_UNKNOWN_DEVICE"


PING_STATUS: Mapping[str, int] = {
    "M_URL_NOT_SET": 400,
    "M_BAD_STATUS": 502,
    "M_CONNECTION_FAILED": 502,
    "M_CONNECTION_TIMEOUT": 504,
}


class PingFailed(MatrixError):
    """The application service did not answer a ping well; `errcode`, of the table, says how.

    M_BAD_STATUS comes with the `status` and `body` of its answer as fields.
    """

    def __init__(self, errcode: str, text: str, **fields: object) -> None:
        self.errcode = errcode
        self.status = PING_STATUS[errcode]
        super().__init__(text, **fields)


class RemoteError(Exception):
    """A call to another server failed; `destination` is its name or address.

    `may_retry` tells whether the same call can succeed later: it decides about back-off and queues.
    """

    may_retry: ClassVar[bool] = True

    def __init__(self, destination: str, text: str) -> None:
        self.destination = destination
        self.text = text
        super().__init__(f"{destination}: {text}")


class RemoteUnreachable(RemoteError):
    """No address, no connection, or no valid TLS."""


class RemoteTimeout(RemoteError):
    """The call's deadline passed."""


class RemoteBackingOff(RemoteError):
    """The destination failed before and is not tried yet; nothing was sent."""


class AddressRefused(RemoteError):
    """The destination's addresses are private ones, which are not dialled."""

    may_retry = False


class RemoteInvalid(RemoteError):
    """The answer breaks the protocol: not JSON, the wrong form, too large, a bad signature."""

    may_retry = False


class RemoteRefused(RemoteError):
    """The destination answered with an error status.

    `errcode` is None when the body was no standard error; `fields` are the error's other members.
    """

    def __init__(
        self,
        destination: str,
        text: str,
        *,
        status: int,
        errcode: str | None = None,
        fields: dict[str, object] | None = None,
    ) -> None:
        self.status = status
        self.errcode = errcode
        self.fields = {} if fields is None else fields
        super().__init__(destination, f"{status} {errcode or ''} {text}")
