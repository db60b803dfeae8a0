"""Events as one user's clients get them, as bytes.

Matrix v1.19, Client-Server API, "Events", "Aggregations of child events" ([C8.26], [C9.12] to
[C9.15]).  What is the same for everybody is encoded once and kept with the event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson
from attrs import define

from matrixbox.core.client_format import client_event, federation_event, unsigned_data
from matrixbox.core.filters import Filter
from matrixbox.core.json import Json, encode
from matrixbox.core.relations import ThreadSummary, bundle, latest_edit, may_start_thread
from matrixbox.rooms.reading import Reader
from matrixbox.store import delayed, events, names, snapshots
from matrixbox.store.caches import StoredEvent
from matrixbox.store.events import Relation
from matrixbox.store.nids import EventNid, SnapshotNid

Fragment = orjson.Fragment
MAX_BUNDLES = 2  # levels of events that have others in their `m.relations`


@define(eq=False)
class Formatter:
    """Formats events for one reader of one room."""

    reader: Reader
    filter: Filter | None = None
    with_room_id: bool = True
    bundled: bool = False
    with_membership: bool = True  # the reader's, at the event

    def all(self, stored: Iterable[StoredEvent]) -> list[Fragment]:
        """Several events."""
        return [self.event(one) for one in stored]

    def event(self, stored: StoredEvent) -> Fragment:
        """One event, ready to stand in an answer."""
        stored = self.reader.shown(stored)
        wanted = self.filter
        if wanted is not None and (wanted.federation_format or wanted.event_fields is not None):
            return Fragment(encode(wanted.project(self._as_dict(stored, wanted))))
        if stored.client_json is None:
            whole = encode(client_event(stored.event, with_room_id=False))
            stored.client_json = whole[:-1]
        room = b""
        if self.with_room_id:
            room = b',"room_id":' + orjson.dumps(stored.event.room_id)
        return Fragment(
            b'%b%b,"unsigned":%b}' % (stored.client_json, room, encode(self.unsigned(stored)))
        )

    def _as_dict(self, stored: StoredEvent, wanted: Filter) -> Mapping[str, Json]:
        unsigned = self.unsigned(stored)
        if wanted.federation_format:
            return federation_event(stored.event, unsigned)
        return client_event(stored.event, unsigned, with_room_id=self.with_room_id)

    def unsigned(self, stored: StoredEvent, depth: int = 0) -> dict[str, Json]:
        """What surrounds an event for this reader; `depth`: of how many others it is a part."""
        reader, event = self.reader, stored.event
        facts: dict[str, Json] = {"age": reader.now_ms - event.origin_server_ts}
        if stored.snapshot is not None and self.with_membership:
            facts["membership"] = reader.membership_at(stored)
        if stored.sent_by is not None and stored.sent_by == reader.device:
            facts["transaction_id"] = stored.txn_id
        if event.sender == reader.user_id and (delay_id := delayed.id_of(reader.tx, stored)):
            facts["org.matrix.msc4140.delay_id"] = delay_id
        if event.state_key is not None:
            facts.update(self._replaced(stored))
        if stored.redacted_by is not None:
            facts["redacted_because"] = self._reason(stored.redacted_by)
        if self.bundled and event.state_key is None and depth < MAX_BUNDLES:
            relations = self._relations(stored, depth)
            if relations:
                facts["m.relations"] = relations
        return facts

    def _reason(self, redaction: EventNid) -> dict[str, Json]:
        """A redaction; of one that the reader may not see, only that there is one (T105)."""
        stored = events.by_nid(self.reader.tx, redaction)
        shown = client_event(stored.event, self._age(stored))
        content = shown["content"]
        if not self.reader.is_visible(stored) and isinstance(content, Mapping):
            shown["content"] = {key: value for key, value in content.items() if key == "redacts"}
        return shown

    def _age(self, stored: StoredEvent) -> dict[str, Json]:
        return unsigned_data(age=self.reader.now_ms - stored.event.origin_server_ts)

    def _replaced(self, stored: StoredEvent) -> dict[str, Json]:
        """The state event that this one took the place of."""
        if stored.replaces is None:
            stored.replaces = self._find_replaced(stored)
        if not stored.replaces:
            return {}
        previous = self.reader.shown(events.by_nid(self.reader.tx, stored.replaces))
        facts: dict[str, Json] = {"replaces_state": previous.event.event_id}
        # An invitation from elsewhere is in no timeline here, but who was invited knows it.
        if self.reader.may_see(previous) or self.reader.is_about_me(previous):
            facts["prev_content"] = previous.event.content
            facts["prev_sender"] = previous.event.sender  # clients go by it, as by `is_direct`
        return facts

    def _find_replaced(self, stored: StoredEvent) -> EventNid:
        event, tx = stored.event, self.reader.tx
        slot = names.slot_nid(tx, (event.type, event.state_key or ""))
        if slot is None or stored.snapshot is None:
            return EventNid(0)
        found = snapshots.lookup(tx, SnapshotNid(stored.snapshot), [slot])
        return found.get(slot, EventNid(0))

    # --- relations

    def _relations(self, stored: StoredEvent, depth: int) -> dict[str, Json]:
        children = events.relations(self.reader.tx, stored.event.event_id)
        if not children:
            return {}
        edit = None
        if stored.redacted_by is None:
            edits = self._visible(children, "m.replace")
            edit = latest_edit(stored.event, (child.event for child in edits))
        references = [child.event.event_id for child in self._visible(children, "m.reference")]
        return bundle(
            edit=None if edit is None else self._part(events.by_id(self.reader.tx, edit.event_id)),
            # The newest reply of a thread is the only part that has parts, so loops end (T007).
            thread=self._thread(stored, children) if depth == 0 else None,
            references=references,
        )

    def _visible(self, children: Iterable[Relation], rel_type: str) -> list[StoredEvent]:
        tx = self.reader.tx
        found = [events.by_nid(tx, one.nid) for one in children if one.rel_type == rel_type]
        return [child for child in found if self.reader.may_see(child)]

    def _part(self, stored: StoredEvent | None, depth: int = MAX_BUNDLES) -> Mapping[str, Json]:
        """An event that stands inside another one."""
        assert stored is not None
        stored = self.reader.shown(stored)
        return client_event(stored.event, self.unsigned(stored, depth))

    def _thread(self, root: StoredEvent, children: Iterable[Relation]) -> ThreadSummary | None:
        replies = self._visible(children, "m.thread") if may_start_thread(root.event) else []
        if not replies:
            return None
        me = names.user_id(self.reader.tx, self.reader.user)
        latest = max(replies, key=lambda reply: (reply.pos or 0, reply.sub))
        return ThreadSummary(
            latest_event=self._part(latest, depth=1),
            count=len(replies),
            current_user_participated=any(one.event.sender == me for one in (root, *replies)),
        )
