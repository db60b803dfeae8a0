"""User-interactive stages in a browser, for clients that do not know a stage themselves.

Matrix v1.19, Client-Server API, "Fallback" of the User-Interactive Authentication API ([C3.07]).
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from matrixbox.api.answers import Response
from matrixbox.api.call import Call
from matrixbox.api.client.stages import DUMMY, PASSWORD, TOKEN, password_stage, token_stage
from matrixbox.api.pages.html import page
from matrixbox.api.routes import Auth, BodyKind, RouteTable
from matrixbox.errors import Forbidden, InvalidParam, MatrixError, NotFound

routes = RouteTable()

PATH = "/_matrix/client/v3/auth/{auth_type}/fallback/web"
DONE = (
    "if(window.onAuthDone){window.onAuthDone()}"
    "else if(window.opener&&window.opener.postMessage){window.opener.postMessage('authDone','*')}"
)
FIELDS: Mapping[str, str] = {
    DUMMY: "<p>Nothing more is needed.</p>",
    TOKEN: '<p><label>Registration token<br><input name="token" required></label></p>',
    PASSWORD: (
        '<p><label>Your password<br><input name="password" type="password" required></label></p>'
    ),
}


def _form(kind: str, session: str, trouble: str = "") -> Response:
    warning = f"<p><strong>{escape(trouble)}</strong></p>" if trouble else ""
    body = (
        f'{warning}<form method="post"><input type="hidden" name="session" '
        f'value="{escape(session)}">{FIELDS[kind]}<button>Continue</button></form>'
    )
    return page("Authentication", body, status=401 if trouble else 200)


def _stage(call: Call) -> str:
    kind = call.path["auth_type"]
    if kind not in FIELDS:
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
        elif kind == PASSWORD:
            identified = {"identifier": {"type": "m.id.user", "user": action.user}}
            await password_stage(call, action.user)({**form, **identified})
        call.services.uia.complete(session, kind)
    except MatrixError as error:
        return _form(kind, session, error.text)
    return page("Thank you", "<p>You can close this window.</p>", script=DONE)
