"""User-interactive authentication.

Matrix v1.19, Client-Server API, "User-Interactive Authentication API" ([C3.01] to [C3.09]).  A
session is bound to the user, the endpoint and the request body it was begun for (T097).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from attrs import define, field, frozen

from matrixbox.clock import Clock
from matrixbox.core.json import Json, encode_canonical
from matrixbox.errors import (
    AuthenticationNeeded,
    BadJson,
    Forbidden,
    MatrixError,
    ThreepidRefused,
)

LIFETIME_S = 600.0
MAX_SESSIONS = 1_000

Flow = tuple[str, ...]
Stage = Callable[[Mapping[str, Json]], Awaitable[object]]
"""Checks an answer; what it returns is handed to who asked for the authentication."""


class Refused(Forbidden):
    """A stage that the user cannot pass, however often he tries: there is nothing to try again."""


class TooEarly(ThreepidRefused):
    """A stage that will be passed once the user has done something elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__("M_THREEPID_AUTH_FAILED", text)


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
    results: dict[str, object] = field(factory=dict)
    # Answers that were too early: something has yet to happen elsewhere.
    early: dict[str, Mapping[str, Json]] = field(factory=dict)


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
    ) -> Mapping[str, object]:
        """What the stages gave, when one flow is complete.

        Raises AuthenticationNeeded with what is left.

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
        if kind is None:
            await self._look_again(session, flows, stages)
        if kind is not None and kind not in session.completed:
            if not isinstance(kind, str) or kind not in self._next(flows, session.completed):
                failure = Forbidden("That stage is not offered now.")
                raise self._needed(key, session, flows, params, failure)
            try:
                session.results[kind] = await stages[kind](auth)
            except MatrixError as error:
                if isinstance(error, TooEarly):
                    session.early[kind] = auth
                if error.status == 429 or isinstance(error, Refused):
                    raise
                raise self._needed(key, session, flows, params, error) from error
            session.completed.append(kind)
        if tuple(session.completed) not in [tuple(flow) for flow in flows]:
            raise self._needed(key, session, flows, params)
        self._sessions.pop(key, None)
        return session.results

    async def _look_again(
        self, session: _Session, flows: Sequence[Flow], stages: Mapping[str, Stage]
    ) -> None:
        """Try answers again that were too early ([C3.03])."""
        for kind, auth in [*session.early.items()]:
            if kind in self._next(flows, session.completed):
                with suppress(TooEarly):  # it still is
                    session.results[kind] = await stages[kind](auth)
                    session.completed.append(kind)
                    del session.early[kind]

    def action_of(self, key: str) -> Action:
        """What a session was begun for; raises Forbidden without such a session."""
        return self._known(key).action

    def complete(self, key: str, kind: str, result: object = None) -> None:
        """Note that a stage was passed on its fallback page."""
        session = self._known(key)
        if kind not in session.completed:
            session.completed.append(kind)
            session.results[kind] = result

    def early(self, key: str, kind: str) -> Mapping[str, Json] | None:
        """An answer to a stage that was too early."""
        return self._known(key).early.get(kind)

    def remember_early(self, key: str, kind: str, auth: Mapping[str, Json]) -> None:
        """Note an answer that will be right once something has happened elsewhere."""
        self._known(key).early[kind] = auth

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
