"""Leaving and knocking through other servers, and inviting their users.

Matrix v1.19, Server-Server API, "Leaving Rooms", "Knocking upon a room", "Inviting to a room"
([B9.01] to [B9.11]; T030, T031).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, TypeVarTuple, Unpack

import trio
from attrs import define

from matrixbox.core.events import Event, MalformedEvent
from matrixbox.core.identifiers import RoomId, ServerName, UserId, server_of
from matrixbox.core.json import Json
from matrixbox.core.redaction import redact
from matrixbox.errors import (
    IncompatibleRoomVersion,
    MatrixError,
    RemoteError,
    RemoteInvalid,
    RemoteRefused,
    UnsupportedRoomVersion,
)
from matrixbox.federation import failing, templates
from matrixbox.federation.client import MAKE_LIMITS, FederationClient, target
from matrixbox.federation.joins import Joins, Wanted
from matrixbox.federation.keyring import Keyring
from matrixbox.federation.owed_joins import OwedJoins
from matrixbox.federation.templates import Change
from matrixbox.observe import log
from matrixbox.rooms import handshake, membership, outside, receipt, residence, resolution
from matrixbox.rooms.env import Env
from matrixbox.rooms.membership import Invitation
from matrixbox.rooms.outside import Notice
from matrixbox.rooms.receipt import Checked
from matrixbox.rooms.remote import Signed
from matrixbox.store.caches import Session, StoredEvent
from matrixbox.store.database import Store
from matrixbox.store.nids import RoomNid
from matrixbox.store.transaction import Tx

LEAVE_S = 30.0  # for all servers together; then the leave is true here alone
OLD_VERSIONS = ("1", "2")  # that servers take invitations in by the first version of the endpoint

T = TypeVar("T")
Args = TypeVarTuple("Args")


@define(eq=False)
class Memberships:
    """Changes of memberships for which other servers are needed, joins apart."""

    store: Store
    env: Env
    client: FederationClient
    keyring: Keyring
    joins: Joins
    owed_joins: OwedJoins

    # --- leaving

    async def leave(self, who: Session, room_id: RoomId, content: Mapping[str, Json]) -> bool:
        """Refuse an invitation, or take a knock back, in a room that this server is not in.

        Or give up a join that did not come to its end.  False when there is nothing of that kind.
        The user is rid of it in any case ([B9.11]).
        """
        had_joined = await self.owed_joins.give_up(room_id, who.user)
        room = self.store.read(outside.is_outside, self.env, who, room_id)
        if room is None:
            return had_joined
        change = Change(room_id, who.user_id, "leave", content)
        asked = self.joins.candidates(Wanted(who, room_id))
        taken: list[Event] = []

        async def attempt(server: ServerName) -> None:
            taken.append(await self.joins.leave(server, change))

        try:
            with trio.move_on_after(LEAVE_S):
                await failing.in_turn(room_id, asked, attempt)
        except MatrixError as error:
            log.info("nobody heard that a user left", room=room_id, reason=error.text)
        await self._write(outside.put_left, room, who.user, taken[0] if taken else None)
        return True

    # --- knocking

    async def knock(self, wanted: Wanted) -> None:
        """Knock upon a room, here or elsewhere.  Raises MatrixError."""
        room = self.store.read(residence.resident_room, self.env, wanted.room_id)
        if room is not None:
            await self._write(membership.knock, wanted.who, room, wanted.content)
            return
        profile = self.store.read(membership.profile_content, wanted.who.user)
        content = {**profile, **wanted.content}
        change = Change(wanted.room_id, wanted.who.user_id, "knock", content)
        asked = self.joins.candidates(wanted)

        async def attempt(server: ServerName) -> None:
            await self._knock(server, change, wanted)

        await failing.in_turn(wanted.room_id, asked, attempt)

    async def _knock(self, server: ServerName, change: Change, wanted: Wanted) -> None:
        event = (await self.joins.template(server, change)).event
        uri = target("v1", "send_knock", event.room_id, event.event_id)
        answer = await self.client.put_json(
            server, uri, dict(event.json), limits=MAKE_LIMITS, ignore_backoff=True
        )
        shown = answer.get("knock_room_state")
        kept = await self._genuine(event, shown if isinstance(shown, list) else [])
        others = [name for name in wanted.via if name != server]
        notice = Notice(event.rules, event, kept, [server, *others])
        await self._write(outside.put, notice, wanted.who.user)

    async def _genuine(self, event: Event, shown: list[Json]) -> list[Json]:
        """The entries that are signed events of the room ([B9.01]); stripped ones of old servers
        are believed, like those of invitations."""
        entries = shown[: outside.MAX_SHOWN]
        pdus = [one for one in entries if isinstance(one, dict) and "signatures" in one]
        plain: list[Json] = [
            one for one in entries if isinstance(one, dict) and "signatures" not in one
        ]
        checked = await receipt.check(self.keyring, event.rules, event.room_id, pdus)
        return [*plain, *(one.event.json for one in checked if isinstance(one, Checked))]

    # --- inviting

    async def invite(
        self, who: Session, room: RoomNid, invited: UserId, content: Mapping[str, Json]
    ) -> StoredEvent | None:
        """Invite a user of another server; None when an invitation stands already ([B9.10])."""
        proposed = await self._write(membership.propose_invite, who, room, invited, content)
        if proposed is None:
            return None
        return await self.deliver(proposed, server_of(invited))

    async def deliver(self, proposed: Invitation, server: ServerName) -> StoredEvent:
        """Have an invitation signed by the invited user's server, then let it into the room."""
        try:
            signed = await self._signed(proposed, server)
        except RemoteError as error:
            failure = failing.for_client(error)
            if isinstance(failure, IncompatibleRoomVersion):
                raise UnsupportedRoomVersion(
                    "That user's server does not know the version of this room."
                ) from error
            raise failure from error
        return await self._write(handshake.take_invitation, signed)

    async def _signed(self, proposed: Invitation, server: ServerName) -> Event:
        event = proposed.event
        answer = await self._hand_over(proposed, server)
        found = answer.get("event")
        if not isinstance(found, Mapping):
            raise RemoteInvalid(server, "its answer to an invitation has no event")
        try:
            signed = templates.with_signatures_of(event, found, self.env.server_name)
        except MalformedEvent as error:
            raise RemoteInvalid(server, "its signatures do not fit into an event") from error
        pruned = redact(event.rules, signed.json)
        verdict = await self.keyring.verify_json(server, pruned, event.origin_server_ts)
        if verdict is not Signed.VALID:
            raise RemoteInvalid(server, "it has not signed the invitation")
        return signed

    async def _hand_over(self, proposed: Invitation, server: ServerName) -> Mapping[str, Json]:
        """By the second version of the endpoint, or for old rooms by the first ([B9.04])."""
        event = proposed.event
        version = event.rules.version
        path = (event.room_id, event.event_id)
        body: dict[str, Json] = {
            "room_version": version,
            "event": event.json,
            "invite_room_state": [*proposed.shown],
        }
        try:
            return await self.client.put_json(
                server, target("v2", "invite", *path), body, limits=MAKE_LIMITS
            )
        except RemoteRefused as error:
            if version not in OLD_VERSIONS or error.status not in (400, 404):
                raise
        old: dict[str, Json] = {
            **event.json,
            "unsigned": {"invite_room_state": [*proposed.shown]},
        }
        pair = await self.client.put_any(
            server, target("v1", "invite", *path), old, limits=MAKE_LIMITS
        )
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], Mapping):
            return pair[1]
        raise RemoteInvalid(server, "its answer to an invitation is no pair")

    async def _write(self, function: Callable[[Tx, Env, Unpack[Args]], T], *args: *Args) -> T:
        return await resolution.write(self.store, function, self.env, *args)
