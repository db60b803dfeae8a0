"""What a large room costs: bytes on disk for each state event, and rows for the state at any event.

The bounds that the project has set itself: with 20,000 members and 20,000 further changes at most
1.5 kB of disk for each state event all told, and a bounded number of rows for a state.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw

from matrixbox.core.identifiers import UserId
from matrixbox.rooms import ingest
from matrixbox.rooms.build import Draft
from matrixbox.rooms.env import Env
from matrixbox.store import events, snapshots
from matrixbox.store.nids import RoomNid, SnapshotNid
from matrixbox.store.transaction import Tx
from tests.rooms.house import House, household

MEMBERS, CHANGES = 20_000, 20_000
BATCH = 200  # events in one transaction
MAX_BYTES = 1_500  # of disk for one state event
MAX_ROWS = 4  # snapshots read for one state


def member(number: int, **content: str) -> Draft:
    """A join, or a new profile, of somebody on one of 500 servers; it is signed by us here."""
    user = UserId(f"@resident-{number}:server{number % 500}.example.org")
    full = {"membership": "join", "displayname": f"Resident number {number}", **content}
    return Draft("m.room.member", user, full, user)


def send_all(tx: Tx, env: Env, room: RoomNid, drafts: list[Draft]) -> list[int]:
    """Let events into the room; their numbers."""
    return [ingest.send(tx, env, room, draft).nid for draft in drafts]


async def fill(house: House) -> tuple[RoomNid, list[int]]:
    """The room, with the numbers of all its state events but the first few."""
    ann = await house.user("ann")
    room = await house.room(ann, preset="public_chat", version="11")
    rng = random.Random(1)
    drafts = [member(number) for number in range(MEMBERS)]
    for number in range(CHANGES):
        if rng.random() < 0.9:
            who = rng.randrange(MEMBERS)
            drafts.append(member(who, displayname=f"Renamed {number}"))
        else:
            drafts.append(Draft("m.room.topic", ann.user_id, {"topic": f"Topic {number}"}, ""))
    made: list[int] = []
    for start in range(0, len(drafts), BATCH):
        made += await house.write(send_all, room, drafts[start : start + BATCH])
    return room, made


class Counting:
    """A transaction that counts the snapshots it reads."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.rows = 0

    def one(self, sql: str, *bindings: Any) -> Any:
        self.rows += "FROM snapshot" in sql
        return self._tx.one(sql, *bindings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)


def rows_for(tx: Tx, nid: int) -> tuple[int, int]:
    """How many rows the state at an event takes, and how many events are in it."""
    stored = events.by_nid(tx, nid)
    assert stored.snapshot is not None
    tx.caches.snapshots.clear()
    counting: Any = Counting(tx)
    found = snapshots.state(counting, SnapshotNid(stored.snapshot))
    return counting.rows, len(found)


async def test_a_room_of_20000_members_stays_small_on_disk(tmp_path: Path):
    path = tmp_path / "house.db"
    async with household(path) as house:
        room, made = await fill(house)
        for nid in random.Random(2).sample(made, 50):
            rows, size = house.store.read(rows_for, nid)
            assert 0 < rows <= MAX_ROWS
            assert size >= 1
        assert len(house.state(room)) > MEMBERS
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    each = path.stat().st_size / (MEMBERS + CHANGES)
    assert each <= MAX_BYTES
