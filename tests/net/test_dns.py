"""Names: the DNS with its cache, the hosts file, the system (threats T053, T056; [B2.05])."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from matrixbox.net import dns, name_servers, records
from matrixbox.net.exchange import Target
from matrixbox.net.guard import InvalidHost, IPAddress
from matrixbox.net.hosts import HostsFile, ask_system
from matrixbox.net.records import LookupFailed, Service
from tests.net.names import System, name_server, resolver_of

FED = "_matrix-fed._tcp"


def addresses(*texts: str) -> tuple:
    return tuple(map(ip_address, texts))


@pytest.fixture
def clock(mock_clock):
    """Time passes as always, and jumps when the test says so."""
    mock_clock.rate = 1
    return mock_clock


async def test_both_families_by_turns_ipv6_first():
    async with name_server() as names:
        names.add("a.test", "A", "192.0.2.1", "192.0.2.2", "192.0.2.3")
        names.add("a.test", "AAAA", "2001:db8::1")
        found = await resolver_of(names).addresses("A.test.")
        assert found[:2] == (ip_address("2001:db8::1"), found[1])
        assert set(found[1:]) == set(addresses("192.0.2.1", "192.0.2.2", "192.0.2.3"))


async def test_a_literal_is_its_own_address_and_nobody_is_asked():
    async with name_server() as names:
        resolver = resolver_of(names)
        assert await resolver.addresses("192.0.2.1") == addresses("192.0.2.1")
        assert await resolver.addresses("2001:db8::1") == addresses("2001:db8::1")
        assert names.asked == Counter()


@pytest.mark.parametrize("name", ["127.1", "2130706433", "0x7f.1", "１.1.1.1", "a..test", ""])
async def test_t053_what_is_no_name_is_never_looked_up(name):
    async with name_server() as names:
        system = System()
        with pytest.raises(InvalidHost):
            await resolver_of(names, system=system).addresses(name)
        assert (names.asked, system.asked) == (Counter(), [])


async def test_answers_are_kept_for_their_lifetime(clock):
    async with name_server() as names:
        names.ttl_s = 120
        names.add("a.test", "A", "192.0.2.1")
        resolver = resolver_of(names)
        for _ in range(3):
            assert await resolver.addresses("a.test") == addresses("192.0.2.1")
        clock.jump(100)
        await resolver.addresses("a.test")
        assert names.asked["a.test", "A"] == 1
        clock.jump(30)
        names.add("a.test", "A", "192.0.2.2")
        assert await resolver.addresses("a.test") == addresses("192.0.2.2")
        assert names.asked["a.test", "A"] == 2


@pytest.mark.parametrize(("ttl_s", "kept_s"), [(0, 60), (10**9, 24 * 3600)])
async def test_t056_lifetimes_are_between_a_minute_and_a_day(clock, ttl_s, kept_s):
    async with name_server() as names:
        names.ttl_s = ttl_s
        names.add("a.test", "A", "192.0.2.1")
        resolver = resolver_of(names)
        await resolver.addresses("a.test")
        clock.jump(kept_s - 5)
        await resolver.addresses("a.test")
        assert names.asked["a.test", "A"] == 1
        clock.jump(10)
        await resolver.addresses("a.test")
        assert names.asked["a.test", "A"] == 2


async def test_t056_names_that_do_not_exist_are_remembered(clock):
    async with name_server() as names:
        names.ttl_s = (
            100_000  # of the SOA; a "no" holds an hour at most, and its minimum says 300 s
        )
        resolver = resolver_of(names)
        for _ in range(3):
            assert await resolver.addresses("no.test") == ()
        assert names.asked["no.test", "A"] == 1
        clock.jump(290)
        await resolver.addresses("no.test")
        assert names.asked["no.test", "A"] == 1
        clock.jump(20)
        await resolver.addresses("no.test")
        assert names.asked["no.test", "A"] == 2


async def test_an_old_answer_serves_while_no_name_server_does(clock):
    async with name_server() as names:
        names.add("a.test", "A", "192.0.2.1")
        resolver = resolver_of(names)
        await resolver.addresses("a.test")
        names.broken.add("a.test")
        clock.jump(4000)
        assert await resolver.addresses("a.test") == addresses("192.0.2.1")
        asked = names.asked["a.test", "A"]
        await resolver.addresses("a.test")
        assert names.asked["a.test", "A"] == asked, "not asked again at once"
        clock.jump(11)
        names.broken.clear()
        names.add("a.test", "A", "192.0.2.2")
        assert await resolver.addresses("a.test") == addresses("192.0.2.2")


async def test_an_old_answer_serves_for_a_day_and_no_longer(clock):
    async with name_server() as names:
        names.add("a.test", "A", "192.0.2.1")
        resolver = resolver_of(names)
        await resolver.addresses("a.test")
        names.broken.add("a.test")
        for _ in range(24):
            clock.jump(3600)
            await resolver.addresses("a.test")  # asking does not make it younger
        clock.jump(3700)
        with pytest.raises(LookupFailed):
            await resolver.addresses("a.test")


async def test_t056_a_silent_name_server_costs_seconds_and_then_nothing(mock_clock):
    mock_clock.rate = 25
    async with name_server() as names:
        names.silent.add("a.test")
        resolver = resolver_of(names)
        before = trio.current_time()
        with pytest.raises(LookupFailed):
            await resolver.addresses("a.test")
        took = trio.current_time() - before
        assert took < records.LOOKUP_S + 2
        before = trio.current_time()
        with pytest.raises(LookupFailed):
            await resolver.addresses("a.test")
        assert trio.current_time() - before < 2


async def test_an_old_answer_comes_soon_when_the_name_server_is_silent(mock_clock):
    async with name_server() as names:
        mock_clock.rate = 5
        names.add("a.test", "A", "192.0.2.1")
        resolver = resolver_of(names)
        await resolver.addresses("a.test")
        names.silent.add("a.test")
        mock_clock.jump(4000)
        before = trio.current_time()
        assert await resolver.addresses("a.test") == addresses("192.0.2.1")
        assert trio.current_time() - before < dns.STALE_AFTER_S + 1


async def test_one_silent_family_does_not_hold_up_the_other(mock_clock):
    async with name_server() as names:
        names.add("a.test", "A", "192.0.2.1")
        names.silent.add(("a.test", "AAAA"))
        mock_clock.rate = 2
        before = trio.current_time()
        assert await resolver_of(names).addresses("a.test") == addresses("192.0.2.1")
        assert trio.current_time() - before < 1


@pytest.mark.parametrize("trouble", ["broken", "garbage"])
async def test_t056_failures_are_not_taken_for_no(trouble, clock):
    async with name_server() as names:
        getattr(names, trouble).add("a.test")
        with pytest.raises(LookupFailed):
            clock.rate = 10
            await resolver_of(names).addresses("a.test")


async def test_t056_aliases_are_followed_and_loops_end(clock):
    async with name_server() as names:
        names.add("a.test", "CNAME", "b.test.")
        names.add("b.test", "CNAME", "c.test.")
        names.add("c.test", "A", "192.0.2.3")
        names.add("x.test", "CNAME", "y.test.")
        names.add("y.test", "CNAME", "x.test.")
        for n in range(30):
            names.add(f"n{n}.test", "CNAME", f"n{n + 1}.test.")
        names.add("n30.test", "A", "192.0.2.30")
        clock.rate = 10
        resolver = resolver_of(names)
        assert await resolver.addresses("a.test") == addresses("192.0.2.3")
        for name in ("x.test", "n0.test"):
            with pytest.raises(LookupFailed):
                await resolver.addresses(name)


async def test_the_hosts_file_goes_first(tmp_path, clock):
    hosts = tmp_path / "hosts"
    hosts.write_text("# a comment\n192.0.2.7 hs1 Other.test # more\nnonsense line\n::1 hs1\n\xff\n")
    async with name_server() as names:
        names.add("other.test", "A", "192.0.2.1")
        resolver = resolver_of(names, hosts)
        assert await resolver.addresses("hs1") == addresses("::1", "192.0.2.7")
        assert await resolver.addresses("other.test") == addresses("192.0.2.7")
        assert names.asked == Counter()
        hosts.write_text("192.0.2.8 hs1\n")
        clock.jump(6)
        assert await resolver.addresses("hs1") == addresses("192.0.2.8")
        assert await resolver.addresses("other.test") == addresses("192.0.2.1")
        hosts.unlink()
        clock.jump(6)
        assert await resolver.addresses("hs1") == ()


async def test_names_without_a_dot_are_the_systems_business():
    async with name_server() as names:
        system = System(box=addresses("192.0.2.5"))
        resolver = resolver_of(names, system=system)
        for _ in range(2):
            assert await resolver.addresses("box") == addresses("192.0.2.5")
            assert await resolver.addresses("nobox") == ()
            assert await resolver.services(f"{FED}.box") is None
        assert names.asked == Counter()
        assert system.asked == ["box", "nobox"]


async def test_names_that_the_dns_does_not_know_may_be_known_to_the_system():
    async with name_server() as names:
        system = System(**{"printer.local": addresses("192.0.2.6")})
        resolver = resolver_of(names, system=system)
        assert await resolver.addresses("printer.local") == addresses("192.0.2.6")
        names.add("a.test", "A", "192.0.2.1")
        await resolver.addresses("a.test")
        assert system.asked == ["printer.local"]


async def test_without_name_servers_the_hosts_file_answers_at_once(tmp_path):
    """As on a machine that only has a hosts file: no name server, or one that never answers."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.11 hs1\n127.0.0.1 host.docker.internal\n")
    async with name_server() as names:
        names.silent.update({"hs1", "host.docker.internal", f"{FED}.host.docker.internal"})
        resolver = resolver_of(names, hosts)
        before = trio.current_time()
        assert await resolver.addresses("hs1") == addresses("127.0.0.11")
        assert await resolver.services(f"{FED}.hs1") is None
        assert await resolver.addresses("host.docker.internal") == addresses("127.0.0.1")
        with pytest.raises(LookupFailed):
            await resolver.services(f"{FED}.host.docker.internal")
        assert trio.current_time() - before < 0.9


