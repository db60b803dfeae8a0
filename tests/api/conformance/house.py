"""A household on a running server: its users, what they ask, and what they are answered.

Every answer passes the checks that need no data (headers, the form of errors), and those against
the official descriptions where they are at hand.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from attrs import define, field, frozen

from tests.api.conformance.errors import error_problems, header_problems
from tests.api.conformance.openapi.checking import Checker
from tests.api.conformance.server import SERVER_NAME, Server
from tests.api.conformance.wire import NO_BODY, Answer, Connection, path_of

UNSTABLE = "/_matrix/client/unstable/"  # no description covers what is below
CLIENT = "/_matrix/client"
SECRET = "for the tests"
PASSWORD = "correct horse battery staple"


@define(eq=False)
class House:
    """The server and who lives on it."""

    server: Server
    checker: Checker | None
    connection: Connection
    _numbers: count[int] = field(factory=lambda: count(1))

    def ask(
        self,
        method: str,
        path: str,
        *values: str,
        body: Any = NO_BODY,
        token: str | None = None,
        is_good: bool = False,
        described: bool = True,
        **more: Any,
    ) -> Answer:
        """Ask, and check the answer; `values` go encoded into the `{}` of the path.

        With `is_good` the request is checked too; answers that the descriptions leave open are not
        `described`.
        """
        raw_path = path_of(CLIENT + path if path.startswith(("/v1/", "/v3/")) else path, *values)
        answer = self.connection.ask(method, raw_path, body, token=token, **more)
        if self.checker is not None and described and UNSTABLE not in raw_path:
            self.checker.check(answer, request_too=is_good)
        else:
            problems = header_problems(answer)
            problems += error_problems(answer) if answer.status >= 400 else []
            assert not problems, f"{answer}: {problems}"
        return answer

    def good(self, method: str, path: str, *values: str, **more: Any) -> Any:
        """Ask for something that is right in every way; the answer's body."""
        answer = self.ask(method, path, *values, is_good=True, **more)
        assert answer.status == 200, answer
        return answer.json

    def bad(
        self, status: int, errcode: str, method: str, path: str, *values: str, **more: Any
    ) -> Any:
        """Ask for something that must be refused with this status and code; the answer's body."""
        answer = self.ask(method, path, *values, **more)
        assert (answer.status, answer.errcode) == (status, errcode), answer
        return answer.json

    def name(self, stem: str) -> str:
        """A localpart that nobody has."""
        return f"{stem}{next(self._numbers)}"

    def user(self, stem: str = "user") -> User:
        """A new account, and its first session."""
        body = {
            "username": self.name(stem),
            "password": PASSWORD,
            "auth": {"type": "m.login.dummy"},
        }
        return User.of(self, self.good("POST", "/v3/register", body=body))

    def user_by_secret(self, stem: str = "user") -> User:
        """A new account where people cannot register themselves."""
        path = "/_synapse/admin/v1/register"
        nonce = self.ask("GET", path, described=False).json["nonce"]
        parts = [nonce, self.name(stem), PASSWORD, "notadmin"]
        mac = hmac.new(SECRET.encode(), "\0".join(parts).encode(), "sha1").hexdigest()
        body = dict(zip(("nonce", "username", "password"), parts, strict=False))
        answer = self.ask("POST", path, body={**body, "mac": mac}, described=False)
        assert answer.status == 200, answer
        return User.of(self, answer.json)

    def login(self, user: User) -> User:
        """Another session of a user."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user.user_id},
            "password": PASSWORD,
        }
        return User.of(self, self.good("POST", "/v3/login", body=body))


@frozen
class User:
    """Somebody with a session."""

    house: House
    user_id: str
    token: str
    device_id: str

    @classmethod
    def of(cls, house: House, signed_in: Mapping[str, Any]) -> User:
        """The user of a successful registration or login."""
        return cls(house, *(signed_in[key] for key in ("user_id", "access_token", "device_id")))

    @property
    def localpart(self) -> str:
        """The user's name without the server's."""
        return self.user_id[1:].partition(":")[0]

    def ask(self, *arguments: Any, **more: Any) -> Answer:
        """As House.ask, with the user's token."""
        return self.house.ask(*arguments, token=self.token, **more)

    def good(self, *arguments: Any, **more: Any) -> Any:
        """As House.good, with the user's token."""
        return self.house.good(*arguments, token=self.token, **more)

    def bad(self, *arguments: Any, **more: Any) -> Any:
        """As House.bad, with the user's token."""
        return self.house.bad(*arguments, token=self.token, **more)

    def room(self, **body: Any) -> str:
        """Make a room; its id."""
        return str(self.good("POST", "/v3/createRoom", body=body)["room_id"])

    def alias(self, stem: str = "place") -> str:
        """The localpart and server of an alias that nobody has."""
        return f"#{self.house.name(stem)}:{SERVER_NAME}"

    def send(self, room: str, kind: str, content: Mapping[str, Any]) -> str:
        """Send an event that is not state; its id."""
        txn_id = self.house.name("txn")
        sent = self.good("PUT", "/v3/rooms/{}/send/{}/{}", room, kind, txn_id, body=content)
        return str(sent["event_id"])

    def say(self, room: str, text: str = "hello", **more: Any) -> str:
        """Send a text; the event's id."""
        return self.send(room, "m.room.message", {"msgtype": "m.text", "body": text, **more})

    def put_state(
        self, room: str, kind: str, content: Mapping[str, Any], state_key: str = ""
    ) -> str:
        """Set state; the event's id."""
        path = "/v3/rooms/{}/state/{}/{}"
        return str(self.good("PUT", path, room, kind, state_key, body=content)["event_id"])

    def state(self, room: str, kind: str, state_key: str = "") -> Any:
        """Read the content of an entry of the state."""
        return self.good("GET", "/v3/rooms/{}/state/{}/{}", room, kind, state_key)

    def join(self, room: str) -> None:
        """Join a room."""
        assert self.good("POST", "/v3/rooms/{}/join", room, body={}) == {"room_id": room}

    def leave(self, room: str) -> None:
        """Leave a room."""
        assert self.good("POST", "/v3/rooms/{}/leave", room, body={}) == {}

    def upon(self, room: str, what: str, other: User, **more: Any) -> None:
        """Invite, kick, ban or unban somebody."""
        body = {"user_id": other.user_id, **more}
        assert self.good("POST", f"/v3/rooms/{{}}/{what}", room, body=body) == {}

    def sync(self, since: str | None = None, **query: str) -> Any:
        """Sync; without a timeout unless it is given."""
        if since is not None:
            query["since"] = since
        return self.good("GET", "/v3/sync", query=query)

    def with_password(self, method: str, path: str, *values: str, body: Any, **more: Any) -> Any:
        """Ask for what needs the password again: first without it, then with it ([C3.01])."""
        first = self.ask(method, path, *values, body=body, is_good=True)
        assert first.status == 401, first
        auth = self.password_stage(first.json["session"])
        return self.good(method, path, *values, body={**body, "auth": auth}, **more)

    def password_stage(self, session: str, password: str = PASSWORD) -> dict[str, Any]:
        """What stands in `auth` for the stage of the password."""
        identifier = {"type": "m.id.user", "user": self.user_id}
        return {
            "type": "m.login.password",
            "identifier": identifier,
            "password": password,
            "session": session,
        }


def eventually(look: Callable[[], bool], within_s: float = 5) -> None:
    """Look until it is so; for what another connection does."""
    until = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.02)
