"""Glob patterns, matched in linear time and never by a backtracking expression (T037, T080).

Matrix v1.19, appendices, "Glob-style matching" [G.10].  A pattern is cut at its stars; every piece
has a fixed length, so taking the leftmost place for each is right and nothing is tried twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from attrs import frozen


@frozen
class Glob:
    """A case-sensitive pattern with `*`, and `?` for one character if `single` says so."""

    pieces: tuple[str, ...]
    single: bool
    shortest: int  # characters of the shortest text that can match

    @classmethod
    def of(cls, pattern: str, *, single: bool = True) -> Glob:
        """Compile a pattern; every text is one."""
        pieces = tuple(pattern.split("*"))
        return cls(pieces, single, sum(map(len, pieces)))

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        if len(text) < self.shortest:
            return False
        first, last = self.pieces[0], self.pieces[-1]
        end = len(text) - len(last)
        if not (self._is_at(first, text, 0) and self._is_at(last, text, end)):
            return False
        if len(self.pieces) == 1:
            return end == 0
        position = len(first)
        for piece in self.pieces[1:-1]:
            place = next(self._places(piece, text, position, end), None)
            if place is None:
                return False
            position = place + len(piece)
        return True

    def matches_words(self, text: str) -> bool:
        """Whether some part of the text matches that starts and ends at word boundaries.

        Client-Server API, "Push Rules": a boundary is an end of the text, or a character outside of
        A-Z, a-z, 0-9 and _; it may belong to the part or be next to it.
        """
        first, last = self.pieces[0], self.pieces[-1]
        starts = (
            place
            for place in self._places(first, text, 0, len(text))
            if not first or is_boundary(text, place)
        )
        if len(self.pieces) == 1:
            return any(is_boundary(text, place + len(first)) for place in starts)
        place = next(starts, None)
        position = 0 if place is None else place + len(first)
        for piece in self.pieces[1:-1]:
            if place is not None:
                place = next(self._places(piece, text, position, len(text)), None)
                position = 0 if place is None else place + len(piece)
        if place is None or not last:
            return place is not None
        ends = self._places(last, text, position, len(text))
        return any(is_boundary(text, place + len(last)) for place in ends)

    def _is_at(self, piece: str, text: str, position: int) -> bool:
        """Whether a piece is at this place, where the text is long enough for it."""
        if not self.single or "?" not in piece:
            return text.startswith(piece, position)
        return all(
            expected in ("?", text[position + index]) for index, expected in enumerate(piece)
        )

    def _places(self, piece: str, text: str, start: int, end: int) -> Iterator[int]:
        """Where a piece is within text[start:end], from left to right."""
        if self.single and "?" in piece:
            yield from _wild_places(piece, text, start, end)
            return
        place = text.find(piece, start, end)
        while place >= 0:
            yield place
            place = text.find(piece, place + 1, end)


def _wild_places(piece: str, text: str, start: int, end: int) -> Iterator[int]:
    """The places of a piece with question marks, by the shift-and algorithm.

    Bit n of `state` says that the first n + 1 characters of the piece end here.
    """
    if not piece.strip("?"):
        yield from range(start, end - len(piece) + 1)
        return
    masks, anything = _masks(piece)
    complete = 1 << (len(piece) - 1)
    state = 0
    for position in range(start, end):
        state = (state << 1 | 1) & masks.get(text[position], anything)
        if state & complete:
            yield position - len(piece) + 1


@lru_cache(maxsize=1024)
def _masks(piece: str) -> tuple[dict[str, int], int]:
    """For each character the places in the piece where it may stand; and for any other one."""
    anything = sum(1 << index for index, char in enumerate(piece) if char == "?")
    masks = dict.fromkeys(piece, anything)
    for index, char in enumerate(piece):
        masks[char] |= 1 << index
    return masks, anything


_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


def is_boundary(text: str, position: int) -> bool:
    """Whether there is a word boundary just before or after this place between characters."""
    return position in (0, len(text)) or not (
        text[position] in _WORD and text[position - 1] in _WORD
    )
