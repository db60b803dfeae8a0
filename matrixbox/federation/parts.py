"""The parts of federation that handlers and services work with; built in ``serve.network``."""

from __future__ import annotations

from attrs import frozen

from matrixbox.federation.transport import Transport


@frozen
class Federation:
    """Everything that speaks to other servers."""

    transport: Transport
