"""The outcome of an authorisation check that fails."""

from __future__ import annotations


class NotAllowed(Exception):
    """The authorisation rules do not allow the event; the text says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
