"""What users have reported, for those who administer the server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from matrixbox.core.json import Json
from matrixbox.errors import InvalidParam, NotFound
from matrixbox.household.control import Function
from matrixbox.store import reports
from matrixbox.store.database import Store


def functions(store: Store) -> dict[str, Function]:
    """What the control socket offers, by name."""
    return {"report.list": partial(_list, store), "report.done": partial(_done, store)}


async def _list(store: Store, arguments: Mapping[str, Json]) -> Json:
    return [
        {
            "number": report.nid,
            "made_ms": report.made_ms,
            "by": report.reporter,
            "user_id": report.subject.user_id,
            "room_id": report.subject.room_id,
            "event_id": report.subject.event_id,
            "reason": report.reason,
        }
        for report in store.read(reports.everything)
    ]


async def _done(store: Store, arguments: Mapping[str, Json]) -> Json:
    number = arguments.get("number")
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidParam("`number` is a whole number.")
    if not await store.write(reports.remove, number):
        raise NotFound(f"There is no report {number}")
    return number