async def test_t053_the_system_is_never_asked_for_numbers():
    for name in ("127.1", "0x7f.1", "2130706433", "127.0.0.1.2"):
        with pytest.raises(InvalidHost):
            await ask_system(name)
    assert ip_address("127.0.0.1") in await ask_system("localhost")


async def test_services_by_priority_with_ports():
    async with name_server() as names:
        names.add(f"{FED}.a.test", "SRV", "20 0 8449 two.test.", "10 0 443 one.test.")
        found = await resolver_of(names).services(f"{FED}.a.test")
        assert found == (Target("one.test", 443), Target("two.test", 8449))


async def test_services_of_one_priority_are_drawn_by_weight():
    records = [Service(1, 0, Target("zero", 1)), Service(1, 10, Target("ten", 1))]
    records += [Service(1, 90, Target("ninety", 1)), Service(0, 0, Target("first", 1))]
    drawn: Counter[str] = Counter()
    for _ in range(2000):
        ordered = dns._in_order(records)
        assert len(ordered) == 4
        assert ordered[0].target.host == "first"
        drawn[ordered[1].target.host] += 1
    assert 1650 < drawn["ninety"] < 1930
    assert 110 < drawn["ten"] < 300
    assert 1 <= drawn["zero"] < 80


async def test_no_service_records_and_a_service_that_does_not_exist_are_two_things():
    async with name_server() as names:
        names.add("a.test", "A", "192.0.2.1")
        names.add(f"{FED}.none.test", "SRV", "0 0 0 .")
        resolver = resolver_of(names)
        assert await resolver.services(f"{FED}.a.test") is None
        assert await resolver.services(f"{FED}.none.test") == ()


