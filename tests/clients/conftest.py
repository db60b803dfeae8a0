"""One server and one program per library for all tests here; each test has users of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import trio

from tests.clients.conversation import Company, Kind, Program, connected, running_program
from tests.clients.programs import command_of, why_not
from tests.reporting import did_not_run
from tests.server import Server, running_server

TAGS = count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for everybody."""
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@contextmanager
def program_of(kind: Kind, paths: pytest.TempPathFactory) -> Iterator[Program]:
    """The library's program, running."""
    command = command_of(kind)
    if command is None:
        did_not_run(why_not(kind), required_in_ci=True)
    with running_program(command, paths.mktemp(kind)) as program:
        yield program


@pytest.fixture(scope="session")
def nio_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """matrix-nio."""
    with program_of("nio", tmp_path_factory) as program:
        yield program


@pytest.fixture(scope="session")
def js_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """matrix-js-sdk."""
    with program_of("js", tmp_path_factory) as program:
        yield program


@pytest.fixture(scope="session")
def rust_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The Rust SDK under Element X."""
    with program_of("rust", tmp_path_factory) as program:
        yield program


@pytest.fixture(scope="session")
def programs(nio_program: Program, js_program: Program) -> dict[Kind, Program]:
    """Those that know `/sync`."""
    return {"nio": nio_program, "js": js_program}


@pytest.fixture(scope="session")
def all_programs(programs: dict[Kind, Program], rust_program: Program) -> dict[Kind, Program]:
    """Element X's, too."""
    return {**programs, "rust": rust_program}


@pytest.fixture
async def house(server: Server, programs: dict[Kind, Program], nursery: trio.Nursery) -> Company:
    """Clients of the common server."""
    return Company(server, await connected(programs, nursery), str(next(TAGS)))


@pytest.fixture
async def city(server: Server, all_programs: dict[Kind, Program], nursery: trio.Nursery) -> Company:
    """Clients of the common server on any of the three libraries."""
    return Company(server, await connected(all_programs, nursery), f"c{next(TAGS)}")
