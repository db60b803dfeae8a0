"""Many attackers at once: slow peers, thousands of connections, random bytes.

    python -m tests.live.siege slow --each 300        T070, with the deadlines of a real server
    python -m tests.live.siege connections            T072, 10,000 attempts
    python -m tests.live.siege fuzz --seconds 60      T069

Continuous integration runs the same functions with shorter deadlines and times.
"""

from __future__ import annotations

import argparse
import random
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from attrs import define, field

from tests.live.http1_table import table
from tests.live.http2_frames import PREFACE, SEQUENCES, UPGRADES
from tests.live.target import (
    Running,
    ask,
    connect,
    exchange,
    get,
    post,
    running,
    survives,
    target_called,
    watched,
)

HOME = "127.0.1.0/24"


def stranger(number: int) -> str:
    """The address of an attacker; 127.0.0.0/8 is large."""
    return f"127.{2 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"


@define
class Household:
    """A client that asks all the time, and how long it waited at worst."""

    target: Running
    asked: int = 0
    failed: list[str] = field(factory=list)
    worst_s: float = 0.0

    async def live(self) -> None:
        """Ask until cancelled, on new connections: reading and writing."""
        while True:
            for request in (get(self.target.paths.small), post(self.target.paths.json, b"{}")):
                answer = await ask(self.target, request, wait_s=5)
                self.asked += 1
                self.worst_s = max(self.worst_s, answer.seconds)
                if len(answer.statuses) != 1:
                    self.failed.append(f"{answer}")
            await trio.sleep(0.05)

    def check(self, within_s: float = 1.0) -> None:
        """Every question was answered, and soon."""
        assert self.asked > 2
        assert not self.failed, self.failed[:3]
        assert self.worst_s < within_s


# Slow peers.

Attacker = Callable[[Running, str], Awaitable[None]]


async def _until_closed(
    stream: trio.abc.Stream, dribble: bytes = b"", every_s: float = 0.1, *, reads: bool = True
) -> None:
    """Send a little now and then, until the server ends the connection."""
    try:
        while True:
            if dribble:
                await stream.send_all(dribble)
            if not reads:
                await trio.sleep(every_s)
                continue
            with trio.move_on_after(every_s if dribble else 1000):
                while await stream.receive_some():
                    pass
                return
    except trio.BrokenResourceError:
        return


async def silent(target: Running, source: str) -> None:
    """Connects and sends nothing."""
    async with await connect(target, source) as stream:
        await _until_closed(stream)


async def slow_head(target: Running, source: str) -> None:
    """Sends its head byte by byte."""
    async with await connect(target, source) as stream:
        await stream.send_all(get(target.paths.small)[:-2] + b"X: ")
        await _until_closed(stream, b"a")


async def no_body(target: Running, source: str) -> None:
    """Announces a body and sends none."""
    async with await connect(target, source) as stream:
        await stream.send_all(post(target.paths.json, b"x" * 1000)[:-1000])
        await _until_closed(stream)


async def slow_body(target: Running, source: str) -> None:
    """Sends its body byte by byte."""
    async with await connect(target, source) as stream:
        await stream.send_all(post(target.paths.json, b"x" * 50_000)[:-50_000])
        await _until_closed(stream, b"a")


