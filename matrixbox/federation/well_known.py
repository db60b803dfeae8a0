"""Delegation by `/.well-known/matrix/server`: fetched with bounds, kept with jitter.

Matrix v1.19, Server-Server API, "Resolving server names", step 3 [B2.03], [B2.08]; threats T055.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

import trio
from attrs import frozen

from matrixbox.core.identifiers import InvalidIdentifier, ServerName, parse_server_name
from matrixbox.core.json import CLIENT, JsonError, decode
from matrixbox.errors import AddressRefused, RemoteError, RemoteInvalid
from matrixbox.net.caching import Cache, Entry
from matrixbox.net.exchange import Answer, Limits, Request
from matrixbox.net.http import HttpClient, InvalidUrl, Url, parse_url
from matrixbox.observe import log
from matrixbox.tasks import jittered

PATH = "/.well-known/matrix/server"
MAX_BYTES = 50 * 1024
MAX_REDIRECTS = 5
TOTAL_S = 12.0
IDLE_S = 6.0
GIVEN_UP_AFTER_S = 3.0
"""A caller who gave up after so long counts as a failure: else each would wait anew."""

USUAL_LIFE_S = 24 * 3600.0
SHORTEST_LIFE_S = 5 * 60.0
LONGEST_LIFE_S = 48 * 3600.0
FIRST_FAILURE_S = 2 * 60.0
LONGEST_FAILURE_S = 3600.0
MAX_CACHED = 4096

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_AGE = re.compile(r"max-age\s*=\s*\"?([0-9]{1,10})\"?")


@frozen
class Known:
    """What is known of a host: its delegation if it has one, and the failures in a row since."""

    delegated: ServerName | None
    failures: int


class _Transient(Exception):
    """No answer, or one that says nothing about the delegation."""


class WellKnown:
    """Remembers who delegates to whom."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._cache: Cache[str, Known] = Cache(MAX_CACHED)

    async def delegation(self, hostname: str) -> ServerName | None:
        """The server that `hostname` delegates to; None when it delegates to none.

        Never raises for what the network does: a host that cannot be asked delegates to none, but
        for a delegation that is known and at most 48 hours old.
        """
        async with self._cache.alone(hostname):
            entry = self._cache.get(hostname)
            if entry is not None and entry.is_fresh:
                return entry.value.delegated
            known = Known(None, 0) if entry is None else entry.value
            started = trio.current_time()
            try:
                delegated, life_s = await self._fetch(hostname)
            except _Transient:
                return self._in_trouble(hostname, entry).delegated
            except trio.Cancelled:
                if trio.current_time() - started >= GIVEN_UP_AFTER_S:
                    self._in_trouble(hostname, entry)
                raise
            if delegated is None:
                pause_s = jittered(pause_after_failures(known.failures + 1))
                failed = Known(None, known.failures + 1)
                self._cache.put(hostname, failed, pause_s, 2 * pause_s)
                return None
            fresh_s = min(max(jittered(life_s, 0.1), SHORTEST_LIFE_S), LONGEST_LIFE_S)
            self._cache.put(hostname, Known(delegated, 0), fresh_s, LONGEST_LIFE_S)
            log.debug("delegation found", host=hostname, to=delegated, holds_s=round(fresh_s))
            return delegated

    def _in_trouble(self, hostname: str, entry: Entry[Known] | None) -> Known:
        """Remember that the host cannot be asked.

        Its delegation lives on while it is in trouble, up to the longest life.
        """
        known = Known(None, 0) if entry is None else entry.value
        kept = Known(known.delegated, known.failures + 1)
        pause_s = jittered(pause_after_failures(kept.failures))
        left_s = 0.0
        if entry is not None and kept.delegated is not None:
            left_s = entry.useful_until_s - trio.current_time()
        self._cache.put(hostname, kept, min(pause_s, left_s or pause_s), left_s or 2 * pause_s)
        return kept

    def doubt(self, hostname: str) -> None:
        """The delegated server cannot be reached: ask again, unless it was asked just now."""
        entry = self._cache.get(hostname)
        if entry is None or entry.value.delegated is None:
            return
        now = trio.current_time()
        age_s = LONGEST_LIFE_S - (entry.useful_until_s - now)
        if age_s > SHORTEST_LIFE_S and entry.value.failures == 0:
            self._cache.put(hostname, entry.value, 0.0, entry.useful_until_s - now)

    async def _fetch(self, hostname: str) -> tuple[ServerName | None, float]:
        """The delegation, and how long it holds; None when the host clearly has none.

        Raises _Transient.
        """
        url = parse_url(f"https://{hostname}{PATH}")
        seen = {str(url)}
        with trio.move_on_after(TOTAL_S):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await self._get(url)
                if answer is None:
                    return None, 0.0
                if answer.status in _REDIRECTS and "location" in answer.headers:
                    next_url = _redirected(url, answer.headers["location"])
                    if next_url is None or str(next_url) in seen:
                        return None, 0.0
                    url = next_url
                    seen.add(str(url))
                    continue
                if answer.status >= 500 or answer.status in (408, 429):
                    raise _Transient
                if answer.status != 200:
                    return None, 0.0
                return delegation_in(answer.body), life_s(answer.headers)
            return None, 0.0
        raise _Transient

    async def _get(self, url: Url) -> Answer | None:
        """The answer; None when asking again would change nothing.  Raises _Transient."""
        limits = Limits(total_s=TOTAL_S, idle_s=IDLE_S, max_bytes=MAX_BYTES)
        try:
            return await self._http.exchange(url.route, Request("GET", url.target), limits)
        except (RemoteInvalid, AddressRefused):
            return None
        except RemoteError as error:
            raise _Transient from error


def pause_after_failures(failures: int) -> float:
    """How long a host without delegation is not asked again: 2 minutes, doubling to an hour."""
    return min(LONGEST_FAILURE_S, FIRST_FAILURE_S * 2.0 ** min(failures - 1, 10))


def delegation_in(body: bytes) -> ServerName | None:
    """The `m.server` of the document, if it has a valid one; the content type does not matter."""
    try:
        document = decode(body, CLIENT)
        name = document.get("m.server") if isinstance(document, Mapping) else None
        return parse_server_name(name) if isinstance(name, str) else None
    except (JsonError, InvalidIdentifier):
        return None


def life_s(headers: Mapping[str, str]) -> float:
    """How long an answer holds by its cache headers, between 5 minutes and 48 hours."""
    control = headers.get("cache-control", "").lower()
    found: float | None = None
    if any(word in control for word in ("no-store", "no-cache")):
        found = 0.0
    elif age := _MAX_AGE.search(control):
        found = float(age[1])
    elif "expires" in headers and "date" in headers:
        try:
            expires = parsedate_to_datetime(headers["expires"])
            found = (expires - parsedate_to_datetime(headers["date"])).total_seconds()
        except (ValueError, TypeError, OverflowError):
            found = 0.0  # RFC 9111: a date that cannot be read has passed
    if found is None:
        found = USUAL_LIFE_S
    return min(max(found, SHORTEST_LIFE_S), LONGEST_LIFE_S)


def _redirected(url: Url, location: str) -> Url | None:
    """Where a redirect leads; None when it leads to what is not called."""
    try:
        return parse_url(urljoin(str(url), location.strip()))
    except (InvalidUrl, ValueError):
        return None
