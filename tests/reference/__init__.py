"""A second, deliberately naive transcription of the room rules, from the text alone.

Matrix v1.19: rooms/v1 to rooms/v12 and Server-Server API, "Auth events selection".

It shares nothing with `matrixbox.core` but the specification: events are plain dicts
(`event_id type sender state_key? content auth_events prev_events origin_server_ts depth
room_id redacts? signatures`, ids without hashes in every room version), auth chains are
computed by walking, and every room version is the one before it with the sentences that its
page changes.  Obvious matters here and fast does not.

Where the text is silent or can be read in two ways, this transcription takes:

R1   A user without a member event in the state has the membership "leave".
R2   Without `m.room.join_rules`, or without `content.join_rule` in it, the rule is "invite".
R3   `m.room.power_levels` without `users` is well-formed (the schema does not require it).
R4   A level that is absent has no "current value": adding one only compares the new value.
R5   Two spellings of one integer (`"050"`, 50) are the same level, so nothing "changed".
R6   A level in force that cannot be read (old room versions validate only `users`) satisfies
     no rule that needs it: the event is rejected.  In the power order it counts as 0.
R7   State without `m.room.create` allows nothing but a create event.
R8   A conflict of room version 1 is per (type, state key); within one pass every conflict
     starts from the state that the passes before it gave.
R9   If no event of a conflict passes in the last pass of room version 1, the one with the
     lowest depth (then the highest sha1) is taken: the text does not say, and leaving the key
     out would lose state that no state set contested.
R10  Reverse topological order: the edges are the `auth_events` between events of the set.
R11  The iterative auth checks do not repeat the rules about `auth_events` themselves
     ("auth events aren't re-authed").
R12  "A key that is required for checking" is a key that the auth events selection names.
R13  In the power order a create event counts as 0: it has no auth events to say otherwise.
R14  A user id is valid by the historical grammar, server name included, up to 255 bytes.
R15  Redaction from room version 11 on leaves an object `third_party_invite` in place, empty if
     it has no `signed`.
R16  "The only previous event" is the only entry of `prev_events`.
"""

from __future__ import annotations

from tests.reference.versions import ROOM_VERSIONS, RoomVersion

__all__ = ["ROOM_VERSIONS", "RoomVersion"]
