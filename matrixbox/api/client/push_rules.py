"""Push rules.

Matrix v1.19, Client-Server API, "Push Rules" ([C14.11] to [C14.13], T081).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve

from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.core.push_rules import (
    Change,
    InvalidRule,
    InvalidRuleId,
    Kind,
    PushRule,
    UnknownAnchor,
    parse_actions,
    parse_rule,
    place,
    ruleset_json,
)
from matrixbox.errors import BadJson, InvalidParam, MissingParam, NotFound, Unknown
from matrixbox.rooms import push_rules
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

BASE = "/_matrix/client/v3/pushrules"
RULE = f"{BASE}/global/{{kind}}/{{rule_id}}"
MAX_RULES = 500
UNKNOWN = "There is no such push rule."

OwnRules = dict[Kind, Sequence[PushRule]]
Changes = dict[tuple[Kind, str], Change]


def _kind(call: Call) -> Kind:
    try:
        return Kind(call.path["kind"])
    except ValueError as error:
        raise InvalidParam("There is no such kind of push rule.") from error


def _rule(call: Call) -> PushRule:
    rules = call.services.store.read(push_rules.rules_of, call.requester.user)
    for rule in rules[_kind(call)]:
        if rule.rule_id == call.path["rule_id"]:
            found: PushRule = rule
            return found
    raise NotFound(UNKNOWN)


@routes.get(f"{BASE}/?", auth=Auth.USER)
async def everything(call: Call) -> dict[str, Json]:
    """All rules."""
    rules = call.services.store.read(push_rules.rules_of, call.requester.user)
    return push_rules.content_of(rules)


@routes.get(f"{BASE}/global/?", auth=Auth.USER)
async def global_rules(call: Call) -> dict[str, Json]:
    """The rules of the only scope."""
    return ruleset_json(call.services.store.read(push_rules.rules_of, call.requester.user))


@routes.get(RULE, auth=Auth.USER)
async def get(call: Call) -> dict[str, Json]:
    """One rule."""
    return _rule(call).to_json(_kind(call))


@routes.get(f"{RULE}/enabled", auth=Auth.USER)
async def is_enabled(call: Call) -> dict[str, Json]:
    """Whether it is in force."""
    return {"enabled": _rule(call).enabled}


@routes.get(f"{RULE}/actions", auth=Auth.USER)
async def actions(call: Call) -> dict[str, Json]:
    """What it does."""
    return {"actions": [*_rule(call).actions]}


def _edit(tx: Tx, user: UserNid, edit: Callable[[OwnRules, Changes], None]) -> None:
    found, changes = push_rules.own_rules(tx, user)
    own: OwnRules = {kind: found.get(kind, ()) for kind in Kind}
    edit(own, changes)
    if sum(map(len, own.values())) > MAX_RULES:
        raise InvalidParam(f"A user has at most {MAX_RULES} push rules.")
    push_rules.store(tx, user, own, changes)


@routes.put(RULE, auth=Auth.USER)
async def put(call: Call) -> dict[str, Json]:
    """Add a rule of one's own, or replace it."""
    kind = _kind(call)
    body = await call.json()
    before, after = call.param("before"), call.param("after")

    def edit(own: OwnRules, changes: Changes) -> None:
        try:
            rule = parse_rule(kind, call.path["rule_id"], body)
            own[kind] = place(own[kind], rule, before=before, after=after)
        except UnknownAnchor as error:
            raise Unknown(str(error)) from error
        except InvalidRuleId as error:
            raise InvalidParam(str(error)) from error
        except InvalidRule as error:
            raise BadJson(str(error)) from error

    await call.services.store.write(_edit, call.requester.user, edit)
    return {}


@routes.delete(RULE, auth=Auth.USER)
async def delete(call: Call) -> dict[str, Json]:
    """Remove a rule of one's own."""
    kind, rule_id = _kind(call), call.path["rule_id"]

    def edit(own: OwnRules, changes: Changes) -> None:
        left = [rule for rule in own[kind] if rule.rule_id != rule_id]
        if len(left) == len(own[kind]):
            raise NotFound(UNKNOWN)
        own[kind] = left

    await call.services.store.write(_edit, call.requester.user, edit)
    return {}


def _altered(rule: PushRule, new: Change) -> PushRule:
    return evolve(
        rule,
        enabled=rule.enabled if new.enabled is None else new.enabled,
        actions=rule.actions if new.actions is None else new.actions,
    )


async def _alter(call: Call, new: Change) -> dict[str, Json]:
    """Change a rule, of one's own or a default one."""
    kind, rule = _kind(call), _rule(call)

    def edit(own: OwnRules, changes: Changes) -> None:
        if rule.default:
            old = changes.get((kind, rule.rule_id), Change())
            changes[kind, rule.rule_id] = Change(
                old.enabled if new.enabled is None else new.enabled,
                old.actions if new.actions is None else new.actions,
            )
        else:
            own[kind] = [_altered(one, new) if one == rule else one for one in own[kind]]

    await call.services.store.write(_edit, call.requester.user, edit)
    return {}


@routes.put(f"{RULE}/enabled", auth=Auth.USER)
async def enable(call: Call) -> dict[str, Json]:
    """Put it in force or out of it."""
    body: Mapping[str, Json] = await call.json()
    if "enabled" not in body:
        raise MissingParam("`enabled` is missing.")
    return await _alter(call, Change(enabled=parse.flag(body, "enabled")))


@routes.put(f"{RULE}/actions", auth=Auth.USER)
async def set_actions(call: Call) -> dict[str, Json]:
    """Change what it does."""
    body = await call.json()
    if "actions" not in body:
        raise MissingParam("`actions` is missing.")
    try:
        wanted = parse_actions(body["actions"])
    except InvalidRule as error:
        raise BadJson(str(error)) from error
    return await _alter(call, Change(actions=wanted))
