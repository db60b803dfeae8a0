"""The service that sends notifications."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from attrs import evolve

from matrixbox.config import Settings
from matrixbox.federation.network import NetworkTransport, new_http_client
from matrixbox.federation.parts import Federation
from matrixbox.net.dns import Resolver
from matrixbox.push.gateway import Gateway, HttpGateway, guard_of
from matrixbox.push.sender import PushSender
from matrixbox.serve.base import Base

Service = Callable[[], Awaitable[None]]


def push_services(
    settings: Settings, base: Base, federation: Federation, gateway: Gateway | None = None
) -> Iterator[tuple[str, Service]]:
    """What runs for as long as the server does, by name; a simulation brings its own gateway."""
    if settings.email.smtp_host:
        # Households that send no mail do not load what writes it.
        from matrixbox.push.mailing import MailPusher  # noqa: PLC0415

        yield "push.mail", MailPusher(base.store, base.env).run
    if gateway is not None:
        yield "push.sender", PushSender(base.store, base.env, gateway).run
        return
    outbound, transport = settings.outbound, federation.transport
    if isinstance(transport, NetworkTransport) and not outbound.private_push_gateways:
        http = transport.http
    else:  # who may go to the home network shares no connection with others
        opened = evolve(outbound, allow_private_addresses=guard_of(outbound).allow_private)
        http = new_http_client(opened, Resolver(), base.parts)
        yield "push.connections", http.run
    yield "push.sender", PushSender(base.store, base.env, HttpGateway(http)).run
