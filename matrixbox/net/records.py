"""What the DNS is asked for, and what it says."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from attrs import frozen

from matrixbox.net.exchange import Target
from matrixbox.net.guard import IPAddress

LOOKUP_S = 5.0
MIN_TTL_S = 60
MAX_RECORDS = 64

Kind: TypeAlias = Literal["A", "AAAA", "SRV"]


class LookupFailed(Exception):
    """No name server gave an answer: whether the name exists is unknown."""


@frozen
class Service:
    """One SRV record."""

    priority: int
    weight: int
    target: Target


Records: TypeAlias = tuple[IPAddress | Service, ...]


class Answering(Protocol):
    """What is asked for records."""

    @property
    def exist(self) -> bool:
        """Whether there is a name server to ask."""

    async def ask(self, name: str, kind: Kind) -> tuple[Records, float]:
        """The records of a name and how many seconds they hold; none if there are none.

        Raises LookupFailed.
        """
