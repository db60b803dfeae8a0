"""Pushers, and the list of notifications.

Matrix v1.19, Client-Server API, "Push Notifications", "Listing Notifications" ([C14.16], [C14.17],
[E.06]).
"""

from __future__ import annotations

from attrs import evolve

from matrixbox.accounts.addresses import parse_email
from matrixbox.api import parse
from matrixbox.api.answers import JSON_HEADERS, Response
from matrixbox.api.call import Call
from matrixbox.api.client.stages import sends_mail
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json, encode
from matrixbox.errors import BadJson, InvalidParam, MissingParam
from matrixbox.push import pushers
from matrixbox.push.gateway import guard_of
from matrixbox.store import addresses
from matrixbox.store import pushers as stored
from matrixbox.store.caches import Session
from matrixbox.store.pushers import Pusher, PusherNid
from matrixbox.store.transaction import Tx

routes = RouteTable()

MAX_PAGE = 100
NEEDED = ("app_display_name", "device_display_name", "lang", "data")


@routes.get("/_matrix/client/v3/pushers", auth=Auth.USER)
async def list_pushers(call: Call) -> dict[str, Json]:
    """The caller's pushers."""
    found = call.services.store.read(stored.of_user, call.requester.user)
    return {"pushers": [pushers.shown(one) for one in found]}


@routes.post("/_matrix/client/v3/pushers/set", auth=Auth.USER)
async def set_pusher(call: Call) -> dict[str, Json]:
    """Make, change or remove a pusher."""
    body = await call.json()
    if "kind" not in body:
        raise MissingParam("`kind` is missing.")
    kind = parse.optional_text(body, "kind")
    app_id, pushkey = parse.text(body, "app_id"), parse.text(body, "pushkey")
    store, who = call.services.store, call.requester
    if kind is None:
        await store.write(stored.remove_of, who.user, app_id, pushkey)
        return {}
    append = parse.flag(body, "append")
    pusher = _pusher(call, body, app_id, pushkey)
    if kind == "email":
        pusher = _to_address(call, pusher)
    elif kind != "http":
        raise InvalidParam("Pushers are of the kind `http` or `email`.")
    elif pusher.is_mail:
        raise InvalidParam("`data` holds the `url` of a push gateway.")
    pushers.check(pusher, guard_of(call.services.settings.outbound))
    await store.write(_put, who, pusher, append)
    return {}


def _put(tx: Tx, who: Session, pusher: Pusher, append: bool) -> None:
    pushers.put(tx, who, pusher, append=append)


def _pusher(call: Call, body: parse.Body, app_id: str, pushkey: str) -> Pusher:
    missing = [key for key in NEEDED if key not in body]
    if missing:
        raise MissingParam(f"Missing: {', '.join(missing)}.")
    data = parse.optional_object(body, "data")
    if data is None:
        raise BadJson("`data` is an object.")
    return Pusher(
        nid=PusherNid(0),
        user=call.requester.user,
        app_id=app_id,
        pushkey=pushkey,
        app_display_name=parse.text(body, "app_display_name"),
        device_display_name=parse.text(body, "device_display_name"),
        profile_tag=parse.optional_text(body, "profile_tag"),
        lang=parse.text(body, "lang"),
        data=data,
        set_ms=call.services.env.clock.now_ms(),
    )


def _to_address(call: Call, pusher: Pusher) -> Pusher:
    """A pusher that writes to one of the caller's own addresses ([E.06])."""
    if not sends_mail(call):
        raise InvalidParam("This server sends no e-mail: it has pushers of the kind `http` only.")
    if pusher.app_id != stored.MAIL_APP:
        raise InvalidParam(f"`app_id` of a pusher of the kind `email` is `{stored.MAIL_APP}`.")
    address = parse_email(pusher.pushkey)
    if call.services.store.read(addresses.owner, address) != call.requester.user:
        raise InvalidParam("That address is not one of your account's.")
    data = {key: value for key, value in pusher.data.items() if key not in ("url", "format")}
    return evolve(pusher, pushkey=address, data=data)


@routes.get("/_matrix/client/v3/notifications", auth=Auth.USER)
async def notifications(call: Call) -> Response:
    """What the caller was notified of, newest first."""
    services = call.services
    limit = parse.query_integer(call.param("limit"), "limit", 20, 1, MAX_PAGE)
    # `only` may be anything; one word of it has a meaning.
    only_highlights = call.param("only") == "highlight"

    def read(tx: Tx) -> bytes:
        page = pushers.notifications(
            tx,
            call.requester.user,
            call.param("from"),
            limit,
            services.env.clock.now_ms(),
            only_highlights=only_highlights,
        )
        answer: dict[str, Json] = {"notifications": page.notifications}
        if page.following is not None:
            answer["next_token"] = page.following
        return encode(answer)

    return Response(body=await services.store.read_long(read), headers=JSON_HEADERS)
