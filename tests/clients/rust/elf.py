"""Make a shared library of x86-64 ask for older functions of the C library.

A compiler from 2024 on writes `__isoc23_strtol` where a program says `strtol`: the same function,
but one that also reads binary numbers, and only a C library from 2.38 on has it. A prebuilt library
that differs in nothing else then refuses to be loaded on Debian 12, which has 2.36.
"""

from __future__ import annotations

import struct
from pathlib import Path

from attrs import define

NEWER, OLDER = "GLIBC_2.38", "GLIBC_2.2.5"
PREFIX = "__isoc23_"  # what follows is the older function's name
SYMBOL_BYTES = 24


@define
class Library:
    """The bytes of a 64-bit little-endian ELF file."""

    data: bytearray

    def sections(self) -> dict[str, tuple[int, int]]:
        """Offset and size of each section."""
        (table,) = struct.unpack_from("<Q", self.data, 0x28)
        size, count, names = struct.unpack_from("<HHH", self.data, 0x3A)
        headers = [
            struct.unpack_from("<IIQQQQ", self.data, table + number * size)
            for number in range(count)
        ]
        return {self.text(headers[names][4] + head[0]): (head[4], head[5]) for head in headers}

    def text(self, at: int) -> str:
        """The string that begins there."""
        return self.data[at : self.data.index(0, at)].decode()


def use_older_functions(path: Path) -> list[str]:
    """Change the library in place; returns the older functions that it now uses."""
    library = Library(bytearray(path.read_bytes()))
    sections = library.sections()
    strings = sections[".dynstr"][0]
    needs = sections.get(".gnu.version_r")
    if needs is None or not _rename_version(library, needs[0], strings):
        return []
    begin, size = sections[".dynsym"]
    renamed = []
    for at in range(begin, begin + size, SYMBOL_BYTES):
        (name,) = struct.unpack_from("<I", library.data, at)
        text = library.text(strings + name)
        if text.startswith(PREFIX):
            struct.pack_into("<I", library.data, at, name + len(PREFIX))
            renamed.append(text.removeprefix(PREFIX))
    path.write_bytes(library.data)
    return sorted(renamed)


def _rename_version(library: Library, at: int, strings: int) -> bool:
    """Where the C library's newer version is needed, need the older; whether it was."""
    while True:
        _, count, _, first, following = struct.unpack_from("<HHIII", library.data, at)
        found: dict[str, tuple[int, int, int]] = {}
        entry = at + first
        for _ in range(count):
            digest, _, _, name, step = struct.unpack_from("<IHHII", library.data, entry)
            found[library.text(strings + name)] = (entry, digest, name)
            entry += step
        if NEWER in found and OLDER in found:
            _, digest, name = found[OLDER]
            struct.pack_into("<I", library.data, found[NEWER][0], digest)
            struct.pack_into("<I", library.data, found[NEWER][0] + 8, name)
            return True
        if not following:
            return False
        at += following
