"""The control socket: calls from the command line into the running server."""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from matrixbox.errors import UserInUse
from matrixbox.household import control
from matrixbox.household.control import ControlError, NotRunning, call


async def echo(arguments):
    return dict(arguments)


async def refuse(arguments):
    raise UserInUse("That user name is taken.")


async def break_down(arguments):
    raise KeyError("hunter2")


FUNCTIONS = {"echo": echo, "refuse": refuse, "break": break_down}


@asynccontextmanager
async def listening(path: Path):
    async with trio.open_nursery() as nursery:
        await nursery.start(control.listen, path, FUNCTIONS)
        yield
        nursery.cancel_scope.cancel()


async def ask(path: Path, name: str, arguments):
    return await trio.to_thread.run_sync(call, path, name, arguments)


async def test_a_call_is_answered(tmp_path):
    path = tmp_path / "control.sock"
    async with listening(path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert await ask(path, "echo", {"a": ["ü", 1]}) == {"a": ["ü", 1]}
        assert await ask(path, "echo", {}) == {}
    assert not path.exists()


async def test_refusals_and_failures_are_told_to_the_caller(tmp_path):
    path = tmp_path / "control.sock"
    async with listening(path):
        with pytest.raises(ControlError, match="That user name is taken"):
            await ask(path, "refuse", {})
        with pytest.raises(ControlError, match=r"^Internal error [0-9a-f]{8}") as caught:
            await ask(path, "break", {})
        assert "hunter2" not in str(caught.value)
        with pytest.raises(ControlError, match="does not know this call"):
            await ask(path, "other", {})
        assert await ask(path, "echo", {}) == {}


async def test_nobody_listening_is_told_apart(tmp_path):
    with pytest.raises(NotRunning):
        call(tmp_path / "control.sock", "echo", {})
    with pytest.raises(NotRunning):
        call(tmp_path / ("long" * 40) / "control.sock", "echo", {})
    async with listening(tmp_path / "control.sock"):
        pass
    with pytest.raises(NotRunning):
        call(tmp_path / "control.sock", "echo", {})


async def test_the_socket_of_a_killed_server_is_replaced(tmp_path):
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NotRunning):
        call(path, "echo", {})
    async with listening(path):
        assert await ask(path, "echo", {"x": 1}) == {"x": 1}


async def test_a_folder_with_a_name_longer_than_the_kernel_takes_works(tmp_path):
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    async with listening(folder / "control.sock"):
        assert await ask(folder / "control.sock", "echo", {"x": 1}) == {"x": 1}
        assert (folder / "control.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("request_line", [b"\n", b"[]\n", b'{"call": "echo"}\n', b"\xff\n", b"x"])
async def test_nonsense_is_refused_and_hurts_nobody(tmp_path, request_line):
    path = tmp_path / "control.sock"
    async with listening(path):
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(request_line)
            stream.socket.shutdown(socket.SHUT_WR)
            answer = json.loads(await stream.receive_some(4096))
        assert "error" in answer
        assert await ask(path, "echo", {}) == {}


async def test_callers_that_go_away_or_say_nothing_hold_up_nobody(tmp_path):
    path = tmp_path / "control.sock"
    async with listening(path):
        for _ in range(3):
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(b'{"call": "echo", "with": {}}\n')
            await stream.aclose()
        silent = [await trio.open_unix_socket(str(path)) for _ in range(control.CALLS_AT_ONCE - 1)]
        assert await ask(path, "echo", {}) == {}
        for stream in silent:
            await stream.aclose()


async def test_other_users_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "control.sock"
    async with listening(path):
        monkeypatch.setattr(control, "_is_trusted", lambda connection: False)
        with pytest.raises(ControlError):
            await ask(path, "echo", {})


async def test_the_kernel_says_who_calls():
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        assert control._is_trusted(ours)