@pytest.mark.parametrize(
    "record",
    ["0 0 22 a.test.", "0 0 25 a.test.", "0 0 0 a.test.", "0 0 8448 127.1.", "0 0 1 1.2.3.4."],
)
async def test_t056_services_on_ports_of_mail_or_by_number_are_refused(record):
    async with name_server() as names:
        names.add(f"{FED}.a.test", "SRV", record)
        assert await resolver_of(names).services(f"{FED}.a.test") == ()


async def test_t056_of_hundreds_of_services_the_four_best_are_kept():
    async with name_server() as names:
        records = [f"{n % 300 + 5} 1 8448 target-number-{n}.test." for n in range(600)]
        names.add(f"{FED}.a.test", "SRV", *records, "1 1 8448 best.test.")
        found = await resolver_of(names).services(f"{FED}.a.test")
        assert found is not None
        assert len(found) == dns.MAX_TARGETS
        assert found[0].host == "best.test"
        assert names.tcp == 1, "the short answer was incomplete"


async def test_t056_a_name_that_becomes_too_long_has_no_services():
    long = ".".join(["a" * 60] * 4) + ".test"
    async with name_server() as names:
        assert await resolver_of(names).services(f"{FED}.{long}") is None


async def test_t056_a_storm_of_names_fills_no_memory(clock):
    async with name_server() as names:
        resolver = resolver_of(names)
        for cache in (resolver._cache, resolver._known_to_system):
            cache._size = 50
        for n in range(120):
            assert await resolver.addresses(f"n{n}.test") == ()
        assert len(resolver._cache) == len(resolver._known_to_system) == 50


