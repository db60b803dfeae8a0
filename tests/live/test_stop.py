"""An orderly stop: long polls answer, and nobody can hold it up (T071)."""

from __future__ import annotations

import signal

import trio

from tests.live.siege import deaf, idle, no_body, slow_body, slow_head
from tests.live.target import Answered, connect, exchange, get, post, running


async def test_t071_fifty_slow_readers_do_not_hold_up_a_stop() -> None:
    """With the deadlines of a real server: long polls are answered, and all is over in 10 s."""
    polls: list[Answered] = []
    slow: list[Answered] = []

    async def poll() -> None:
        polls.append(await exchange(target, get("/_test/poll?seconds=120"), wait_s=15))

    async def handled() -> None:
        slow.append(await exchange(target, get("/_test/slow?seconds=2"), wait_s=15))

    with running(real=True) as target:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(deaf, target, "127.0.0.1")
            for attacker in (idle, slow_head, no_body, slow_body):
                nursery.start_soon(attacker, target, "127.0.0.1")
            for _ in range(10):
                nursery.start_soon(poll)
            nursery.start_soon(handled)
            await trio.sleep(1)
            target.signal(signal.SIGTERM)
            took_s = await target.exit_s(10)
        assert target.process.returncode == 0
    assert took_s is not None
    assert [answer.json() for answer in polls] == [{"ended": "early"}] * 10
    assert all(answer.seconds < 2 and answer.is_closed for answer in polls)
    assert [answer.statuses for answer in slow] == [[200]]


async def test_a_stop_takes_no_longer_than_it_must() -> None:
    """Idle connections and waiting polls cost nothing; a request under way is finished."""
    with running() as target:
        async with await connect(target) as first, await connect(target) as second:
            await first.send_all(get(target.paths.small))
            await first.receive_some()
            await second.send_all(get("/_test/poll?seconds=120"))
            await trio.sleep(0.2)
            target.signal(signal.SIGTERM)
            took_s = await target.exit_s(5)
            assert took_s is not None
            assert took_s < 1
            assert (await second.receive_some()).startswith(b"HTTP/1.1 200")
        assert target.process.returncode == 0


async def test_while_stopping_no_connection_is_accepted_and_none_is_kept() -> None:
    with running() as target:
        async with await connect(target) as busy, await connect(target) as old:
            await old.send_all(get(target.paths.small))
            await old.receive_some()
            await busy.send_all(get("/_test/slow?seconds=1"))
            await trio.sleep(0.1)
            target.signal(signal.SIGTERM)
            await trio.sleep(0.2)
            refused = False
            try:
                await connect(target)
            except OSError:
                refused = True
            assert refused
            answered = await exchange(target, post("/_test/echo", b"{}"), stream=old)
            assert answered.statuses == [200]
            assert answered.header("connection") == "close"
            assert answered.is_closed
            assert (await busy.receive_some()).startswith(b"HTTP/1.1 200")
            assert await target.exit_s(3) is not None
