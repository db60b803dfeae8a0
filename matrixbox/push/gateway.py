"""Calling a push gateway.

Matrix v1.19, Push Gateway API ([E.01], [E.05]; T131, T132).  Redirects are not followed, and which
addresses are dialled is the HTTP client's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import frozen

from matrixbox.config.settings import Outbound
from matrixbox.core import json
from matrixbox.core.json import JsonError
from matrixbox.errors import RemoteInvalid, RemoteRefused
from matrixbox.net.exchange import Limits
from matrixbox.net.guard import AddressGuard, InvalidHost, parse_host
from matrixbox.net.http import HttpClient, InvalidUrl, Url, parse_url

PATH = "/_matrix/push/v1/notify"
CALL_S = 10.0
ANSWER_BYTES = 64 * 1024


class UnfitUrl(ValueError):
    """Not the URL of a push gateway."""


def gateway_url(text: str, guard: AddressGuard) -> Url:
    """The URL of a gateway; raises UnfitUrl for any other (T131).

    An address literal is checked here already; names when they are dialled, each time.
    """
    try:
        url = parse_url(text)
    except InvalidUrl as error:
        raise UnfitUrl(str(error)) from error
    if url.target.partition("?")[0] != PATH:
        raise UnfitUrl(f"the path of a push gateway is {PATH}")
    try:
        host = parse_host(url.host)
    except InvalidHost as error:
        raise UnfitUrl(str(error)) from error
    if not isinstance(host, str) and not guard.allows(host):
        raise UnfitUrl("an address that is not called")
    return url


def guard_of(settings: Outbound) -> AddressGuard:
    """Which addresses gateways may have."""
    return AddressGuard(settings.allow_private_addresses or settings.private_push_gateways)


class Gateway(Protocol):
    """Delivers notifications; a simulation brings its own."""

    async def notify(self, url: str, body: bytes) -> frozenset[str]:
        """Give a notification to the gateway; the pushkeys that it rejects.

        Raises RemoteError when it was not delivered.
        """


@frozen
class HttpGateway:
    """Gateways on the network."""

    http: HttpClient

    async def notify(self, url: str, body: bytes) -> frozenset[str]:
        """See Gateway."""
        limits = Limits(total_s=CALL_S, idle_s=CALL_S, max_bytes=ANSWER_BYTES)
        headers = (("Content-Type", "application/json"),)
        try:
            answer = await self.http.request("POST", url, headers=headers, body=body, limits=limits)
        except InvalidUrl as error:  # stored by a release that thought otherwise
            raise RemoteInvalid(url, str(error)) from error
        if not 200 <= answer.status < 300:
            raise RemoteRefused(url, "the gateway refuses", status=answer.status)
        return rejected_in(url, answer.body)


def rejected_in(url: str, body: bytes) -> frozenset[str]:
    """The pushkeys that an answer rejects; raises RemoteInvalid where it is no such answer."""
    try:
        answer = json.decode(body, json.CLIENT) if body.strip() else {}
    except JsonError as error:
        raise RemoteInvalid(url, "the answer is not JSON") from error
    found = answer.get("rejected", []) if isinstance(answer, Mapping) else None
    if not isinstance(found, list):
        raise RemoteInvalid(url, "the answer is not that of a push gateway")
    return frozenset(key for key in found if isinstance(key, str))
