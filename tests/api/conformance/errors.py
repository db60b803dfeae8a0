"""The error codes of the specification, with the statuses they come with.

Matrix v1.19, Client-Server API, "Standard error response", and the response tables of the
endpoints; requirements part F.  Where the text gives no status, it is the one this server chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.api.conformance.wire import Answer

STATUSES: Mapping[str, frozenset[int]] = {
    code: frozenset(statuses)
    for code, statuses in {
        "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION": (409,),
        "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD": (400,),
        "M_BAD_ALIAS": (400,),
        "M_BAD_JSON": (400, 405),  # 405: account data that the server manages
        "M_BAD_STATE": (403,),
        "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM": (403,),
        "M_DUPLICATE_ANNOTATION": (400,),
        "M_EXCLUSIVE": (400,),
        "M_FORBIDDEN": (401, 403),  # 401: a stage of user-interactive authentication failed
        "M_GUEST_ACCESS_FORBIDDEN": (403,),
        "M_INCOMPATIBLE_ROOM_VERSION": (400,),
        "M_INVALID_PARAM": (400,),
        "M_INVALID_ROOM_STATE": (400,),
        "M_INVALID_SIGNATURE": (400,),
        "M_INVALID_USERNAME": (400,),
        "M_INVITE_BLOCKED": (403,),
        "M_KEY_TOO_LARGE": (400,),
        "M_LIMIT_EXCEEDED": (429,),
        "M_MISSING_PARAM": (400,),
        "M_MISSING_TOKEN": (401,),
        "M_NOT_FOUND": (404,),
        "M_NOT_JSON": (400,),
        "M_PROFILE_TOO_LARGE": (400,),
        "M_RESOURCE_LIMIT_EXCEEDED": (403,),
        "M_ROOM_IN_USE": (400,),
        "M_SERVER_NOT_TRUSTED": (400,),
        "M_THREEPID_AUTH_FAILED": (403,),
        "M_THREEPID_DENIED": (403,),
        "M_THREEPID_IN_USE": (400,),
        "M_THREEPID_MEDIUM_NOT_SUPPORTED": (400,),
        "M_TOO_LARGE": (413, 414, 431),  # the body or event, the request line, the headers
        "M_UNABLE_TO_AUTHORISE_JOIN": (400,),
        "M_UNABLE_TO_GRANT_JOIN": (400,),
        "M_UNKNOWN": (400, 401, 409, 415, 502, 504),
        "M_UNKNOWN_POS": (400,),
        "M_UNKNOWN_TOKEN": (401,),
        "M_UNRECOGNIZED": (404, 405),
        "M_UNSUPPORTED_ROOM_VERSION": (400,),
        "M_USER_DEACTIVATED": (403,),
        "M_USER_IN_USE": (400,),
        "M_USER_LIMIT_EXCEEDED": (403,),
        "M_USER_LOCKED": (401,),
        "M_USER_SUSPENDED": (403,),
        "M_WEAK_PASSWORD": (400,),
        "M_WRONG_ROOM_KEYS_VERSION": (403,),
    }.items()
}
MORE_MEMBERS: Mapping[str, Mapping[str, type]] = {
    "M_LIMIT_EXCEEDED": {"retry_after_ms": int},
    "M_RESOURCE_LIMIT_EXCEEDED": {"admin_contact": str},
    "M_UNKNOWN_TOKEN": {"soft_logout": bool},
    "M_USER_LOCKED": {"soft_logout": bool},
    "M_WRONG_ROOM_KEYS_VERSION": {"current_version": str},
}
# Every endpoint may answer so, whether its description says it or not.
GENERAL = frozenset({400, 401, 403, 404, 405, 413, 414, 415, 429, 431})

CORS = {
    "access-control-allow-origin": {"*"},
    "access-control-allow-methods": {"GET", "POST", "PUT", "DELETE", "OPTIONS"},
    "access-control-allow-headers": {"x-requested-with", "content-type", "authorization"},
}


def header_problems(answer: Answer) -> list[str]:
    """What is wrong with the headers that every answer has ([C1.01], [C1.04])."""
    problems = cors_problems(answer)
    if answer.headers.get("content-type") != "application/json":
        problems.append(f"Content-Type is {answer.headers.get('content-type')!r}")
    return problems + secret_problems(answer)


# Members of answers that are as good as a password.
SECRETS = frozenset({"access_token", "login_token", "refresh_token"})


def secret_problems(answer: Answer) -> list[str]:
    """What is wrong with the headers of an answer that carries a token (T101)."""
    try:
        body = answer.json
    except ValueError:
        return []
    if not isinstance(body, dict) or not SECRETS & set(body):
        return []
    headers = answer.headers
    kept = headers.get("cache-control") != "no-store" or headers.get("pragma") != "no-cache"
    return ["a token may be kept on the way"] * kept


def cors_problems(answer: Answer) -> list[str]:
    """What is wrong with the headers for browsers ([C1.04])."""
    problems = []
    for name, wanted in CORS.items():
        value = answer.headers.get(name, "")
        given = {item.strip() for item in value.split(",")}
        if name.endswith("headers"):
            given = {item.lower() for item in given}
        if not wanted <= given:
            problems.append(f"{name} is {value!r}")
    return problems


def error_problems(answer: Answer) -> list[str]:
    """What is wrong with the body of an error ([C1.02], part F)."""
    try:
        body = answer.json
    except ValueError:
        return ["the body is no JSON"]
    if not isinstance(body, dict):
        return ["the body is no object"]
    if answer.status == 401 and "flows" in body:
        return _interactive_problems(body)
    return _code_problems(answer, body)


def _code_problems(answer: Answer, body: Mapping[str, Any]) -> list[str]:
    problems = []
    code = body.get("errcode")
    if code not in STATUSES:
        problems.append(f"errcode is {code!r}")
    elif answer.status not in STATUSES[code]:
        problems.append(f"{code} comes with the status {answer.status}")
    if not isinstance(body.get("error"), str) or not body["error"]:
        problems.append("`error` is no text")
    members = MORE_MEMBERS.get(str(code), {})
    for name, kind in members.items():
        if type(body.get(name)) is not kind:
            problems.append(f"{code} lacks {name}")
    for name in set(body) - {"errcode", "error", *members}:
        problems.append(f"{name} is in the body of {code}")
    if answer.status == 429 and not answer.headers.get("retry-after", "").isdigit():
        problems.append("Retry-After is missing")
    return problems


def _interactive_problems(body: Mapping[str, Any]) -> list[str]:
    """User-interactive authentication ([C3.01]): errcode and error come both, or not at all."""
    problems = []
    if not isinstance(body.get("session"), str) or not isinstance(body.get("params"), dict):
        problems.append("`session` or `params` is missing")
    if ("errcode" in body) != ("error" in body):
        problems.append("errcode without error, or error without errcode")
    if set(body) - {"flows", "params", "session", "completed", "errcode", "error"}:
        problems.append(f"more than is known: {sorted(body)}")
    return problems
