"""What the functions of this folder need to know about the server they run in."""

from __future__ import annotations

from attrs import frozen

from matrixbox.clock import Clock
from matrixbox.core.identifiers import ServerName
from matrixbox.core.signing import SigningKey


@frozen
class Env:
    """Our name, our key and the clock; made once, in ``serve``."""

    server_name: ServerName
    key: SigningKey
    clock: Clock
    default_version: str
    publish_by_anyone: bool = True
