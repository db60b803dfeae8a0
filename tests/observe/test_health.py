"""Notices to systemd, pauses of the loop, broken parts."""

from __future__ import annotations

import os
import socket
import time

import pytest
import trio

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


async def test_t079_a_step_that_holds_up_the_loop_is_logged_with_its_task(monkeypatch):
    told: list[dict[str, object]] = []
    monkeypatch.setattr(health.log, "warning", lambda event, **fields: told.append(fields))
    watch = LoopWatch()

    async def slow() -> None:
        time.sleep(health.PAUSE_S * 1.5)
        await trio.lowlevel.checkpoint()
        time.sleep(health.PAUSE_S * 1.5)

    trio.lowlevel.add_instrument(watch)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow, name="the slow one")
    finally:
        trio.lowlevel.remove_instrument(watch)
    assert [fields["task"] for fields in told] == ["the slow one"]  # the second is only counted
    assert told[0]["took_ms"] >= health.PAUSE_S * 1000
    assert watch.reset() >= health.PAUSE_S
    assert watch.worst_s == 0


async def test_quick_steps_are_not_logged(monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(health.log, "warning", lambda event, **fields: told.append(event))
    watch = LoopWatch()
    monkeypatch.setattr(health, "PAUSE_S", 5.0)
    trio.lowlevel.add_instrument(watch)
    try:
        for _ in range(100):
            await trio.lowlevel.checkpoint()
    finally:
        trio.lowlevel.remove_instrument(watch)
    assert told == []
    assert watch.worst_s > 0


def test_t151_broken_parts_are_told_until_they_work():
    parts = Parts()
    parts.broken("appservice irc", "file not found")
    parts.broken("certificate", "expired")
    assert parts.problems() == {"appservice irc": "file not found", "certificate": "expired"}
    parts.works("certificate")
    parts.works("never broken")
    assert list(parts.problems()) == ["appservice irc"]
