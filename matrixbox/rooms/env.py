"""What the functions of this folder need to know about the server they run in."""

from __future__ import annotations

from attrs import Factory, field, frozen

from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName
from matrixbox.core.signing import SigningKey
from matrixbox.rooms.policy import PolicyDesk
from matrixbox.rooms.presence import Presence
from matrixbox.rooms.typing import Typing


@frozen
class Env:
    """Our name, our key, the clock, who types, who is there; made once, in ``serve``."""

    server_name: ServerName
    key: SigningKey
    clock: Clock
    typing: Typing
    default_version: str
    publish_by_anyone: bool = True
    rooms_per_user: int = 2_000
    presence: Presence | None = None  # None: the feature is off
    policies: PolicyDesk = field(
        default=Factory(lambda env: PolicyDesk(env.server_name), takes_self=True)
    )
