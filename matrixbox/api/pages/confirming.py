"""The page behind a link in a message: it shows what will happen, and a button makes it happen.

Programs that look into mail for harmful links open them: opening alone confirms nothing.  What
stands in the form is the link's own secret, so nobody else can send it (T102).
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

from matrixbox.accounts import addresses
from matrixbox.accounts.letters import PATH, WANTED
from matrixbox.accounts.throttle import MAIL_CHECKS
from matrixbox.api.answers import Response
from matrixbox.api.call import Call
from matrixbox.api.pages.html import page
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.errors import ThreepidRefused
from matrixbox.store.addresses import Purpose, Validation

routes = RouteTable()

PAGE = f"{PATH}/{{sid}}"
AFTER: Mapping[Purpose, str] = {
    Purpose.REGISTER: "Go back to where you began: your account can be made now.",
    Purpose.ADD: "Go back to where you began: the address can be added now.",
    Purpose.PASSWORD: "Go back to where you began: the new password can be set now.",
}


def _wanted(call: Call, found: Validation) -> str:
    return escape(WANTED[found.purpose].format(name=call.services.env.server_name))


def _trouble(error: ThreepidRefused) -> Response:
    body = f"<p>{escape(error.text)}</p><p>Ask for another message where you began.</p>"
    return page("This link cannot be used", body, status=error.status)


@routes.get(PAGE, auth=Auth.NONE, cors=False)
async def show(call: Call) -> Response:
    """What the link is for, with a button."""
    services, token = call.services, call.param("token") or ""
    services.throttle.take(MAIL_CHECKS, call.address)
    now_ms = services.env.clock.now_ms()
    try:
        found = services.store.read(addresses.opened, call.path["sid"], token, now_ms)
    except ThreepidRefused as error:
        return _trouble(error)
    body = (
        f"<p>Somebody wants to {_wanted(call, found)}:"
        f" <strong>{escape(found.address)}</strong>.</p>"
        f'<form method="post"><input type="hidden" name="token" value="{escape(token)}">'
        "<button>That was me: confirm</button></form>"
        "<p>If it was not you, close this page.</p>"
    )
    return page("Confirm your address", body)


@routes.post(PAGE, auth=Auth.NONE, body=BodyKind.FORM, cors=False)
async def confirm(call: Call) -> Response:
    """Use the link up."""
    form = await call.form()
    token = form.get("token", [""])[0]
    services = call.services
    services.throttle.take(MAIL_CHECKS, call.address)
    now_ms = services.env.clock.now_ms()
    try:
        done = await services.store.write(addresses.confirm, call.path["sid"], token, now_ms)
    except ThreepidRefused as error:
        return _trouble(error)
    return page("Thank you", f"<p>{escape(AFTER[done.purpose])}</p>{_next(done)}")


def _next(done: Validation) -> str:
    """Where the client wants its user to go; the user sees where that is, and decides."""
    if done.next_link is None:
        return ""
    host = urlsplit(done.next_link).netloc
    return (
        f'<p><a href="{escape(done.next_link)}" rel="noopener noreferrer">'
        f"Go on to {escape(host)}</a></p>"
    )
