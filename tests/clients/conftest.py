"""One server and one program per library for all tests here; each test has users of its own."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import trio

from tests.clients.conversation import Company, Kind, Program, connected, running_program
from tests.reporting import did_not_run
from tests.server import Server, running_server

HERE = Path(__file__).parent
TAGS = count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for everybody."""
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def nio_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """matrix-nio."""
    if importlib.util.find_spec("nio") is None:
        did_not_run("matrix-nio is not installed", required_in_ci=True)
    command = [sys.executable, HERE / "nio_talk.py"]
    with running_program(command, tmp_path_factory.mktemp("nio")) as program:
        yield program


@pytest.fixture(scope="session")
def js_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """matrix-js-sdk, on the Node.js of the test environment."""
    node = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
    if node is None or not (HERE / "js" / "node_modules").is_dir():
        did_not_run("matrix-js-sdk is not installed (tests/run.py does it)", required_in_ci=True)
    command = [node, HERE / "js" / "talk.mjs"]
    with running_program(command, tmp_path_factory.mktemp("js")) as program:
        yield program


@pytest.fixture(scope="session")
def programs(nio_program: Program, js_program: Program) -> dict[Kind, Program]:
    """Both."""
    return {"nio": nio_program, "js": js_program}


@pytest.fixture
async def house(server: Server, programs: dict[Kind, Program], nursery: trio.Nursery) -> Company:
    """Clients of the common server."""
    return Company(server, await connected(programs, nursery), str(next(TAGS)))
