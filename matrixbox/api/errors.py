"""Failures as HTTP answers; nothing else in matrixbox knows both.

Matrix v1.19, Client-Server API, "Standard error response" and "Rate limiting"; requirements C1.02,
F1.01.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import cast

from matrixbox.api.answers import Header, Response, json_response
from matrixbox.core import json
from matrixbox.errors import LimitExceeded, MatrixError, MethodNotAllowed
from matrixbox.observe import log


def error_response(error: MatrixError) -> Response:
    """The answer to a failure that the client may see."""
    headers: tuple[Header, ...] = ()
    if isinstance(error, LimitExceeded):
        seconds = max(1, ceil(error.retry_after_ms / 1000))
        headers = ((b"retry-after", b"%d" % seconds),)
    return json_response(cast(Mapping[str, json.Json], error.json()), error.status, headers)


def wrong_method(allowed: tuple[str, ...]) -> Response:
    """405 with the methods that there are (RFC 9110 15.5.6)."""
    error = MethodNotAllowed()
    headers = ((b"allow", ", ".join(allowed).encode("ascii")),)
    return json_response({"errcode": error.errcode, "error": error.text}, error.status, headers)


def bug_response(error: BaseException, *, route: str) -> Response:
    """The answer to a bug: logged with an id, of which alone the client learns."""
    error_id = log.bug("request failed", error, route=route)
    text = f"Internal server error {error_id}"
    return json_response({"errcode": "M_UNKNOWN", "error": text}, 500)


def only_matrix_error(error: BaseException) -> MatrixError | None:
    """The MatrixError that this is, also as the one member of a nursery's group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, MatrixError) else None
