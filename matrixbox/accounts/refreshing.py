"""Access tokens that expire, and the refresh tokens that replace them.

Matrix v1.19, Client-Server API, "Refreshing access tokens" ([C2.04], [C2.07], [C2.08], T100).

Of each session there is one pair in use, and perhaps later pairs that were given out and not seen
since: their answers may have been lost.  With the first use of one of these, by either of its
tokens, all others are over.  A refresh token that is over and shows up again was stolen, or its
thief was faster: the session ends, for both.
"""

from __future__ import annotations

import secrets

from attrs import frozen

from matrixbox.accounts.hashing import hash_token, new_token
from matrixbox.errors import UnknownToken, UserLocked
from matrixbox.observe import log
from matrixbox.store import accounts, refresh_tokens
from matrixbox.store.accounts import AccountState
from matrixbox.store.database import Store
from matrixbox.store.nids import DeviceNid, UserNid
from matrixbox.store.refresh_tokens import Use
from matrixbox.store.transaction import Tx

ACCESS_MS = 3_600_000
MAX_UNUSED = 5  # pairs of one session that were given out and not seen since
KEPT_EXPIRED_MS = 7 * 24 * 3_600_000
KEPT_RETIRED_MS = 60 * 24 * 3_600_000


@frozen
class Pair:
    """An access token, and what replaces it when it has expired."""

    access_token: str
    refresh_token: str
    expires_in_ms: int = ACCESS_MS


def new_pair(tx: Tx, device: DeviceNid, user: UserNid, now_ms: int) -> Pair:
    """Give out a pair of tokens."""
    pair = Pair(new_token(), f"mbr_{secrets.token_urlsafe(32)}")
    hashed = hash_token(pair.refresh_token)
    refresh_tokens.add(tx, hashed, device, user, now_ms)
    access = hash_token(pair.access_token)
    accounts.add_token(tx, access, device, user, now_ms + ACCESS_MS, hashed)
    return pair


async def refresh(store: Store, token: str, now_ms: int) -> Pair:
    """A new pair for a refresh token.  Raises UnknownToken, UserLocked.

    Where the session has ended because a token was used twice, the device stays: who knows the
    password signs in to it again ("soft logout").
    """
    found = await store.write(_refresh, token, now_ms)
    if found is None:
        raise UnknownToken("This session has ended: its refresh token was used", soft_logout=True)
    return found


def _refresh(tx: Tx, token: str, now_ms: int) -> Pair | None:
    hashed = hash_token(token)
    known = refresh_tokens.find(tx, hashed)
    account = None if known is None else accounts.get(tx, known.user)
    if known is None or account is None or account.state is AccountState.DEACTIVATED:
        raise UnknownToken("Unknown refresh token")
    if account.locked:
        raise UserLocked
    if known.state is Use.RETIRED:
        refresh_tokens.end(tx, known.device, now_ms)
        tx.changed(users=(known.user,))
        tx.after_commit(_tell_reuse, account.user_id, known.device)
        return None
    if known.state is Use.UNUSED:
        refresh_tokens.settle(tx, hashed, known.device, now_ms)
    refresh_tokens.prune(
        tx, known.device, MAX_UNUSED - 1, now_ms - KEPT_EXPIRED_MS, now_ms - KEPT_RETIRED_MS
    )
    return new_pair(tx, known.device, known.user, now_ms)


def _tell_reuse(user_id: str, device: int) -> None:
    log.warning("refresh token used again: session ended", user_id=user_id, device=device)


def settle(tx: Tx, tokens: list[tuple[bytes, DeviceNid]], now_ms: int) -> None:
    """Access tokens were used for the first time: their pairs are the ones in use."""
    for hashed, device in tokens:
        known = refresh_tokens.find(tx, hashed)
        if known is not None and known.state is Use.UNUSED:
            refresh_tokens.settle(tx, hashed, device, now_ms)
