"""The defaults are those of the documented table (section 3 of the threats)."""

from __future__ import annotations

from matrixbox.api import bounds
from matrixbox.api.bounds import KIB, MIB, Bounds


def test_the_defaults_are_the_documented_ones() -> None:
    found = Bounds()
    assert (found.connections, found.connections_per_address) == (512, 48)
    assert (found.connections_reserved, found.signed_in_s) == (128, 24 * 3600)
    assert found.spare_descriptors == 128
    assert (found.handshake_s, found.head_s) == (10, 10)
    assert (found.request_line_bytes, found.head_bytes) == (8 * KIB, 16 * KIB)
    assert found.header_fields == 100
    assert (found.json_body_s, found.stream_body_s) == (60, 30 * 60)
    assert (found.body_grace_s, found.slowest_bytes_per_s) == (10, KIB)
    assert (found.send_stall_s, found.rate_window_s) == (20, 60)
    assert (found.idle_s, found.requests_per_connection) == (60, 1000)
    assert (found.drain_bytes, found.drain_s) == (64 * KIB, 2)
    assert (found.large_body_bytes, found.large_bodies_at_once) == (MIB, 1)
    assert found.large_body_wait_s == 20
    assert (found.requests_at_once, found.requests_per_user) == (128, 24)
    assert (found.requests_per_origin, found.requests_queued_per_origin) == (8, 16)
    assert found.spool_over_bytes <= 256 * KIB
    assert found.stop_s + 1 < 10


def test_the_sizes_of_bodies_are_the_documented_ones() -> None:
    assert bounds.BODY_UNAUTHENTICATED == 64 * KIB
    assert (bounds.BODY_CLIENT, bounds.BODY_KEYS) == (MIB, 4 * MIB)
    assert bounds.BODY_FEDERATION_SEND == 12.5 * MIB
    assert (bounds.BODY_FEDERATION_MEMBERSHIP, bounds.BODY_FEDERATION) == (512 * KIB, MIB)
