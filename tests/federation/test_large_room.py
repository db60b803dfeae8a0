"""Joins of rooms with many members: time and memory, at a size for every day.

T036 and the limits of the threat page, section 3.  The goal is stated for 20,000 members (message
within 5 s and 60 MiB without members, 150 MiB with them): `python -m tests.federation.large_room`.
"""

from __future__ import annotations

from pathlib import Path

from tests.federation.large_room import measure

MEMBERS = 2_000


def test_a_message_can_be_sent_long_before_the_members_are_known(tmp_path: Path) -> None:
    found = measure(tmp_path, MEMBERS, omit=True)
    assert found.sent_s < 5
    assert found.joined_mib < 60
    assert found.whole_mib < 100
    assert found.slowest_s < 1


def test_a_whole_state_takes_little_memory(tmp_path: Path) -> None:
    found = measure(tmp_path, MEMBERS, omit=False)
    assert found.whole_s < 30
    assert found.whole_mib < 100
    assert found.slowest_s < 1
