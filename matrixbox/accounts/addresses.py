"""E-mail addresses of accounts: who may have one, and how that is proven.

Matrix v1.19, Client-Server API, "Adding Account Administrative Contact Information" and the
`requestToken` endpoints ([C4.05] to [C4.07], [C4.10], T094).

Whoever asks for a message is told the same, whether the address belongs to somebody or not: what
there is to say stands in the message.  A link is good for an hour and for one use; what it proves
is good for an hour, for one purpose, and for who knows the client's secret.
"""

from __future__ import annotations

import hmac
import re
import secrets

from attrs import evolve, frozen

from matrixbox.accounts import letters
from matrixbox.accounts.hashing import hash_token
from matrixbox.accounts.letters import Site
from matrixbox.errors import InvalidParam, LimitExceeded, ThreepidRefused
from matrixbox.store import addresses, mail
from matrixbox.store.addresses import Purpose, Validation
from matrixbox.store.nids import UserNid
from matrixbox.store.transaction import Tx

LINK_S = 3_600.0  # that a link is good for, and then what it has proven
MAX_ADDRESSES = 20  # of one account
MAX_SESSIONS = 5_000
MAX_WAITING = 500  # messages
FULL_RETRY_MS = 60_000
MAX_BYTES = 254
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_SECRET = re.compile(r"[0-9a-zA-Z.=_-]{1,255}")


@frozen
class Wish:
    """What a client wants a message to be sent for."""

    purpose: Purpose
    address: str
    client_secret: str
    send_attempt: int
    next_link: str | None = None


@frozen
class Proof:
    """A session in which an address was proven, and that has not been used."""

    sid: str
    secret: str
    purpose: Purpose


def parse_email(text: str) -> str:
    """An e-mail address as it is compared and stored ([G.09]); raises InvalidParam.

    Only what every mail server takes: no quotes, no letters beyond ASCII.
    """
    folded = text.strip().casefold()
    local, at, domain = folded.rpartition("@")
    fits = len(folded) <= MAX_BYTES and len(local) <= 64
    if not at or not fits or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise InvalidParam("That is not an e-mail address that this server can use.")
    return folded


def check_secret(text: str) -> str:
    """A client's secret; raises InvalidParam."""
    if _SECRET.fullmatch(text) is None:
        raise InvalidParam("`client_secret` has 1 to 255 of the characters 0-9 a-z A-Z . = _ -")
    return text


def request(tx: Tx, wish: Wish, site: Site, now_ms: int) -> str:
    """Have a message sent, unless this very one was asked for before; the id of the session."""
    if addresses.end_expired(tx, now_ms) >= MAX_SESSIONS or mail.count(tx) >= MAX_WAITING:
        raise LimitExceeded(FULL_RETRY_MS, "Too many messages wait to be sent")
    hashed = hash_token(wish.client_secret)
    known = addresses.find_session(tx, wish.purpose, wish.address, hashed)
    if known is not None and wish.send_attempt <= known.send_attempt:
        return known.sid
    until_ms = now_ms + round(LINK_S * 1000)
    if known is not None and known.validated_ms is not None:
        until_ms = known.until_ms  # asking again proves nothing anew
    token = secrets.token_urlsafe(32)
    owned = addresses.owner(tx, wish.address) is not None
    # Whom there is nothing to confirm for gets a message that says so, without a link.
    useful = owned is (wish.purpose is Purpose.PASSWORD)
    made = Validation(
        secrets.token_urlsafe(18) if known is None else known.sid,
        wish.purpose,
        wish.address,
        hashed,
        wish.send_attempt,
        hash_token(token) if useful else None,
        wish.next_link,
        until_ms,
        None if known is None else known.validated_ms,
    )
    addresses.put_session(tx, made)
    link = letters.link(site, made.sid, token) if useful else None
    subject, text = letters.about(wish.purpose, site, link)
    mail.put(tx, wish.address, subject, text, now_ms, until_ms)
    return made.sid


def opened(tx: Tx, sid: str, token: str, now_ms: int) -> Validation:
    """The session behind a link; raises ThreepidRefused for one that is over, used or wrong."""
    found = addresses.session(tx, sid)
    if found is None:
        raise ThreepidRefused("M_NO_VALID_SESSION", "This link is not known, or has expired.")
    if found.until_ms <= now_ms:
        raise ThreepidRefused("M_SESSION_EXPIRED", "This link has expired.")
    tried = hash_token(token)
    if found.token_hash is None or not hmac.compare_digest(found.token_hash, tried):
        raise ThreepidRefused("M_TOKEN_INCORRECT", "This link is wrong, or was used already.")
    return found


def confirm(tx: Tx, sid: str, token: str, now_ms: int) -> Validation:
    """Use a link up: the address is proven.  Raises as ``opened``."""
    found = opened(tx, sid, token, now_ms)
    done = evolve(
        found, token_hash=None, validated_ms=now_ms, until_ms=now_ms + round(LINK_S * 1000)
    )
    addresses.put_session(tx, done)
    return done


def require_proven(tx: Tx, proof: Proof, now_ms: int) -> Validation:
    """The session that proves an address; raises ThreepidRefused."""
    found = addresses.session(tx, proof.sid)
    hashed = hash_token(proof.secret)
    if (
        found is None
        or found.validated_ms is None
        or found.purpose is not proof.purpose
        or found.until_ms <= now_ms
        or not hmac.compare_digest(found.secret_hash, hashed)
    ):
        raise ThreepidRefused(
            "M_THREEPID_AUTH_FAILED", "The address has not been confirmed, or too long ago."
        )
    return found


def use(tx: Tx, proof: Proof, now_ms: int) -> Validation:
    """Use a proof up; raises ThreepidRefused."""
    found = require_proven(tx, proof, now_ms)
    addresses.end_session(tx, found.sid)
    return found


def give(tx: Tx, user: UserNid, proof: Proof, now_ms: int) -> None:
    """Give an account the address that was proven; raises ThreepidRefused."""
    found = use(tx, proof, now_ms)
    owner = addresses.owner(tx, found.address)
    if owner not in (None, user):
        raise ThreepidRefused("M_THREEPID_IN_USE", "That address belongs to another account.")
    if owner is None and len(addresses.of_user(tx, user)) >= MAX_ADDRESSES:
        raise ThreepidRefused("M_THREEPID_DENIED", "An account cannot have more addresses.")
    assert found.validated_ms is not None
    addresses.add(tx, user, found.address, found.validated_ms, now_ms)
