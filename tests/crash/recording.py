"""A VFS that records every change to the files below it, and what a power cut leaves of them.

`Recording` lies under the checksum VFS and over the real one, and writes down each write, sync,
truncation and deletion, in the order in which they were asked for, together with what the workload
was told in the meantime. `disks_after_cuts` then cuts the power at any point of that record.

What a disk may do with writes that were not synced: lose them, keep them, keep any of them without
the others before, or keep 512-byte pieces of one. A file that was never synced may not exist. A
deletion holds once its folder was synced with it; otherwise it may or may not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
from attrs import define, field, frozen

SECTOR = 512
MODES = ("nothing", "everything", "prefix", "suffix", "some", "torn")

Disk = dict[str, bytearray]


@frozen
class Write:
    file: str
    offset: int
    data: bytes


@frozen
class Truncate:
    file: str
    size: int


@frozen
class Delete:
    file: str
    durable: bool


@frozen
class SyncBegins:
    file: str


@frozen
class SyncEnds:
    file: str
    begin: int  # the index of its begin
    folder: bool  # SQLite syncs the folder too, with the first sync of a journal or WAL


@frozen
class Note:
    """What the workload was told: an acknowledgement."""

    fact: object


Entry = Write | Truncate | Delete | SyncBegins | SyncEnds | Note


class Recording(apsw.VFS):
    """The VFS; `log` is the record."""

    def __init__(self, base: str = "unix-excl") -> None:
        self.name = "recording"
        self.base = base
        self.log: list[Entry] = []
        super().__init__(self.name, base)

    def note(self, fact: object) -> None:
        """Record that the workload knows something by now."""
        self.log.append(Note(fact))

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.log.append(Delete(Path(filename).name, syncdir))


class _File(apsw.VFSFile):
    def __init__(
        self, recording: Recording, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        assert full is not None, "SQLite opened a temporary file"
        self.file = Path(full).name
        self.log = recording.log
        journal = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
        self.folder_unsynced = bool(flags[0] & journal and flags[0] & apsw.SQLITE_OPEN_CREATE)
        super().__init__(recording.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.log.append(Write(self.file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self.log.append(Truncate(self.file, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        begin = len(self.log)
        self.log.append(SyncBegins(self.file))
        super().xSync(flags)
        self.log.append(SyncEnds(self.file, begin, self.folder_unsynced))
        self.folder_unsynced = False


def apply(disk: Disk, entry: Write | Truncate | Delete) -> None:
    """Do to a disk what was asked for."""
    if isinstance(entry, Delete):
        disk.pop(entry.file, None)
        return
    content = disk.setdefault(entry.file, bytearray())
    if isinstance(entry, Truncate):
        del content[entry.size :]
        content.extend(bytes(entry.size - len(content)))
        return
    end = entry.offset + len(entry.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[entry.offset : end] = entry.data


@frozen
class Cut:
    """A disk as a power cut left it, and what had been acknowledged by then."""

    at: int
    mode: str
    disk: Disk
    known: Sequence[object]


@define
class _Replay:
    """The disk on the way through a record: what is durable, what is on its way."""

    durable: Disk = field(factory=dict)
    pending: list[tuple[int, Write | Truncate | Delete]] = field(factory=list)
    known: list[object] = field(factory=list)

    def advance(self, index: int, entry: Entry) -> None:
        if isinstance(entry, Note):
            self.known.append(entry.fact)
        elif isinstance(entry, SyncEnds):
            self._settle(entry.file, entry.begin, folder=entry.folder)
        elif not isinstance(entry, SyncBegins):
            self.pending.append((index, entry))
            if isinstance(entry, Delete) and entry.durable:
                self._settle(entry.file, index + 1, folder=True)

    def _settle(self, file: str, before: int, *, folder: bool) -> None:
        """What was asked for before a sync began is durable once it has ended."""
        left = []
        for index, entry in self.pending:
            synced = entry.file == file or (folder and isinstance(entry, Delete))
            if synced and index < before:
                apply(self.durable, entry)
            else:
                left.append((index, entry))
        self.pending = left

    def cut(self, mode: str, chance: random.Random) -> Disk:
        disk = {file: bytearray(content) for file, content in self.durable.items()}
        entries = [entry for _, entry in self.pending]
        if mode == "nothing":
            entries = []
        elif mode == "prefix":
            entries = entries[: chance.randint(0, len(entries))]
        elif mode == "suffix":
            entries = entries[chance.randint(0, len(entries)) :]
        elif mode in ("some", "torn"):
            entries = [entry for entry in entries if chance.random() < 0.5]
        for entry in _possible(self.pending, entries):
            if mode == "torn" and isinstance(entry, Write) and chance.random() < 0.5:
                for piece in _pieces(entry):
                    if chance.random() < 0.5:
                        apply(disk, piece)
            else:
                apply(disk, entry)
        return disk


def _possible(
    pending: Sequence[tuple[int, Write | Truncate | Delete]],
    chosen: Sequence[Write | Truncate | Delete],
) -> list[Write | Truncate | Delete]:
    """Without what was written to the new file of a name, where the old one is still there."""
    kept = {id(entry) for entry in chosen}
    old = {
        entry.file for _, entry in pending if isinstance(entry, Delete) and id(entry) not in kept
    }
    possible, deleted = [], set()
    for _, entry in pending:
        if isinstance(entry, Delete):
            deleted.add(entry.file)
        if id(entry) in kept and not (entry.file in old and entry.file in deleted):
            possible.append(entry)
    return possible


def _pieces(write: Write) -> Iterator[Write]:
    """A write in pieces that end at the borders of sectors."""
    start, end = write.offset, write.offset + len(write.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield Write(write.file, start, write.data[start - write.offset : stop - write.offset])
        start = stop


def disks_after_cuts(log: Sequence[Entry], count: int, seed: int) -> Iterator[Cut]:
    """`count` disks: the power is cut after each entry, or each so many-th, in every mode."""
    chance = random.Random(seed)
    per_entry = count / len(log)
    replay = _Replay()
    made = 0
    for index, entry in enumerate(log):
        replay.advance(index, entry)
        while made < (index + 1) * per_entry and made < count:
            mode = MODES[made % len(MODES)] if per_entry > 1 else chance.choice(MODES)
            yield Cut(index, mode, replay.cut(mode, chance), tuple(replay.known))
            made += 1
