"""Registration with a secret that the administrator's programs know.

Not in the specification: Synapse's endpoint, which deployment tools and test suites use.  It exists
only while ``registration.shared_secret`` is set.
"""

from __future__ import annotations

import hashlib
import hmac

from matrixbox.accounts import registration, sessions
from matrixbox.accounts.throttle import REGISTRATION_ADDRESS
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.session import signed_in
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.identifiers import ServerName
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, Unrecognized
from matrixbox.store.transaction import Tx

routes = RouteTable()

PATH = "/_synapse/admin/v1/register"


def _secret(call: Call) -> str:
    secret: str = call.services.settings.registration.shared_secret
    if not secret:
        raise Unrecognized
    return secret


@routes.get(PATH, auth=Auth.NONE, secret=True)
async def nonce(call: Call) -> dict[str, Json]:
    """A number that the next request has to prove knowledge of the secret with."""
    _secret(call)
    return {"nonce": call.services.nonces.make()}


@routes.post(PATH, auth=Auth.NONE, secret=True)
async def register(call: Call) -> dict[str, Json]:
    """Make an account, and sign its first device in."""
    secret = _secret(call)
    body = await call.json()
    services = call.services
    services.throttle.take(REGISTRATION_ADDRESS, call.address)
    username, password = parse.text(body, "username"), parse.text(body, "password")
    admin = parse.flag(body, "admin")
    given = parse.text(body, "nonce")
    parts = [given, username, password, "admin" if admin else "notadmin"]
    kind = parse.optional_text(body, "user_type")
    if kind is not None:
        parts.append(kind)
    message = "\0".join(parts).encode("utf-8", "surrogatepass")
    mac = hmac.new(secret.encode(), message, hashlib.sha1).hexdigest()
    proof = parse.text(body, "mac").encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(mac.encode(), proof) or not services.nonces.take(given):
        raise Forbidden("The proof of the shared secret is wrong, or its number was used.")
    services.passwords.check_new(password)
    opened = await services.store.write(
        _register,
        services.env.server_name,
        registration.parse_localpart(username, services.env.server_name),
        await services.passwords.hash(password),
        services.env.clock.now_ms(),
        admin,
    )
    return signed_in(call, opened)


def _register(
    tx: Tx, server: ServerName, localpart: str, hashed: str, now_ms: int, admin: bool
) -> sessions.SignedIn:
    account = registration.make_account(tx, server, localpart, hashed, now_ms, admin=admin)
    return sessions.open_session(tx, account, None, None)
