"""Who may connect (T072)."""

from __future__ import annotations

import ipaddress

import pytest

from matrixbox.api.admission import Admission, Pool, address_key
from matrixbox.api.bounds import Bounds

BOUNDS = Bounds(connections=20, connections_reserved=6, connections_per_address=4)
STRANGERS = [f"203.0.113.{number}" for number in range(100)]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock | None = None) -> Admission:
    return Admission(BOUNDS, clock=clock or Clock())


def fill(door: Admission) -> int:
    return sum(door.admit(stranger) is not None for stranger in STRANGERS)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.1", "203.0.113.1", True),
        ("203.0.113.1", "203.0.113.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.1", "203.0.113.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


def test_one_address_has_its_share_and_gets_it_back() -> None:
    door = admission()
    pools = [door.admit("2001:db8::1") for _ in range(4)]
    assert None not in pools
    assert door.admit("2001:db8::2") is None
    assert door.admit("2001:db8:0:1::1") is Pool.GENERAL
    door.release("2001:db8::1", Pool.GENERAL)
    assert door.admit("2001:db8::2") is Pool.GENERAL
    assert door.in_use == 5


def test_strangers_never_use_the_reserved_slots() -> None:
    door = admission()
    assert fill(door) == 14
    assert door.admit("198.51.100.1") is None
    assert [door.admit("192.168.1.2") for _ in range(4)] == [Pool.RESERVED] * 4
    assert [door.admit("10.0.0.7") for _ in range(3)] == [Pool.RESERVED] * 2 + [None]


def test_the_household_uses_general_slots_as_well() -> None:
    door = admission()
    homes = [f"192.168.1.{number}" for number in range(30)]
    pools = [door.admit(home) for home in homes]
    assert pools.count(Pool.RESERVED) == 6
    assert pools.count(Pool.GENERAL) == 14


def test_who_has_signed_in_belongs_to_the_household_for_a_day() -> None:
    clock = Clock()
    door = admission(clock)
    door.remember("198.51.100.1")
    fill(door)
    assert door.admit("198.51.100.1") is Pool.RESERVED
    clock.now = 24 * 3600 - 1
    assert door.admit("198.51.100.1") is Pool.RESERVED
    clock.now = 24 * 3600 + 1
    assert door.admit("198.51.100.1") is None


def test_only_so_many_sign_ins_are_remembered() -> None:
    door = admission()
    door.remember("198.51.100.1")
    for number in range(1100):
        door.remember(f"203.{number // 250}.{number % 250}.1")
    fill(door)
    assert door.admit("198.51.100.1") is None
    assert door.admit("203.4.99.1") is Pool.RESERVED


def test_a_proxy_on_this_machine_is_bounded_by_the_pools_alone() -> None:
    door = admission()
    assert sum(door.admit("127.0.0.1") is not None for _ in range(30)) == 20
    strict = Admission(BOUNDS, clock=Clock(), home=[ipaddress.ip_network("10.0.0.0/8")])
    assert sum(strict.admit("127.0.0.1") is not None for _ in range(30)) == 4


def test_everything_is_free_again_at_the_end() -> None:
    door = admission()
    taken = [(host, door.admit(host)) for host in [*STRANGERS, *["192.168.0.1"] * 9]]
    for host, pool in taken:
        if pool is not None:
            door.release(host, pool)
    assert door.in_use == 0
    assert fill(door) == 14
