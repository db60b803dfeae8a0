"""User-interactive authentication.

Matrix v1.19, Client-Server API, "User-Interactive Authentication API" ([C3.01] to [C3.09]).  A
session is bound to the user, the endpoint and the request body it was begun for (T097).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import define, field, frozen

from matrixbox.clock import Clock
from matrixbox.core.json import Json, encode_canonical
from matrixbox.errors import AuthenticationNeeded, BadJson, Forbidden, MatrixError

LIFETIME_S = 600.0
MAX_SESSIONS = 1_000

Flow = tuple[str, ...]
Stage = Callable[[Mapping[str, Json]], Awaitable[None]]


class Refused(Forbidden):
    """A stage that the user cannot pass, however often he tries: there is nothing to try again."""


@frozen
class Action:
    """What somebody wants to do: a session allows this and nothing else."""

    user: str  # "" before there is one
    endpoint: str
    body_hash: bytes

    @classmethod
    def of(cls, user: str, endpoint: str, body: Mapping[str, Json]) -> Action:
        """The action of a request; ``auth`` is not part of it."""
        rest = {key: value for key, value in body.items() if key != "auth"}
        return cls(user, endpoint, hashlib.sha256(encode_canonical(rest)).digest())


@define(eq=False)
class _Session:
    action: Action
    until_s: float
    completed: list[str] = field(factory=list)


@define(eq=False)
class Uia:
    """The sessions in progress, in memory; the oldest gives way when there are too many."""

    clock: Clock
    _sessions: dict[str, _Session] = field(factory=dict)

    async def require(
        self,
        action: Action,
        auth: Json,
        flows: Sequence[Flow],
        stages: Mapping[str, Stage],
        params: Mapping[str, Json] | None = None,
    ) -> None:
        """Return when one flow is complete; else raise AuthenticationNeeded with what is left.

        ``stages`` hold a check for each type, which raises MatrixError when it fails, and Refused
        where that ends the matter.
        The first request may bring an answer already: many clients know the only stage there is.
        """
        if auth is None:
            raise self._needed(*self._begin(action), flows, params)
        if not isinstance(auth, Mapping):
            raise BadJson("`auth` is an object.")
        kind = auth.get("type")
        key, session = self._resume(action, auth.get("session"))
        if kind is not None and kind not in session.completed:
            if not isinstance(kind, str) or kind not in self._next(flows, session.completed):
                failure = Forbidden("That stage is not offered now.")
                raise self._needed(key, session, flows, params, failure)
            try:
                await stages[kind](auth)
            except MatrixError as error:
                if error.status == 429 or isinstance(error, Refused):
                    raise
                raise self._needed(key, session, flows, params, error) from error
            session.completed.append(kind)
        if tuple(session.completed) not in [tuple(flow) for flow in flows]:
            raise self._needed(key, session, flows, params)
        self._sessions.pop(key, None)

    def action_of(self, key: str) -> Action:
        """What a session was begun for; raises Forbidden without such a session."""
        return self._known(key).action

    def complete(self, key: str, kind: str) -> None:
        """Note that a stage was passed on its fallback page."""
        session = self._known(key)
        if kind not in session.completed:
            session.completed.append(kind)

    def _known(self, key: Json) -> _Session:
        session = self._sessions.get(key) if isinstance(key, str) else None
        if session is None or session.until_s <= self.clock.monotonic_s():
            raise Forbidden("That session is unknown or has expired; begin again.")
        return session

    def _next(self, flows: Sequence[Flow], completed: Sequence[str]) -> set[str]:
        done = len(completed)
        return {
            flow[done]
            for flow in flows
            if len(flow) > done and list(flow[:done]) == list(completed)
        }

    def _begin(self, action: Action) -> tuple[str, _Session]:
        now = self.clock.monotonic_s()
        expired = [key for key, session in self._sessions.items() if session.until_s <= now]
        for key in expired:
            del self._sessions[key]
        if len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        key = secrets.token_urlsafe(18)
        self._sessions[key] = _Session(action, now + LIFETIME_S)
        return key, self._sessions[key]

    def _resume(self, action: Action, key: Json) -> tuple[str, _Session]:
        if key is None:
            return self._begin(action)
        session = self._known(key)
        if session.action != action:
            raise Forbidden("That session was begun for another request.")
        assert isinstance(key, str)
        return key, session

    def _needed(
        self,
        key: str,
        session: _Session,
        flows: Sequence[Flow],
        params: Mapping[str, Json] | None,
        failure: MatrixError | None = None,
    ) -> AuthenticationNeeded:
        fields: dict[str, object] = {
            "flows": [{"stages": list(flow)} for flow in flows],
            "params": dict(params or {}),
            "session": key,
        }
        if session.completed:
            fields["completed"] = list(session.completed)
        return AuthenticationNeeded(failure=failure, **fields)