async def slow_chunks(target: Running, source: str) -> None:
    """Sends a chunked body that never ends."""
    async with await connect(target, source) as stream:
        head = f"POST {target.paths.json} HTTP/1.1\r\nHost: old.test\r\n"
        await stream.send_all(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        await _until_closed(stream, b"1\r\n \r\n")


async def idle(target: Running, source: str) -> None:
    """Asks once, and then keeps the connection."""
    async with await connect(target, source) as stream:
        await stream.send_all(get(target.paths.small))
        await _until_closed(stream)


async def idle_after_refusal(target: Running, source: str) -> None:
    """Goes on sending after its body was refused."""
    async with await connect(target, source) as stream:
        await stream.send_all(post(target.paths.json, b"")[:-2])
        await stream.send_all(b"Content-Length: 20000000\r\n\r\n")
        await _until_closed(stream, b"a" * 1000, reads=False)


async def slow_second_head(target: Running, source: str) -> None:
    """Asks once, and sends the next head byte by byte."""
    async with await connect(target, source) as stream:
        await stream.send_all(get(target.paths.small) + b"GET / HTTP/1.1\r\nX: ")
        await _until_closed(stream, b"a")


async def deaf(target: Running, source: str) -> None:
    """Asks for much and does not read."""
    assert target.paths.big is not None
    async with await connect(target, source, receive_buffer=4096) as stream:
        await stream.send_all(get(target.paths.big))
        while is_established(stream):
            await trio.sleep(0.05)


async def hard_of_hearing(target: Running, source: str) -> None:
    """Asks for much and reads a byte at a time."""
    assert target.paths.big is not None
    async with await connect(target, source, receive_buffer=4096) as stream:
        await stream.send_all(get(target.paths.big))
        while is_established(stream):
            await stream.receive_some(1)
            await trio.sleep(0.1)


def is_established(stream: trio.SocketStream) -> bool:
    """Whether the peer still holds the connection, without a look at what it has sent."""
    info = stream.socket.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_INFO, 1)
    return info[0] == 1  # TCP_ESTABLISHED


async def half_handshake(target: Running, source: str) -> None:
    """Begins TLS and stops."""
    assert target.tls_port is not None
    async with await connect(target, source, port=target.tls_port) as stream:
        await stream.send_all(bytes.fromhex("16030100c8010000c40303"))
        await _until_closed(stream)


async def silent_after_handshake(target: Running, source: str) -> None:
    """Finishes the TLS handshake, and sends nothing."""
    async with await connect_tls(target, source) as stream:
        await _until_closed(stream)


async def connect_tls(
    target: Running,
    source: str | None = None,
    context: ssl.SSLContext | None = None,
    *,
    insists_on_notice: bool = False,
) -> trio.SSLStream[trio.SocketStream]:
    """A TLS connection, without a look at the certificate unless a context is given."""
    assert target.tls_port is not None
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    plain = await connect(target, source, port=target.tls_port)
    stream = trio.SSLStream(
        plain, context, server_hostname="old.test", https_compatible=not insists_on_notice
    )
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(plain)
        raise
    return stream


SLOW: tuple[Attacker, ...] = (
    silent,
    slow_head,
    no_body,
    slow_body,
    slow_chunks,
    idle,
    idle_after_refusal,
    slow_second_head,
    deaf,
    hard_of_hearing,
    half_handshake,
    silent_after_handshake,
)


async def besiege_slowly(target: Running, each: int, within_s: float) -> Counter[str]:
    """So many of each kind of slow peer; returns the kinds that were still there at the end."""
    left: Counter[str] = Counter()
    refused = 0

    async def attack(attacker: Attacker, source: str) -> None:
        nonlocal refused
        left[attacker.__name__] += 1
        before = trio.current_time()
        with suppress(trio.BrokenResourceError):
            # Where there was no slot, the attack has ended as well.
            await attacker(target, source)
        left[attacker.__name__] -= 1
        refused += trio.current_time() < before + 0.1

    household = Household(target)
    async with survives(target):
        async with trio.open_nursery() as living:
            living.start_soon(household.live)
            with trio.move_on_after(within_s):
                async with trio.open_nursery() as attacks:
                    for number in range(each):
                        for kind, attacker in enumerate(SLOW):
                            source = stranger(number * len(SLOW) + kind)
                            attacks.start_soon(attack, attacker, source)
                        await trio.lowlevel.checkpoint()
            living.cancel_scope.cancel()
        await trio.sleep(0.3)
    household.check()
    # Who was turned away at once has not been slow.
    assert each * len(SLOW) - refused > 0.9 * min(each * len(SLOW), 384)
    return +left


# Thousands of connections.


