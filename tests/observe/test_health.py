"""Notices to systemd, pauses of the loop, broken parts."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from matrixbox.core import json
from matrixbox.observe import health
from matrixbox.observe.health import LoopWatch, Notifier, Parts


@pytest.fixture
def systemd(tmp_path):
    """A socket as systemd would open one; gives its address and a function that reads it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(tmp_path / "notify"))
        inbox.setblocking(False)

        def received() -> list[str]:
            messages = []
            while True:
                try:
                    messages.append(inbox.recv(4096).decode())
                except BlockingIOError:
                    return messages

        yield str(tmp_path / "notify"), received


def test_t170_states_are_told_to_systemd(systemd):
    address, received = systemd
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("two\nlines")
    notifier.stopping()
    assert received() == ["READY=1", "STATUS=two lines", "STOPPING=1"]


def test_an_abstract_address_works():
    name = f"matrixbox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind("\0" + name)
        Notifier("@" + name).ready()
        assert inbox.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(tmp_path):
    Notifier.from_environment({}).ready()
    Notifier(str(tmp_path / "nobody")).ready()


async def test_t170_the_loop_feeds_the_watchdog(systemd, autojump_clock):
    address, received = systemd
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"}
    with trio.move_on_after(119):
        await Notifier.from_environment(environment).feed_watchdog()
    assert received() == ["WATCHDOG=1"] * 6


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "nonsense"}, {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}],
)
async def test_no_watchdog_is_fed_when_none_is_asked_for(systemd, environment):
    address, received = systemd
    await Notifier.from_environment({"NOTIFY_SOCKET": address, **environment}).feed_watchdog()
    assert received() == []


@contextmanager
def watched(monkeypatch) -> Iterator[tuple[LoopWatch, list[dict[str, object]]]]:
    """A watch over the running loop, and what it tells."""
    told: list[dict[str, object]] = []
    monkeypatch.setattr(health.log, "warning", lambda event, **fields: told.append(fields))
    watch = LoopWatch()
    trio.lowlevel.add_instrument(watch)
    try:
        yield watch, told
    finally:
        trio.lowlevel.remove_instrument(watch)
        watch.after_run()


async def test_t079_what_holds_up_the_loop_is_logged_with_its_task(monkeypatch):
    async def slow() -> None:
        await trio.lowlevel.checkpoint()
        hold_up(0.3)
        await trio.lowlevel.checkpoint()
        hold_up(0.1)
        await trio.lowlevel.checkpoint()

    def hold_up(seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    with watched(monkeypatch) as (watch, told):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow, name="the slow one")
    assert len(told) == 1  # the second one is only counted
    assert told[0]["task"] == "the slow one"
    assert told[0]["took_ms"] >= 300
    assert watch.reset() >= 0.3
    assert watch.worst_s == 0


async def test_the_place_in_this_program_is_told(monkeypatch):
    def sleep_long(value: object, scalars: object) -> bool:
        time.sleep(0.3)
        return True

    monkeypatch.setattr("matrixbox.core.json._consists_of", sleep_long)
    with watched(monkeypatch) as (_, told):
        await trio.lowlevel.checkpoint()
        json.encode_canonical({"a": 1})
        await trio.lowlevel.checkpoint()
    assert [str(fields["place"]).partition(":")[0] for fields in told] == ["core/json.py"]


async def test_after_a_pause_that_nobody_saw_the_next_is_looked_at_more_closely(monkeypatch):
    monkeypatch.setattr(health, "LOOK_AT_SLEEP_EVERY_S", 0.8)
    monkeypatch.setattr(health, "PAUSE_LOG_EVERY_S", 0.0)
    with watched(monkeypatch) as (_, told):
        for asleep_s in (0.2, 0.8):
            await trio.sleep(asleep_s)  # which the thread sees, and looks less often
            time.sleep(0.3)
            await trio.lowlevel.checkpoint()
    assert ["task" in fields for fields in told] == [False, True]


async def test_quick_rounds_are_not_logged(monkeypatch):
    monkeypatch.setattr(health, "PAUSE_S", 5.0)
    with watched(monkeypatch) as (watch, told):
        for _ in range(100):
            await trio.lowlevel.checkpoint()
    assert told == []
    assert watch.worst_s > 0


async def test_waiting_is_no_pause(monkeypatch):
    with watched(monkeypatch) as (_, told):
        await trio.sleep(health.PAUSE_S * 3)
    assert told == []


def test_t151_broken_parts_are_told_until_they_work():
    parts = Parts()
    parts.broken("appservice irc", "file not found")
    parts.broken("certificate", "expired")
    assert parts.problems() == {"appservice irc": "file not found", "certificate": "expired"}
    parts.works("certificate")
    parts.works("never broken")
    assert list(parts.problems()) == ["appservice irc"]
