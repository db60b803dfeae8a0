"""The limits of the front door, in one place.

The specification sets no limits for HTTP; these are sized for a machine with 1 GB of memory. The
defaults are what a household runs with, and a test keeps them equal to the documented table. Tests
pass shorter times through the constructor.
"""

from __future__ import annotations

from math import inf

from attrs import frozen

KIB = 1024
MIB = 1024 * KIB

BODY_UNAUTHENTICATED = 64 * KIB
"""Login, registration, OAuth, well-known: whatever is read before anybody has shown a token."""
BODY_CLIENT = 1 * MIB
BODY_KEYS = 4 * MIB
"""`keys/upload`, `sendToDevice`, `room_keys`."""
BODY_FEDERATION = 1 * MIB
BODY_FEDERATION_MEMBERSHIP = 512 * KIB
"""Joins, leaves, knocks and invites of other servers."""
BODY_FEDERATION_SEND = 12 * MIB + 512 * KIB


@frozen(kw_only=True)
class Bounds:
    """Every limit on connections and requests; times in seconds, sizes in bytes."""

    # Connections: the sum, and those among them that are kept for the household.
    connections: int = 512
    connections_reserved: int = 128
    connections_per_address: int = 48
    signed_in_s: float = 24 * 3600
    spare_descriptors: int = 128

    # Deadlines. The head's runs from accept, and again from the first byte of a further request.
    handshake_s: float = 10
    head_s: float = 10
    idle_s: float = 60
    json_body_s: float = 60
    stream_body_s: float = 30 * 60
    drain_s: float = 2
    stop_s: float = 8
    """Of the 10 s for an orderly stop; the rest is for what is closed after the listeners."""

    # Rates, for bodies on their way in and answers on their way out.
    slowest_bytes_per_s: float = 1024
    body_grace_s: float = 10
    send_stall_s: float = 20
    rate_window_s: float = 60

    # One request.
    request_line_bytes: int = 8 * KIB
    head_bytes: int = 16 * KIB
    header_fields: int = 100
    requests_per_connection: int = 1000
    drain_bytes: int = 64 * KIB
    spool_over_bytes: int = 256 * KIB
    """A body above this size waits on disk, not in memory, until it is parsed."""
    large_body_bytes: int = 1 * MIB
    large_bodies_at_once: int = 1
    large_body_wait_s: float = 20

    # Requests being handled; those that wait for news are counted apart.
    requests_at_once: int = 128
    requests_per_user: int = 24
    requests_per_origin: int = 8
    requests_queued_per_origin: int = 16
    waiting_per_user: int = 48
    slot_wait_s: float = 20

    sweep_s: float = 0.5
    """How often deadlines and hang-ups are looked at; a deadline is met to within this."""


UNBOUNDED = inf
