"""E-mail addresses of accounts, and messages that prove them.

Matrix v1.19, Client-Server API, "Adding Account Administrative Contact Information", and the
`requestToken` endpoints ([C4.05] to [C4.07], [C4.10], T094).  Telephone numbers are not kept, and
no identity server is spoken to: nothing is bound there, and there is nothing to unbind ([H.06]).
"""

from __future__ import annotations

from attrs import frozen

from matrixbox.accounts import addresses
from matrixbox.accounts.addresses import Proof, Wish
from matrixbox.accounts.letters import Site
from matrixbox.accounts.throttle import MAIL_ADDRESS, MAIL_RECIPIENT
from matrixbox.api import parse
from matrixbox.api.call import Call
from matrixbox.api.client.registering import registration_flows
from matrixbox.api.client.stages import EMAIL, require_password, sends_mail
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import BadJson, InvalidParam, MissingParam, ThreepidRefused
from matrixbox.store import addresses as stored
from matrixbox.store.addresses import Purpose

routes = RouteTable()

MINE = "/_matrix/client/v3/account/3pid"
PASSWORD = "/_matrix/client/v3/account/password"  # noqa: S105 (a path)
REGISTER = "/_matrix/client/v3/register"
MEDIA = ("email", "msisdn")
MAX_LINK = 2_000


def site(call: Call) -> Site:
    """This server as people know it."""
    return Site(call.services.env.server_name, call.services.base_url)


# --- messages


@routes.post(f"{REGISTER}/email/requestToken", auth=Auth.NONE)
async def token_to_register(call: Call) -> dict[str, Json]:
    """Send a message to who wants an account."""
    offered = any(EMAIL in flow for flow in registration_flows(call))
    return await _request(call, Purpose.REGISTER, offered=offered)


@routes.post(f"{PASSWORD}/email/requestToken", auth=Auth.NONE)
async def token_for_password(call: Call) -> dict[str, Json]:
    """Send a message to who has forgotten the password."""
    return await _request(call, Purpose.PASSWORD, offered=sends_mail(call))


@routes.post(f"{MINE}/email/requestToken", auth=Auth.NONE)
async def token_to_add(call: Call) -> dict[str, Json]:
    """Send a message to who wants to add an address."""
    return await _request(call, Purpose.ADD, offered=sends_mail(call))


@routes.post(
    f"{REGISTER}/msisdn/requestToken",
    f"{PASSWORD}/msisdn/requestToken",
    f"{MINE}/msisdn/requestToken",
    auth=Auth.NONE,
)
async def token_by_telephone(call: Call) -> dict[str, Json]:
    """Refuse telephone numbers."""
    body = await call.json()
    addresses.check_secret(parse.text(body, "client_secret"))
    if not sends_mail(call):
        raise ThreepidRefused("M_THREEPID_DENIED", "This server keeps no addresses of people.")
    raise ThreepidRefused(
        "M_THREEPID_MEDIUM_NOT_SUPPORTED", "This server cannot send messages to telephones."
    )


async def _request(call: Call, purpose: Purpose, *, offered: bool) -> dict[str, Json]:
    body = await call.json()
    secret = addresses.check_secret(parse.text(body, "client_secret"))
    address = addresses.parse_email(parse.text(body, "email"))
    if "send_attempt" not in body:
        raise MissingParam("`send_attempt` is missing.")
    attempt = parse.optional_integer(body, "send_attempt")
    if attempt is None:
        raise BadJson("`send_attempt` is a number.")
    link = parse.optional_text(body, "next_link")
    if not offered:
        raise ThreepidRefused("M_THREEPID_DENIED", "This server sends no messages for that.")
    wish = Wish(purpose, address, secret, attempt, link if is_plain_link(link) else None)
    return {"sid": await request(call, wish)}


def is_plain_link(link: str | None) -> bool:
    """Whether a page of ours may offer a link of a client's: to a page, nothing else."""
    if link is None or not link.startswith(("https://", "http://")) or len(link) > MAX_LINK:
        return False
    return link.isascii() and link.isprintable() and " " not in link


async def request(call: Call, wish: Wish) -> str:
    """Have a message sent; the id of the session.  Raises LimitExceeded."""
    services = call.services
    services.throttle.take(MAIL_ADDRESS, call.address)
    services.throttle.take(MAIL_RECIPIENT, wish.address)
    now_ms = services.env.clock.now_ms()
    sid: str = await services.store.write(addresses.request, wish, site(call), now_ms)
    return sid


# --- addresses of an account


@routes.get(MINE, auth=Auth.USER)
async def list_mine(call: Call) -> dict[str, Json]:
    """The caller's addresses."""
    found = call.services.store.read(stored.of_user, call.requester.user)
    return {
        "threepids": [
            {
                "medium": one.medium,
                "address": one.address,
                "validated_at": one.validated_ms,
                "added_at": one.added_ms,
            }
            for one in found
        ]
    }


@routes.post(f"{MINE}/add", auth=Auth.USER)
async def add(call: Call) -> dict[str, Json]:
    """Add an address that was proven in a session; the password is asked for."""
    body = await call.json()
    secret = addresses.check_secret(parse.text(body, "client_secret"))
    proof = Proof(parse.text(body, "sid"), secret, Purpose.ADD)
    if not sends_mail(call):
        raise ThreepidRefused("M_THREEPID_DENIED", "This server keeps no addresses of people.")
    services = call.services
    await require_password(call, body, "account/3pid/add")
    now_ms = services.env.clock.now_ms()
    await services.store.write(addresses.give, call.requester.user, proof, now_ms)
    return {}


@frozen
class _Named:
    """An address that a client names."""

    medium: str
    address: str


def _named(body: parse.Body) -> _Named:
    medium, address = parse.text(body, "medium"), parse.text(body, "address")
    if medium not in MEDIA:
        raise InvalidParam("`medium` is `email` or `msisdn`.")
    parse.optional_text(body, "id_server")
    return _Named(medium, address.strip().casefold())


@routes.post(f"{MINE}/delete", auth=Auth.USER)
async def delete(call: Call) -> dict[str, Json]:
    """Take an address from the account; one that is gone already does not matter."""
    named = _named(await call.json())
    user = call.requester.user
    await call.services.store.write(stored.remove, user, named.medium, named.address)
    return {"id_server_unbind_result": "no-support"}


@routes.post(f"{MINE}/unbind", auth=Auth.USER)
async def unbind(call: Call) -> dict[str, Json]:
    """Nothing was ever bound through this server."""
    _named(await call.json())
    return {"id_server_unbind_result": "no-support"}


def _credentials(body: parse.Body) -> None:
    for key in ("client_secret", "id_server", "id_access_token", "sid"):
        parse.text(body, key)


@routes.post(f"{MINE}/bind", auth=Auth.USER)
async def bind(call: Call) -> dict[str, Json]:
    """Refuse to publish an address."""
    _credentials(await call.json())
    raise ThreepidRefused("M_SERVER_NOT_TRUSTED", "This server trusts no identity server.")


@routes.post(MINE, auth=Auth.USER)
async def bind_as_of_old(call: Call) -> dict[str, Json]:
    """The same by its old name, which has another code for it."""
    body = await call.json()
    if "three_pid_creds" not in body:
        raise MissingParam("`three_pid_creds` is missing.")
    creds = parse.optional_object(body, "three_pid_creds")
    if creds is None:
        raise BadJson("`three_pid_creds` is an object.")
    _credentials(creds)
    raise ThreepidRefused("M_THREEPID_AUTH_FAILED", "This server trusts no identity server.")
