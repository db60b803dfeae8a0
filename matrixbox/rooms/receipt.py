"""The checks on receipt of a PDU that need nothing but the PDU: steps 1, 2 and 3.

Matrix v1.19, Server-Server API, "Checks performed on receipt of a PDU", "Validating hashes and
signatures on received events" ([B6.01] to [B6.03], [A4.04], [A4.07]).  This is the only place
where what a server sent becomes an event (T043):

1. it has the format of its room version, else it is dropped;
2. it bears the signatures that are asked for, else it is dropped; where keys cannot be had nothing
   is concluded, and it is asked again later;
3. its content matches its hash, else only what redaction leaves is taken, and marked as that.

Steps 4 to 6 are in ``checks``, step 7 in ``policy``.  No verdict of these three is remembered by
an event's name: somebody's spoiled copy says nothing about the event itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from matrixbox.core.events import Event, MalformedEvent, parse_event
from matrixbox.core.identifiers import EventId, RoomId
from matrixbox.core.redaction import redacted
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import content_hash_matches, event_id_of
from matrixbox.rooms.remote import Pdu, Signed, Verifier


@frozen
class Checked:
    """An event that passed the steps; ``pruned`` tells that step 3 took its content off."""

    event: Event
    pruned: bool = False


@frozen
class Dropped:
    """A PDU that is none of the room, with the step that says so; its name where it has one."""

    step: int
    reason: str
    event_id: EventId | None = None


@frozen
class Undecided:
    """A well-formed event whose signatures could not be checked."""

    event: Event


Receipt = Checked | Dropped | Undecided


def read(rules: RoomRules, room_id: RoomId, pdu: Pdu, *, backfilled: bool) -> Event | Dropped:
    """Step 1.  ``backfilled``: the bounds on what an event cites do not apply ([B11.01])."""
    try:
        event = parse_event(rules, pdu, exempt_from_counts=backfilled)
    except MalformedEvent as error:
        return Dropped(1, error.reason, _name(rules, pdu))
    if event.room_id != room_id:
        return Dropped(1, "an event of another room", event.event_id)  # T005
    return event


def _name(rules: RoomRules, pdu: Pdu) -> EventId | None:
    """The name of a malformed event, as far as it has one, for the answer."""
    try:
        return event_id_of(rules, pdu)
    except (ValueError, KeyError, RecursionError):
        return None


async def check(
    verifier: Verifier,
    rules: RoomRules,
    room_id: RoomId,
    pdus: Sequence[Pdu],
    *,
    backfilled: bool = False,
) -> list[Receipt]:
    """Steps 1 to 3 for PDUs of one room, in their order."""
    found: list[Receipt] = []
    events: list[tuple[int, Event]] = []
    for pdu in pdus:
        one = read(rules, room_id, pdu, backfilled=backfilled)
        if isinstance(one, Event):
            events.append((len(found), one))
            found.append(Undecided(one))
        else:
            found.append(one)
    verdicts = await verify(verifier, rules, [event for _, event in events])
    for (index, _), verdict in zip(events, verdicts, strict=True):
        found[index] = verdict
    return found


async def verify(verifier: Verifier, rules: RoomRules, events: Sequence[Event]) -> list[Receipt]:
    """Steps 2 and 3 for events that are well-formed."""
    if not events:
        return []
    signed = await verifier.verify(rules, [event.json for event in events])
    return [_verdict(event, outcome) for event, outcome in zip(events, signed, strict=True)]


def _verdict(event: Event, signed: Signed) -> Receipt:
    if signed is Signed.UNKNOWN:
        return Undecided(event)
    if signed is not Signed.VALID:
        return Dropped(2, "a signature is missing or wrong", event.event_id)
    return hashed(event)


def hashed(event: Event) -> Checked:
    """Step 3 for an event whose signatures are good."""
    if content_hash_matches(event.json):
        return Checked(event)
    return Checked(evolve(redacted(event), overlong=event.overlong), pruned=True)


def checked(receipts: Sequence[Receipt]) -> list[Checked]:
    """Those that passed."""
    return [one for one in receipts if isinstance(one, Checked)]


def by_auth(found: Iterable[Checked]) -> list[Checked]:
    """Auth events before what cites them; what is in a cycle is left out (T007)."""
    given = {one.event.event_id: one for one in found}
    waiting = {
        name: {auth for auth in one.event.auth_event_ids if auth in given}
        for name, one in given.items()
    }
    citing: dict[EventId, list[EventId]] = {}
    for name, cited in waiting.items():
        for auth in cited:
            citing.setdefault(auth, []).append(name)
    order = [name for name, cited in waiting.items() if not cited]
    for name in order:  # grows
        for one in citing.get(name, ()):
            waiting[one].discard(name)
            if not waiting[one]:
                order.append(one)
    return [given[name] for name in order]
