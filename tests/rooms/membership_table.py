"""Which membership may follow which, written out: the model for test_membership.

Matrix v1.19, schema of m.room.member ("Adjusts the membership state"), its table of transitions
([C11.05]), with the words of Client-Server API, "Room membership", for who may cause them.
"""

from __future__ import annotations

from attrs import frozen

MEMBERSHIPS = (None, "invite", "join", "knock", "leave", "ban")
JOIN_RULES = ("public", "invite", "knock", "restricted", "knock_restricted", "private", None)

INVITE, KICK, BAN = 25, 50, 60  # the levels of the rooms in the test

# Rows: from.  Columns: to.  "self": only the user; "other": only somebody with the power to;
# "both": either; "-": must never happen; "=": no change.
#
#                 invite    join      leave    ban      knock
TABLE = """
none              other     self      -        other    self
invite            =         self      both     other    -
join              -         =         both     other    -
leave             other     self      =        other    self
ban               -         -         other    =        -
knock             other     self      both     other    =
"""
# Two cells are not those of the schema.  From invite to knock the schema says "re-knocking", but
# the auth rules of every version with knocking refuse it (rooms/v7 to v12: "if the sender's current
# membership is not ban, invite, or join, allow").  From knock to join it says "must never happen",
# but the auth rules allow it wherever anybody may join, as after a change of the join rule.

TO = ("invite", "join", "leave", "ban", "knock")
CELLS: dict[tuple[str | None, str], str] = {
    (None if row.split()[0] == "none" else row.split()[0], to): cell
    for row in TABLE.strip().splitlines()
    for to, cell in zip(TO, row.split()[1:], strict=True)
}

# The room version from which on a word means something.
SINCE = {"public": 1, "invite": 1, "knock": 7, "restricted": 8, "knock_restricted": 10}


def understood(version: str, join_rule: str | None) -> bool:
    """Whether a room version knows the join rule."""
    return join_rule in SINCE and int(version) >= SINCE[join_rule]


@frozen
class Actor:
    """Somebody who tries something."""

    name: str
    level: int
    membership: str | None  # in the room


ACTORS = (
    Actor("admin", 100, "join"),
    Actor("banner", BAN, "join"),
    Actor("kicker", KICK, "join"),
    Actor("inviter", INVITE, "join"),
    Actor("plain", 0, "join"),
    Actor("former", 100, "leave"),
    Actor("guest", 100, "invite"),
    Actor("outlaw", 100, "ban"),
    Actor("stranger", 100, None),
)


@frozen
class Case:
    """What the target is, and what the room is like."""

    version: str
    join_rule: str | None  # None: there is no such event
    before: str | None
    target_level: int
    in_allowed_room: bool = False


def is_silent(case: Case) -> bool:
    """Whether the text leaves open if the target may join: invited to a room without join rules."""
    return case.join_rule is None and case.before == "invite"


def may_join(case: Case) -> bool:
    """Whether the target may join by itself."""
    if case.before == "join":
        return True  # nothing happens
    if CELLS[case.before, "join"] != "self":
        return False
    if not understood(case.version, case.join_rule):
        return False
    if case.join_rule == "public" or case.before == "invite":
        return True
    return case.join_rule in ("restricted", "knock_restricted") and case.in_allowed_room


def may_knock(case: Case) -> bool:
    """Whether the target may knock."""
    if CELLS[case.before, "knock"] == "=":
        return True  # nothing happens
    if CELLS[case.before, "knock"] != "self":
        return False
    return case.join_rule in ("knock", "knock_restricted") and understood(
        case.version, case.join_rule
    )


def may_leave(case: Case) -> bool:
    """Whether the target may leave, refuse the invitation or take back the knock."""
    return CELLS[case.before, "leave"] in ("both", "=")


def may_invite(case: Case, actor: Actor) -> bool:
    """Whether somebody else may invite the target."""
    if actor.membership != "join":
        return False
    cell = CELLS[case.before, "invite"]
    return cell == "=" or (cell == "other" and actor.level >= INVITE)


def may_kick(case: Case, actor: Actor) -> bool:
    """Whether somebody else may make the target leave ([C11.04]: only who is in the room)."""
    return (
        actor.membership == "join"
        and CELLS[case.before, "leave"] == "both"
        and actor.level >= KICK
        and actor.level > case.target_level
    )


def may_ban(case: Case, actor: Actor) -> bool:
    """Whether somebody else may ban the target."""
    return actor.membership == "join" and actor.level >= BAN and actor.level > case.target_level


def may_unban(case: Case, actor: Actor) -> bool:
    """Whether somebody else may end the target's ban: takes the power to ban and to kick."""
    return (
        actor.membership == "join"
        and case.before == "ban"
        and actor.level >= max(BAN, KICK)
        and actor.level > case.target_level
    )
