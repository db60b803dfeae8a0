"""What the server is and can do: versions, capabilities, discovery.

Matrix v1.19, Client-Server API, "API versions", "Capabilities negotiation", "Server discovery"
([C1.08], [C1.09], [C7.01] to [C7.03]).
"""

from __future__ import annotations

from matrixbox.api.call import Call
from matrixbox.api.client.delayed import allowance
from matrixbox.api.client.stages import sends_mail
from matrixbox.api.routes import Auth, RouteTable
from matrixbox.core.json import Json
from matrixbox.core.room_versions import ROOM_VERSIONS
from matrixbox.errors import NotFound

routes = RouteTable()

VERSIONS = ["r0.6.1", *(f"v1.{minor}" for minor in range(1, 20))]
UNSTABLE: dict[str, Json] = {
    "org.matrix.e2e_cross_signing": True,
    "org.matrix.msc3814": True,  # dehydrated devices
    "org.matrix.msc4222": True,  # state_after
    "org.matrix.msc4306": True,  # threads that a user follows
    "org.matrix.simplified_msc3575": True,  # sliding sync
    "uk.half-shot.msc2666.query_mutual_rooms": True,
    "uk.half-shot.msc2666.query_mutual_rooms.stable": True,
}


@routes.get("/_matrix/client/versions", auth=Auth.NONE)
async def versions(call: Call) -> dict[str, Json]:
    """The versions of the specification, and features before their release."""
    features = {**UNSTABLE, "org.matrix.msc4140": bool(allowance(call).most)}
    return {"versions": [*VERSIONS], "unstable_features": features}


@routes.get("/_matrix/client/v3/capabilities", auth=Auth.USER)
async def capabilities(call: Call) -> dict[str, Json]:
    """What this user may do here."""
    default = call.services.env.default_version
    found: dict[str, Json] = {
        "m.change_password": {"enabled": True},
        "m.room_versions": {
            "default": default,
            "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
        },
        "m.3pid_changes": {"enabled": sends_mail(call)},
        "m.get_login_token": {"enabled": True},
        "m.profile_fields": {"enabled": True},
        "m.set_displayname": {"enabled": True},
        "m.set_avatar_url": {"enabled": True},
        "m.forget_forced_upon_leave": {"enabled": False},
    }
    if (limits := allowance(call)).most:
        found["org.matrix.msc4140.delayed_events"] = {
            "max_delay_ms": limits.longest_ms,
            "max_scheduled": limits.most,
        }
    if call.requester.admin:
        found["m.account_moderation"] = {"lock": True, "suspend": True}
    return {"capabilities": found}


@routes.get("/.well-known/matrix/client", auth=Auth.NONE)
async def well_known(call: Call) -> dict[str, Json]:
    """Where clients find this server."""
    return {"m.homeserver": {"base_url": call.services.base_url}}


@routes.get("/.well-known/matrix/support", auth=Auth.NONE)
async def well_known_support(call: Call) -> dict[str, Json]:
    """Whom to ask, if the configuration says so [C1.10]."""
    support = call.services.settings.support
    contacts: list[Json] = []
    for role, user, email in (
        ("m.role.admin", support.admin_user, support.admin_email),
        ("m.role.security", support.security_user, support.security_email),
    ):
        given = {"matrix_id": user, "email_address": email}
        if known := {key: value for key, value in given.items() if value}:
            contacts.append({**known, "role": role})
    answer: dict[str, Json] = {}
    if contacts:
        answer["contacts"] = contacts
    if support.page:
        answer["support_page"] = support.page
    if not answer:
        raise NotFound("Nobody is named")
    return answer
