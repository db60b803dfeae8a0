"""Tokens by which a user proves to some service who they are, and which are good for nothing else.

Matrix v1.19, Client-Server API, "OpenID" ([C18.02], [B13.06]).
"""

from __future__ import annotations

import secrets

from matrixbox.accounts.hashing import hash_token
from matrixbox.core.identifiers import UserId
from matrixbox.errors import UnknownToken
from matrixbox.store import accounts, openid_tokens
from matrixbox.store.accounts import AccountState
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

LIFETIME_S = 3_600
MAX_TOKENS = 100  # of one user; the oldest goes


def new_token(tx: Tx, user: UserNid, now_ms: int) -> str:
    """A token for an hour."""
    token = f"mbo_{secrets.token_urlsafe(32)}"
    openid_tokens.prune(tx, user, now_ms, MAX_TOKENS - 1)
    openid_tokens.add(tx, hash_token(token), user, now_ms + LIFETIME_S * 1000)
    return token


def user_of(tx: Tx, token: str, now_ms: int) -> UserId:
    """Whom a token stands for; raises UnknownToken."""
    user = openid_tokens.user(tx, hash_token(token), now_ms)
    account = None if user is None else accounts.get(tx, user)
    if account is None or account.state is not AccountState.ACTIVE:
        raise UnknownToken
    return account.user_id