async def test_many_who_ask_at_once_cost_one_question():
    async with name_server() as names:
        names.add("a.test", "A", "192.0.2.1")
        resolver = resolver_of(names)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(resolver.addresses, "a.test")
        assert names.asked["a.test", "A"] == 1


async def test_who_asks_and_is_cancelled_leaves_the_question_to_the_next():
    async with name_server() as names:
        names.silent.add("a.test")
        resolver = resolver_of(names)
        with trio.move_on_after(0.1):
            await resolver.addresses("a.test")
        names.silent.clear()
        names.add("a.test", "A", "192.0.2.1")
        assert await resolver.addresses("a.test") == addresses("192.0.2.1")


async def test_the_system_s_name_servers_are_read_again_when_they_change(
    tmp_path, monkeypatch, clock
):
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(name_servers, "RESOLV_CONF", file)
    system = System(**{"a.test": addresses("192.0.2.9")})
    resolver = dns.Resolver(hosts=HostsFile(Path("/nonexistent")), system=system)
    assert await resolver.addresses("a.test") == addresses("192.0.2.9")
    assert await resolver.services(f"{FED}.a.test") is None
    for text, expected in [
        ("nameserver 127.0.0.53\n", ["127.0.0.53"]),
        ("nonsense\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n", ["192.0.2.1", "192.0.2.2"]),
        ("# none\n", None),
    ]:
        file.write_text(text)
        clock.jump(31)
        servers = await resolver._servers()
        assert servers.exist is (expected is not None)
        if expected is not None:
            assert [str(each) for each in servers._resolver.nameservers] == expected


class Hanging(System):
    async def __call__(self, name: str) -> tuple[IPAddress, ...]:
        await trio.sleep_forever()
        raise AssertionError


async def test_a_system_that_hangs_is_left_behind(mock_clock):
    mock_clock.rate = 20
    async with name_server() as names:
        resolver = resolver_of(names, system=Hanging())
        with pytest.raises(LookupFailed):
            await resolver.addresses("box")
