"""What the harness takes a disk to be."""

from __future__ import annotations

from tests.crash.recording import (
    MODES,
    Delete,
    Disk,
    Entry,
    Note,
    SyncBegins,
    SyncEnds,
    Truncate,
    Write,
    disks_after_cuts,
)

A, B = b"a" * 1024, b"b" * 1024


def disks(*log: Entry, count: int = 400) -> list[tuple[int, Disk, tuple[object, ...]]]:
    return [(cut.at, cut.disk, tuple(cut.known)) for cut in disks_after_cuts(log, count, seed=1)]


def after(at: int, *log: Entry) -> set[bytes | None]:
    """The contents that file "f" may have when the power is cut after entry `at`."""
    return {bytes(disk["f"]) if "f" in disk else None for i, disk, _ in disks(*log) if i == at}


def test_what_was_synced_stays() -> None:
    log = (Write("f", 0, A), SyncBegins("f"), SyncEnds("f", 1, folder=False))
    assert after(2, *log) == {A}


def test_what_was_not_synced_may_stay_or_not_and_in_pieces() -> None:
    found = after(0, Write("f", 0, A))
    assert {None, A, A[:512], bytes(512) + A[:512]} <= found


def test_later_writes_may_stay_without_earlier_ones() -> None:
    found = after(1, Write("f", 0, A), Write("f", 1024, B))
    assert {None, A, bytes(1024) + B, A + B} <= found


def test_a_sync_is_for_what_was_written_before_it_began() -> None:
    log = (
        Write("f", 0, A),
        SyncBegins("f"),
        Write("f", 1024, B),
        SyncEnds("f", 1, folder=False),
    )
    found = after(3, *log)
    assert A in found
    assert all(content is not None and content[:1024] == A for content in found)


def test_a_sync_is_for_its_own_file() -> None:
    log = (Write("f", 0, A), SyncBegins("g"), SyncEnds("g", 1, folder=False))
    assert None in after(2, *log)


def test_pieces_end_at_the_borders_of_sectors() -> None:
    found = after(0, Write("f", 500, b"x" * 24))
    assert bytes(500) + b"x" * 12 in found


def test_a_deletion_holds_with_its_folder() -> None:
    written = (Write("f", 0, A), SyncBegins("f"), SyncEnds("f", 1, folder=False))
    assert after(3, *written, Delete("f", durable=True)) == {None}
    assert after(3, *written, Delete("f", durable=False)) == {None, A}
    log = (*written, Delete("f", durable=False), SyncBegins("g"), SyncEnds("g", 4, folder=True))
    assert after(5, *log) == {None}


def test_a_new_file_does_not_mix_with_the_old_one_of_its_name() -> None:
    log = (
        Write("f", 0, A + A),
        SyncBegins("f"),
        SyncEnds("f", 1, folder=False),
        Delete("f", durable=False),
        Write("f", 0, B),
    )
    assert all(content in (None, A + A) or b"a" not in content for content in after(4, *log))


def test_truncation_cuts_and_extends() -> None:
    log = (Write("f", 0, A), Truncate("f", 2), SyncBegins("f"), SyncEnds("f", 2, folder=False))
    assert after(3, *log) == {A[:2]}
    log = (Write("f", 0, A[:2]), Truncate("f", 4), SyncBegins("f"), SyncEnds("f", 2, folder=False))
    assert after(3, *log) == {A[:2] + bytes(2)}


def test_what_is_known_is_what_was_noted_before_the_cut() -> None:
    known = {at: facts for at, _, facts in disks(Note(1), Write("f", 0, A), Note(2))}
    assert known == {0: (1,), 1: (1,), 2: (1, 2)}


def test_each_entry_is_cut_in_each_mode() -> None:
    log = [Write("f", 0, A) for _ in range(10)]
    cuts = list(disks_after_cuts(log, 10 * len(MODES), seed=1))
    assert {(cut.at, cut.mode) for cut in cuts} == {(i, m) for i in range(10) for m in MODES}
    assert [cut.at for cut in disks_after_cuts(log, 5, seed=1)] == [0, 2, 4, 6, 8]
