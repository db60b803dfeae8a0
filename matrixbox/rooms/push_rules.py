"""Each user's push rules: where they are kept, and ready for evaluation.

Matrix v1.19, Client-Server API, "Push Rules" ([C14.11] to [C14.13]).  They are kept in the form
that clients see, as the account data ``m.push_rules``; who changed nothing has no entry.  The rules
about threads come in when the user follows the first one (MSC4306): who has only clients that know
nothing of it goes on hearing of all threads.
"""

from __future__ import annotations

from collections.abc import Mapping

from matrixbox.core.identifiers import UserId
from matrixbox.core.json import Json, decode_stored, encode
from matrixbox.core.push_evaluation import CompiledRules, compile_rules
from matrixbox.core.push_rules import (
    Change,
    Kind,
    PushRule,
    Ruleset,
    default_rules,
    ruleset,
    ruleset_json,
)
from matrixbox.store import account_data, names
from matrixbox.store.account_data import GLOBAL, Entry
from matrixbox.store.caches import Caches
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

TYPE = "m.push_rules"


def rules_of(tx: Tx, user: UserNid) -> Ruleset:
    """All rules of a user, in order."""
    user_id = names.user_id(tx, user)
    stored = account_data.get(tx, user, GLOBAL, TYPE)
    if stored is None:
        return ruleset(user_id, {})
    content = decode_stored(stored)
    own, changes = _read(user_id, content)
    return ruleset(user_id, own, changes, threads=_knows_threads(content))


def own_rules(tx: Tx, user: UserNid) -> tuple[Ruleset, dict[tuple[Kind, str], Change]]:
    """The user's own rules, and what the user changed about the default ones."""
    stored = account_data.get(tx, user, GLOBAL, TYPE)
    return ({}, {}) if stored is None else _read(names.user_id(tx, user), decode_stored(stored))


def _read(user_id: UserId, content: Json) -> tuple[Ruleset, dict[tuple[Kind, str], Change]]:
    """The inverse of :func:`content_of`."""
    assert isinstance(content, Mapping)
    shown = content["global"]
    assert isinstance(shown, Mapping)
    own: dict[Kind, list[PushRule]] = {kind: [] for kind in Kind}
    changes: dict[tuple[Kind, str], Change] = {}
    for kind, defaults in default_rules(user_id, threads=True).items():
        known = {rule.rule_id: rule for rule in defaults}
        listed = shown.get(kind.value, [])
        assert isinstance(listed, list)
        for entry in listed:
            rule = _rule(entry)
            default = known.get(rule.rule_id)
            if default is None:
                if not rule.default:  # a default rule of an older release is gone
                    own[kind].append(rule)
            elif (rule.enabled, rule.actions) != (default.enabled, default.actions):
                changes[kind, rule.rule_id] = Change(rule.enabled, rule.actions)
    return own, changes


def _knows_threads(content: Json) -> bool:
    """Whether the rules about threads are among stored ones."""
    assert isinstance(content, Mapping)
    shown = content["global"]
    assert isinstance(shown, Mapping)
    return bool(shown.get(Kind.POSTCONTENT.value))


def begin_threads(tx: Tx, user: UserNid) -> None:
    """From now on the rules about threads are in force for a user, if they are not yet."""
    stored = account_data.get(tx, user, GLOBAL, TYPE)
    if stored is None or not _knows_threads(decode_stored(stored)):
        own, changes = own_rules(tx, user)
        store(tx, user, own, changes, threads=True)


def _rule(entry: Mapping[str, Json]) -> PushRule:
    conditions, pattern, actions = (entry.get(k) for k in ("conditions", "pattern", "actions"))
    return PushRule(
        rule_id=str(entry["rule_id"]),
        actions=tuple(actions) if isinstance(actions, list) else (),
        conditions=tuple(conditions) if isinstance(conditions, list) else (),
        pattern=pattern if isinstance(pattern, str) else None,
        default=entry.get("default") is True,
        enabled=entry.get("enabled") is not False,
    )


def content_of(rules: Ruleset) -> dict[str, Json]:
    """The content of the account data."""
    return {"global": ruleset_json(rules)}


def store(
    tx: Tx,
    user: UserNid,
    own: Ruleset,
    changes: Mapping[tuple[Kind, str], Change],
    *,
    threads: bool = False,
) -> None:
    """Keep a user's rules; clients are told through sync.  Rules about threads stay."""
    stored = account_data.get(tx, user, GLOBAL, TYPE)
    threads = threads or (stored is not None and _knows_threads(decode_stored(stored)))
    content = encode(content_of(ruleset(names.user_id(tx, user), own, changes, threads=threads)))
    account_data.put(tx, user, Entry(GLOBAL, TYPE, content, tx.position()))
    tx.changed(users=(user,))
    tx.caches.push_rules.drop(user)
    tx.after_commit(_forget, tx.caches, user)


def _forget(caches: Caches, user: UserNid) -> None:
    caches.push_rules.drop(user)
    caches.customised = None


def compiled(tx: Tx, user: UserNid) -> CompiledRules:
    """A user's rules, ready for evaluation."""
    found = tx.caches.push_rules.get(user)
    if found is None:
        found = compile_rules(names.user_id(tx, user), rules_of(tx, user))
        tx.caches.push_rules.put(user, found)
    return found


def customised(tx: Tx) -> frozenset[UserNid]:
    """The users whose rules differ from the default ones."""
    if tx.writable or tx.caches.customised is None:
        found = frozenset(account_data.users_with(tx, TYPE))
        if tx.writable:
            return found
        tx.caches.customised = found
    return tx.caches.customised
