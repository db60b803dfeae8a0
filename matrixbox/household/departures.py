"""When somebody leaves the household: the account ends, and leaves its rooms.

Matrix v1.19, Client-Server API, "Account deactivation" ([C4.09]).  Erasing what the user has said
is left to its issue.
"""

from __future__ import annotations

import contextlib

from matrixbox.accounts import sessions
from matrixbox.core.identifiers import DeviceId
from matrixbox.errors import Forbidden
from matrixbox.rooms import membership
from matrixbox.rooms.env import Env
from matrixbox.store import account_data, accounts, key_backup, keys, members
from matrixbox.store.accounts import Account, AccountState
from matrixbox.store.caches import Session
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import DeviceNid
from matrixbox.store.transaction import Tx

IN_ROOM = (Membership.JOIN, Membership.INVITE, Membership.KNOCK)


def close_account(tx: Tx, env: Env, account: Account) -> None:
    """End an account for good: no session, no password, in no room; the name stays taken."""
    who = Session(
        account.user,
        account.user_id,
        DeviceNid(0),
        DeviceId(""),
        account.admin,
        account.guest,
        deactivated=False,
    )
    for member in members.rooms_of(tx, account.user):
        if member.membership in IN_ROOM:
            # A room whose rules forbid even leaving keeps a member that is nobody any more.
            with contextlib.suppress(Forbidden):
                membership.leave(tx, env, who, member.room)
    for key in account_data.profile(tx, account.user):
        account_data.remove_profile_field(tx, account.user, key)
    accounts.set_password(tx, account.user, None)
    accounts.set_state(tx, account.user, AccountState.DEACTIVATED)
    sessions.log_out_everywhere(tx, account.user)
    keys.forget_user(tx, account.user)
    key_backup.forget_user(tx, account.user)