async def besiege_with_connections(target: Running, attempts: int, addresses: int) -> int:
    """Open and keep as many connections as there are to be had; returns how many that were."""
    kept: list[trio.SocketStream] = []
    limit = trio.CapacityLimiter(50)
    household = Household(target)

    async def attempt(number: int) -> None:
        async with limit:
            with suppress(OSError):
                stream = await connect(target, stranger(number % addresses))
                kept.append(stream)
                with suppress(trio.BrokenResourceError), trio.move_on_after(0.02) as waiting:
                    await stream.receive_some()
                if not waiting.cancelled_caught:
                    kept.remove(stream)
                    await trio.aclose_forcefully(stream)

    before = target.memory()
    async with trio.open_nursery() as living:
        living.start_soon(household.live)
        async with trio.open_nursery() as attacks:
            for number in range(attempts):
                attacks.start_soon(attempt, number)
        grown = target.memory() - before
        living.cancel_scope.cancel()
    household.check()
    assert grown < 64 * 1024 * 1024
    still_open = sum(map(is_established, kept))
    for stream in kept:
        await trio.aclose_forcefully(stream)
    return still_open


# Random bytes.


async def fuzz(target: Running, seconds: float, seed: int) -> int:
    """Send broken requests of every kind, on plain and TLS connections; returns how many."""
    chance = random.Random(seed)
    whole = [b"".join(case.pieces(target.paths)) for case in table()]
    whole += [PREFACE + sequence[:5000] for sequence in SEQUENCES.values()] + [*UPGRADES.values()]
    household = Household(target)
    sent = 0

    async def attack() -> None:
        nonlocal sent
        while True:
            data = _broken(chance, whole)
            over_tls = target.tls_port is not None and chance.random() < 0.1
            try:
                stream = await connect_tls(target) if over_tls else await connect(target)
                await exchange(target, data, wait_s=0.02, stream=stream)
            except trio.BrokenResourceError:
                pass  # the server may end any of these at any time
            sent += 1

    async with survives(target):
        async with trio.open_nursery() as living:
            living.start_soon(household.live)
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as attacks:
                    for _ in range(8):
                        attacks.start_soon(attack)
            living.cancel_scope.cancel()
    household.check()
    return sent


def _broken(chance: random.Random, whole: list[bytes]) -> bytes:
    """One or two good or bad requests, with bytes changed, lost, doubled or made up."""
    data = bytearray(b"".join(chance.choices(whole, k=chance.randint(1, 2)))[:70_000])
    for _ in range(chance.choice((0, 1, 1, 2, 5, 20))):
        at = chance.randrange(len(data) + 1)
        length = chance.choice((1, 1, 2, 8, 64))
        match chance.randrange(5):
            case 0:
                data[at : at + length] = chance.randbytes(length)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = chance.choice(
                    (b"\r\n", b"\n", b"\r", b"\0", b": ", b"%", b"/", b"chunked", b"\r\n\r\n")
                )
            case _:
                data[at:at] = chance.choice(whole)[:200]
    return bytes(data)


def main() -> None:
    """Run one siege at full size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("siege", choices=("slow", "connections", "fuzz"))
    parser.add_argument("--each", type=int, default=300)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--target", choices=("door", "serve"), default="door", help="of fuzz")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    real = running("--home", HOME, real=True)
    with real if arguments.siege != "fuzz" else target_called(arguments.target) as target:
        match arguments.siege:
            case "slow":
                left = trio.run(besiege_slowly, target, arguments.each, 80)
                print("still there:", dict(left) or "nobody")
            case "connections":
                kept = trio.run(besiege_with_connections, target, arguments.attempts, 400)
                print("connections kept:", kept)
            case _:
                sent = trio.run(fuzz, target, arguments.seconds, arguments.seed)
                print("requests sent:", sent)
        if arguments.target == "door":
            print("watched:", trio.run(watched, target))
        print("memory MiB:", target.memory() >> 20)
    sys.exit(0)


if __name__ == "__main__":
    main()
