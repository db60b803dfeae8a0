"""Who calls: the access token of a request, and the session behind it.

Matrix v1.19, Client-Server API, "Using access tokens" ([C1.05], [C1.06], T101).
"""

from __future__ import annotations

import trio
from attrs import define, field

from matrixbox.accounts import refreshing, sessions
from matrixbox.api import moderation
from matrixbox.api.call import Call
from matrixbox.clock import Clock
from matrixbox.errors import GuestAccessForbidden, MissingToken
from matrixbox.store import accounts
from matrixbox.store.caches import Session
from matrixbox.store.database import Store
from matrixbox.store.nids import DeviceNid
from matrixbox.store.transaction import Tx

SEEN_EVERY_MS = 10 * 60 * 1000


def token_of(call: Call) -> str | None:
    """The token: from the header, or from the query, as the specification still asks."""
    header = call.header("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
    return call.param("access_token")


@define(eq=False)
class Authenticator:
    """Finds the session of a request, and remembers when devices called."""

    store: Store
    clock: Clock
    seen: dict[DeviceNid, tuple[int, str]] = field(factory=dict)  # not yet stored: ms, address
    _noted_ms: dict[DeviceNid, int] = field(factory=dict)
    _used: dict[bytes, DeviceNid] = field(factory=dict)  # pairs of tokens, for the first time
    _news: trio.Event = field(factory=trio.Event)

    def user(self, call: Call) -> Session:
        """The caller, who must have a session.  Raises MissingToken, UnknownToken."""
        token = token_of(call)
        if not token:
            raise MissingToken
        session = self.store.read(sessions.authenticate, token, self.clock.now_ms())
        if session.guest and not call.route.guest_ok:
            raise GuestAccessForbidden("Guests may not do that.")
        if session.locked or session.suspended:
            moderation.require_allowed(session, call.route, call.path)
        if session.unsettled is not None:
            self._used[session.unsettled] = session.device
            self._news.set()
        call.spender = session.user_id
        self._note(session, call.address)
        return session

    def optional(self, call: Call) -> Session | None:
        """The caller, or None for one who shows no token."""
        return self.user(call) if token_of(call) else None

    def _note(self, session: Session, address: str) -> None:
        now = self.clock.now_ms()
        if abs(now - self._noted_ms.get(session.device, 0)) >= SEEN_EVERY_MS:
            self._noted_ms[session.device] = now
            self.seen[session.device] = (now, address)

    async def run(self) -> None:
        """Note which pairs of tokens are in use: those before them are over (T100)."""
        while True:
            await self._news.wait()
            used, self._used, self._news = self._used, {}, trio.Event()
            await self.store.write(refreshing.settle, [*used.items()], self.clock.now_ms())

    async def store_seen(self) -> None:
        """Write down when devices called."""
        if self.seen:
            seen, self.seen = self.seen, {}
            await self.store.write(_store_seen, seen)


def _store_seen(tx: Tx, seen: dict[DeviceNid, tuple[int, str]]) -> None:
    for device, (ms, address) in seen.items():
        accounts.device_seen(tx, device, ms, address)
