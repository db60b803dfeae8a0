"""A large JSON object, taken apart while it is read.

The answer to `send_join` may have hundreds of megabytes (threats, section 3): parsed whole, it
would take ten times that in memory.  Here the members of its long arrays come out one by one, as
bytes that the strict decoder (json.py) then reads; nothing but one member is held at a time.

This is no parser: what is between the brackets is for the decoder to judge.  It refuses what it
cannot take apart, and what would make two readers cut the text differently.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from attrs import frozen

from matrixbox.core.json import NotJson, TooDeep, TooLarge

# Everything up to the next bracket or to the end of the window, strings whole.  Possessive: a
# string that is cut off at the window's end is not looked at twice.
_PLAIN = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+', re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*+")
_KEY = re.compile(rb'"([^"\\]*+)"')
_SCALAR = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^ \t\n\r,\]}"{\[]++', re.DOTALL)
_OPENING = frozenset(b"{[")
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}


@frozen
class Piece:
    """One value: a member of a split array, or the whole value of any other key.

    `start` is its offset in the text.
    """

    key: str
    start: int
    data: bytes


def split_object(
    chunks: Iterable[bytes],
    arrays: Collection[str],
    *,
    max_piece: int,
    max_pieces: int,
    max_depth: int = 128,
) -> Iterator[Piece]:
    """The members of the arrays named, and the values of all other keys, in the text's order.

    Raises NotJson, TooLarge (a piece of more than `max_piece` bytes, or more than `max_pieces`),
    TooDeep.  `chunks` are of a size that is worth a search, some 64 KiB.
    """
    window = _Window(chunks, max_piece, max_depth)
    for count, piece in enumerate(_pieces(window, arrays), start=1):
        if count > max_pieces:
            raise TooLarge("too many elements")
        yield piece


def _pieces(window: _Window, arrays: Collection[str]) -> Iterator[Piece]:
    window.expect(b"{")
    seen: set[str] = set()
    first = True
    while not window.accept(b"}"):
        if not first:
            window.expect(b",")
        first = False
        key = window.key()
        if key in seen:
            raise NotJson("an object has the same key twice")
        seen.add(key)
        window.expect(b":")
        if key in arrays and window.accept(b"["):
            yield from _members(window, key)
        else:
            start, data = window.value()
            yield Piece(key, start, data)
    window.end()


def _members(window: _Window, key: str) -> Iterator[Piece]:
    first = True
    while not window.accept(b"]"):
        if not first:
            window.expect(b",")
        first = False
        start, data = window.value()
        yield Piece(key, start, data)


class _Window:
    """The part of the text that is looked at, which moves forward."""

    __slots__ = ("_at", "_behind", "_chunks", "_data", "_max_depth", "_max_piece")

    def __init__(self, chunks: Iterable[bytes], max_piece: int, max_depth: int) -> None:
        self._chunks = iter(chunks)
        self._data = b""
        self._at = 0
        self._behind = 0  # bytes of the text before the window
        self._max_piece = max_piece
        self._max_depth = max_depth

    def _more(self, keep: int) -> bool:
        """Read on, keeping the window from `keep` on; False at the end of the text."""
        for chunk in self._chunks:
            if chunk:
                self._data = self._data[keep:] + chunk
                self._at -= keep
                self._behind += keep
                return True
        return False

    def _next(self) -> int:
        """The next byte that is no space, which stays; -1 at the end."""
        while True:
            found = _SPACE.match(self._data, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._data):
                return self._data[self._at]
            if not self._more(self._at):
                return -1

    def accept(self, wanted: bytes) -> bool:
        """Pass one punctuation mark if it comes next."""
        if self._next() != wanted[0]:
            return False
        self._at += 1
        return True

    def expect(self, wanted: bytes) -> None:
        """Pass one punctuation mark."""
        if not self.accept(wanted):
            raise NotJson(f"{wanted.decode()} is missing at {self._behind + self._at}")

    def end(self) -> None:
        """Check that nothing follows."""
        if self._next() != -1:
            raise NotJson("text after the document")

    def key(self) -> str:
        """The name of a member, which has no escapes."""
        if self._next() != ord('"'):
            raise NotJson(f"a name is missing at {self._behind + self._at}")
        while True:
            found = _KEY.match(self._data, self._at)
            if found is not None:
                self._at = found.end()
                try:
                    return found[1].decode()
                except UnicodeDecodeError as error:
                    raise NotJson("not UTF-8") from error
            # An escaped name could be one of ours to another reader.
            if b"\\" in self._data[self._at :]:
                raise NotJson("a name with escapes")
            self._check_size(len(self._data) - self._at)
            if not self._more(self._at):
                raise NotJson("the text is cut off")

    def value(self) -> tuple[int, bytes]:
        """One whole value, with its offset."""
        kind = self._next()
        if kind in _OPENING:
            return self._bracketed()
        return self._scalar()

    def _scalar(self) -> tuple[int, bytes]:
        while True:
            found = _SCALAR.match(self._data, self._at)
            # A number at the window's end may go on behind it.
            if found is not None and found.end() < len(self._data):
                start, self._at = self._at, found.end()
                self._check_size(len(found[0]))
                return self._behind + start, found[0]
            self._check_size(len(self._data) - self._at)
            if found is None and self._at < len(self._data) and self._data[self._at] != ord('"'):
                raise NotJson(f"a value is missing at {self._behind + self._at}")
            if not self._more(self._at):
                raise NotJson("the text is cut off")

    def _bracketed(self) -> tuple[int, bytes]:
        """An object or an array: brackets are counted, what is in strings passed over."""
        open_brackets: list[int] = []
        keep = self._at
        scan = self._at
        while True:
            if scan < len(self._data) and self._data[scan] not in b'"':
                scan = self._bracket(scan, open_brackets)
                if not open_brackets:
                    self._at = scan
                    self._check_size(scan - keep)
                    return self._behind + keep, self._data[keep:scan]
                found = _PLAIN.match(self._data, scan)
                assert found is not None
                scan = found.end()
            else:
                # A string that is cut off here, or the window's end: look again with more.
                self._check_size(len(self._data) - keep)
                behind = self._behind
                if not self._more(keep):
                    raise NotJson("the text is cut off")
                scan -= self._behind - behind
                keep = 0
                found = _PLAIN.match(self._data, scan)
                assert found is not None
                scan = found.end()

    def _bracket(self, at: int, open_brackets: list[int]) -> int:
        """Take the bracket at a place into account; where to go on."""
        mark = self._data[at]
        if mark in _OPENING:
            if len(open_brackets) >= self._max_depth:
                raise TooDeep("nested too deeply")
            open_brackets.append(_CLOSING[mark])
        elif not open_brackets or open_brackets.pop() != mark:
            raise NotJson(f"brackets do not match at {self._behind + at}")
        return at + 1

    def _check_size(self, size: int) -> None:
        if size > self._max_piece:
            raise TooLarge("an element is too large")
