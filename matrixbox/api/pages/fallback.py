"""User-interactive stages in a browser, for clients that do not know a stage themselves.

Matrix v1.19, Client-Server API, "Fallback" of the User-Interactive Authentication API ([C3.07]).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from html import escape

from matrixbox.accounts import addresses
from matrixbox.accounts.addresses import Wish
from matrixbox.accounts.uia import TooEarly
from matrixbox.api.answers import Response
from matrixbox.api.call import Call
from matrixbox.api.client.addresses import request
from matrixbox.api.client.stages import (
    DUMMY,
    EMAIL,
    PASSWORD,
    TOKEN,
    email_stage,
    password_stage,
    sends_mail,
    token_stage,
)
from matrixbox.api.pages.html import page
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.core.json import Json
from matrixbox.errors import Forbidden, InvalidParam, MatrixError, NotFound
from matrixbox.store.addresses import Purpose

routes = RouteTable()

PATH = "/_matrix/client/v3/auth/{auth_type}/fallback/web"
DONE = (
    "if(window.onAuthDone){window.onAuthDone()}"
    "else if(window.opener&&window.opener.postMessage){window.opener.postMessage('authDone','*')}"
)
FIELDS: Mapping[str, str] = {
    DUMMY: "<p>Nothing more is needed.</p>",
    TOKEN: '<p><label>Registration token<br><input name="token" required></label></p>',
    EMAIL: (
        '<p><label>Your e-mail address<br><input name="email" type="email" required></label></p>'
        "<p>We send you a message with a link to open.</p>"
    ),
    PASSWORD: (
        '<p><label>Your password<br><input name="password" type="password" required></label></p>'
    ),
}


WAITING = "<p>Open the link in the message that we have sent you, then go on here.</p>"


def _form(kind: str, session: str, trouble: str = "", fields: str | None = None) -> Response:
    fields = FIELDS[kind] if fields is None else fields
    warning = f"<p><strong>{escape(trouble)}</strong></p>" if trouble else ""
    body = (
        f'{warning}<form method="post"><input type="hidden" name="session" '
        f'value="{escape(session)}">{fields}<button>Continue</button></form>'
    )
    return page("Authentication", body, status=401 if trouble else 200)


def _stage(call: Call) -> str:
    kind = call.path["auth_type"]
    if kind not in FIELDS or (kind == EMAIL and not sends_mail(call)):
        raise NotFound("This server has no such stage of authentication.")
    return kind


@routes.get(PATH, auth=Auth.NONE, cors=False)
async def show(call: Call) -> Response:
    """The form of a stage."""
    kind = _stage(call)
    session = call.param("session")
    if not session:
        raise InvalidParam("`session` is missing.")
    call.services.uia.action_of(session)
    return _form(kind, session)


@routes.post(PATH, auth=Auth.NONE, body=BodyKind.FORM, cors=False)
async def submit(call: Call) -> Response:
    """Try the stage; the page tells the client when it is done."""
    kind = _stage(call)
    form = {name: values[0] for name, values in (await call.form()).items()}
    session = form.get("session", "")
    action = call.services.uia.action_of(session)
    try:
        if kind == TOKEN:
            await token_stage(call)(form)
        elif kind == PASSWORD and not action.user:
            raise Forbidden("There is no password to ask for yet.")
        elif kind == EMAIL:
            return await _submit_email(call, session, action.endpoint, form.get("email"))
        elif kind == PASSWORD:
            identified = {"identifier": {"type": "m.id.user", "user": action.user}}
            await password_stage(call, action.user)({**form, **identified})
        call.services.uia.complete(session, kind)
    except MatrixError as error:
        return _form(kind, session, error.text)
    return page("Thank you", "<p>You can close this window.</p>", script=DONE)


PURPOSES = {"register": Purpose.REGISTER, "account/password": Purpose.PASSWORD}


async def _submit_email(call: Call, session: str, endpoint: str, address: str | None) -> Response:
    """Send a message; then, when asked again, see whether its link was opened."""
    uia, purpose = call.services.uia, PURPOSES.get(endpoint)
    if purpose is None:
        raise Forbidden("An e-mail address is of no use for that.")
    if address is not None:
        secret = secrets.token_urlsafe(24)
        sid = await request(call, Wish(purpose, addresses.parse_email(address), secret, 1))
        creds: dict[str, Json] = {"sid": sid, "client_secret": secret}
        uia.remember_early(session, EMAIL, {"threepid_creds": creds})
        return _form(EMAIL, session, fields=WAITING)
    auth = uia.early(session, EMAIL)
    if auth is None:
        return _form(EMAIL, session)
    try:
        proof = await email_stage(call, purpose)(auth)
    except TooEarly as error:
        return _form(EMAIL, session, error.text, fields=WAITING)
    uia.complete(session, EMAIL, proof)
    return page("Thank you", "<p>You can close this window.</p>", script=DONE)
