"""The listeners, with the application behind them."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from matrixbox.accounts.login_tokens import LoginTokens
from matrixbox.accounts.nonces import Nonces
from matrixbox.accounts.uia import Uia
from matrixbox.api.app import make_quart
from matrixbox.api.asgi import Application
from matrixbox.api.auth import Authenticator
from matrixbox.api.bounds import Bounds
from matrixbox.api.client.table import client_routes, with_old_names
from matrixbox.api.federation_auth import FederationAuthenticator
from matrixbox.api.listener import Bind, Door
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.api.server.table import server_routes
from matrixbox.api.services import Services
from matrixbox.config import Settings
from matrixbox.federation.parts import Federation
from matrixbox.observe.health import Parts
from matrixbox.serve.base import Base
from matrixbox.serve.certificate import Certificate
from matrixbox.sync.old import OldSync
from matrixbox.sync.sliding import SlidingService
from matrixbox.sync.v3 import SyncService


def make_door(
    settings: Settings,
    base: Base,
    federation: Federation,
    authenticator: Authenticator,
    certificate: Certificate | None,
) -> Door:
    """The listeners, with the application behind them."""
    app = make_application(settings, base, federation, authenticator)
    return Door(
        app,
        [*_binds(settings, certificate)],
        bounds=app.bounds,
        parts=base.parts,
        tell_stopping=app.turns.waiting.stop,
    )


def make_application(
    settings: Settings, base: Base, federation: Federation, authenticator: Authenticator
) -> Application:
    """The application that answers clients and other servers; a simulation asks it directly."""
    limited = settings.limits.rate_limits
    bounds = Bounds()
    if not limited:
        bounds = evolve(
            bounds,
            connections_per_address=bounds.connections,
            requests_per_user=bounds.requests_at_once,
            waiting_per_user=bounds.connections,
        )
    clock = base.env.clock
    throttle = base.throttle
    servers = FederationAuthenticator(
        base.env.server_name,
        federation.keyring,
        federation.destinations,
        throttle,
        federation.client.offload,
    )
    sync = SyncService(base.store, base.env)
    services = Services(
        settings=settings,
        store=base.store,
        env=base.env,
        passwords=base.passwords,
        throttle=throttle,
        uia=Uia(clock),
        nonces=Nonces(clock),
        login_tokens=LoginTokens(clock),
        sync=sync,
        sliding=SlidingService(base.store, base.env, sync.sends),
        old_sync=OldSync(base.store, base.env),
        base_url=settings.base_url,
        time=base.time,
        federation=federation,
        delays=base.delays,
    )
    return Application(
        _routes(),
        services=services,
        authenticators={
            Auth.USER: authenticator.user,
            Auth.OPTIONAL: authenticator.optional,
            Auth.FEDERATION: servers.origin,
        },
        bounds=bounds,
        spool_folder=base.folder.path,
        quart=make_quart,
    )


def _routes() -> RouteTable:
    routes = RouteTable()
    routes.include(client_routes())
    routes.include(server_routes())
    return with_old_names(routes)


def _binds(settings: Settings, certificate: Certificate | None) -> Iterator[Bind]:
    for address in settings.listen.http:
        yield Bind(address.host, address.port)
    if certificate is not None:
        for address in settings.listen.https:
            yield Bind(address.host, address.port, lambda: certificate.context)


def certificate_of(settings: Settings, parts: Parts) -> Certificate | None:
    """The certificate, looked at once; None when no listener needs one."""
    if not settings.listen.https:
        return None
    assert settings.tls.cert is not None  # `load` has seen to it
    assert settings.tls.key is not None
    certificate = Certificate(settings.tls.cert, settings.tls.key, parts)
    certificate.look()
    return certificate
