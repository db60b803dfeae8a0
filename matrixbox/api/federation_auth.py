"""Which server calls: the X-Matrix signature of a request.

Matrix v1.19, Server-Server API, "Request Authentication" ([B4.01] to [B4.07], T064 to T068).  The
order keeps refusals cheap: the header, then the budget of the address, then the body, then keys.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from attrs import define, frozen

from matrixbox.accounts.throttle import Rate, Throttle
from matrixbox.api.call import Call
from matrixbox.api.routes import BodyKind
from matrixbox.core.identifiers import (
    InvalidIdentifier,
    KeyId,
    ServerName,
    parse_key_id,
    parse_server_name,
)
from matrixbox.core.json import JsonError, encode_canonical
from matrixbox.errors import BadJson, Unauthorized
from matrixbox.federation.client import Destinations, request_bytes
from matrixbox.federation.keyring import Keyring
from matrixbox.rooms.remote import Signed
from matrixbox.tasks import Offload, in_thread

MAX_PARAMETERS = 16
MAX_HEADERS = 4
KEYS_WAIT_S = 10.0
"""How long a request waits for the keys of a server that is not known yet (T049)."""
FAILURES = Rate(burst=60, every_s=1)
"""Requests without a good signature, per address; 429 beyond (T068)."""
_ENCODED_IN_THREAD_OVER_BYTES = 128 * 1024

_SCHEME = re.compile(r"x-matrix +", re.IGNORECASE)
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 RFC 9110 5.6.2, not a secret
_PARAMETER = re.compile(
    rf'(?P<name>{_TOKEN})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s",]*))[ \t]*'
)
_GAP = re.compile(r"[ \t,]*")
_ESCAPED = re.compile(r"\\(.)")


@frozen
class XMatrix:
    """What an Authorization header of this scheme says."""

    origin: ServerName
    destination: str | None
    key_id: KeyId
    signature: str


def parse_x_matrix(header: str) -> XMatrix | None:
    """Read a header; None for another scheme.  Raises Unauthorized for what is malformed.

    As lenient as RFC 9110 and older servers need: names in any case and order, blanks around
    commas and equals signs, values with or without quotes, unknown parameters (T064).
    """
    scheme = _SCHEME.match(header)
    if scheme is None:
        return None
    values = _parameters(header, scheme.end())
    try:
        return XMatrix(
            parse_server_name(values["origin"]),
            values.get("destination"),
            parse_key_id(values["key"]),
            # The prose calls it so; everybody sends `sig` [B4.02].
            values["sig"] if "sig" in values else values["signature"],
        )
    except KeyError as error:
        raise Unauthorized(f"The Authorization header has no {error.args[0]}") from error
    except InvalidIdentifier as error:
        raise Unauthorized(f"The Authorization header holds something that is {error}") from error


def _parameters(header: str, at: int) -> dict[str, str]:
    values: dict[str, str] = {}
    at = _end(_GAP, header, at)
    while at < len(header):
        found = _PARAMETER.match(header, at)
        at = len(header) if found is None else found.end()
        after = _end(_GAP, header, at)
        is_separated = after == len(header) or "," in header[at:after]
        if found is None or not is_separated or len(values) == MAX_PARAMETERS:
            raise Unauthorized("The Authorization header is malformed")
        at = after
        name, quoted = found["name"].lower(), found["quoted"]
        if name in values:
            raise Unauthorized("The Authorization header names something twice")
        values[name] = found["plain"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
    return values


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


@define(eq=False)
class FederationAuthenticator:
    """Finds out which server has signed a request."""

    server_name: ServerName
    keyring: Keyring
    destinations: Destinations
    throttle: Throttle
    offload: Offload = in_thread

    async def origin(self, call: Call) -> ServerName:
        """The server that calls.  Raises Unauthorized, LimitExceeded, and what the body raises."""
        headers = self._read(call)
        payer = _payer(call.address, headers)
        if payer == call.address or not self._knows(headers):
            # Who only claims a name must not keep its owner out: with known keys we look first.
            self.throttle.require(FAILURES, payer)
        try:
            if not headers:
                raise Unauthorized("The request is not signed")
            self._check_names(headers)
            origin = headers[0].origin
            message = await self._signed_bytes(call, origin)
            verdict = await self._verify(call, headers, message)
            if verdict is Signed.UNKNOWN:
                raise Unauthorized(f"The keys of {origin} could not be had")
            if verdict is Signed.INVALID:
                raise Unauthorized("The signature is not good")
        except Unauthorized:
            self.throttle.take(FAILURES, payer)
            raise
        call.spender = origin
        self.destinations.alive(origin)
        return origin

    def _read(self, call: Call) -> list[XMatrix]:
        values = call.all_headers("authorization")
        if len(values) > MAX_HEADERS:
            raise Unauthorized("There are too many Authorization headers")
        return [found for value in values if (found := parse_x_matrix(value)) is not None]

    def _knows(self, headers: list[XMatrix]) -> bool:
        """Whether the keys that the request claims are known already."""
        signatures = {header.key_id: header.signature for header in headers}
        return bool(headers) and self.keyring.knows_for_request(headers[0].origin, signatures)

    def _check_names(self, headers: list[XMatrix]) -> None:
        """One origin, which is not us, and if a destination is given, it is us (T058, T066)."""
        origin = headers[0].origin
        if origin == self.server_name:
            raise Unauthorized("That is this server's own name")
        for header in headers:
            if header.origin != origin:
                raise Unauthorized("The request is signed in several names")
            if header.destination not in (None, self.server_name):
                raise Unauthorized("The request is meant for another server")

    async def _signed_bytes(self, call: Call, origin: ServerName) -> bytes:
        """What must be signed: the target as it came, the body as JSON (T065)."""
        content = None
        if call.route.body is BodyKind.JSON:
            body = await call.json()
            try:
                if int(call.header("content-length") or 0) > _ENCODED_IN_THREAD_OVER_BYTES:
                    content = await self.offload(encode_canonical, body)
                else:
                    content = encode_canonical(body)
            except JsonError as error:
                raise BadJson("The body has no canonical form") from error
        elif call.route.body is not BodyKind.NONE:
            raise TypeError(f"{call.route.patterns}: what is signed must be JSON, or nothing")
        return request_bytes(call.method, call.raw_target, origin, self.server_name, content)

    async def _verify(self, call: Call, headers: list[XMatrix], message: bytes) -> Signed:
        origin = headers[0].origin
        signatures = {header.key_id: header.signature for header in headers}
        if self.keyring.knows_for_request(origin, signatures):
            return await self.keyring.verify_request(origin, message, signatures)
        verdict = Signed.UNKNOWN
        # Meanwhile the request holds no slot, or unknown servers would take them all (T049).
        async with call.waiting(KEYS_WAIT_S):
            verdict = await self.keyring.verify_request(origin, message, signatures)
        return verdict  # noqa: RET504 the block may end without it


def _payer(address: str, headers: list[XMatrix]) -> str:
    """Whom failures are counted for; behind a proxy of our own all addresses look the same."""
    try:
        is_proxy = ip_address(address).is_loopback
    except ValueError:
        is_proxy = True  # no address at all: a socket, or a simulation
    return headers[0].origin if is_proxy and headers else address
