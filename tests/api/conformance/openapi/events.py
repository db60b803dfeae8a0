"""Events against the specification's schema of their type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.api.conformance.openapi.documents import Documents
from tests.api.conformance.openapi.schemas import Checked

_FOLDER = "event-schemas/schema"
# What stripped events and events inside /sync lack; the description of the endpoint asks for it.
_ENVELOPE = {
    "event_id": "$" + 43 * "a",
    "origin_server_ts": 1,
    "room_id": "!" + 43 * "a",
    "sender": "@somebody:home.test",
}


class EventSchemas:
    """The schemas of all types, read when they are asked for."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._names = frozenset(documents.names(f"{_FOLDER}/m.*.yaml"))
        self._checked: dict[str, Checked] = {}

    def problems(self, event: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with an event; nothing for types that the specification does not know."""
        if "redacted_because" in event.get("unsigned", {}):
            return  # redaction leaves what the room's version lets stand
        checked = self._schema(event)
        if checked is None:
            return
        for problem in checked.problems({**_ENVELOPE, **event}):
            yield f"{event['type']} {problem}"

    def _schema(self, event: Mapping[str, Any]) -> Checked | None:
        kind = event["type"]
        names = [f"{_FOLDER}/{kind}.yaml"]
        if kind == "m.room.message" and isinstance(event["content"].get("msgtype"), str):
            names.insert(0, f"{_FOLDER}/{kind}${event['content']['msgtype']}.yaml")
        for name in names:
            if name in self._names:
                if name not in self._checked:
                    self._checked[name] = Checked(self._documents.read(name))
                return self._checked[name]
        return None


def events_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """Everything in an answer that looks like an event, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from events_in(item)
    elif isinstance(value, Mapping):
        if isinstance(value.get("type"), str) and isinstance(value.get("content"), Mapping):
            yield value
        for key, member in value.items():
            if key != "content":
                yield from events_in(member)
