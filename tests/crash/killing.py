"""Kill a real server again and again while two clients write (T142).

    python -m tests.crash.killing                    40 kills of `matrixbox serve`
    python -m tests.crash.killing 300
    python -m tests.crash.killing 40 tiny            of a small server around the store alone
    python -m tests.crash.killing 20 careless        the control: acknowledges before the commit

Each round starts the server, lets the clients write, and kills it with SIGKILL at some moment, now
and then while it still starts. A client repeats what was not answered, with the same transaction
id. After each restart: everything acknowledged is there, once, under the id that was given; what
was sent once is there once; the order of each client's messages is kept; a repeat of an old
transaction id gives the old answer. The files as the kill left them pass SQLite's checks.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Protocol

from attrs import define, field

from matrixbox.store.database import Store, Tuning
from matrixbox.store.migrate import Migration
from matrixbox.store.runner import Runner
from tests.crash.matrix_writer import MatrixProgram
from tests.crash.tiny_server import TinyProgram
from tests.server import free_port

KILLS = 40
LONGEST_RUN_S = 0.6
KILLED_WHILE_STARTING = 0.15
FILES_CHECKED_EVERY = 5

Message = tuple[int, int, str]  # client, number, id


class Program(Protocol):
    """A server and how to write to it; one call at a time for each client."""

    database: Path
    clients: int

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """Of its database."""

    def spawn(self) -> None:
        """Start the process, and don't wait."""

    def wait_ready(self) -> None:
        """Wait until it answers; AssertionError if that takes over 10 s."""

    def kill(self) -> None:
        """SIGKILL; clients may still be writing."""

    def hang_up(self) -> None:
        """Close the clients' connections, when nobody uses them."""

    def prepare(self) -> None:
        """Once, with the server running: accounts, a room."""

    def send(self, client: int, number: int) -> str:
        """Send message `number` of a client; returns its id. Raises OSError."""

    def messages_after(self, known: list[Message]) -> list[Message]:
        """The messages after the last known one, in the order in which the server shows them."""


@define
class Client:
    """What a client knows: what it sent, and what was answered."""

    number: int
    answers: dict[int, str] = field(factory=dict)
    next_message: int = 0
    unanswered: bool = False

    def write_until_the_end(self, program: Program) -> None:
        """Send one message after the other until the server goes away."""
        while True:
            self.unanswered = True
            try:
                answer = program.send(self.number, self.next_message)
            except OSError:
                return
            self.answers[self.next_message] = answer
            self.unanswered = False
            self.next_message += 1


@define
class Report:
    """What the kills led to."""

    kills: int = 0
    acknowledged: int = 0
    repeated: int = 0
    already_there: int = 0
    files_checked: int = 0
    slowest_start_s: float = 0.0
    seconds: float = 0.0
    wrong: list[str] = field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.seconds:.0f} s: {self.acknowledged} writes acknowledged,"
            f" {self.repeated} repeated after a kill ({self.already_there} of them had been"
            f" stored), {self.files_checked} times the files were checked, slowest start"
            f" {self.slowest_start_s:.2f} s; wrong: {len(self.wrong)}"
        )


def run(program: Program, kills: int, seed: int = 7) -> Report:
    """The whole story."""
    chance = random.Random(seed)
    report = Report()
    clients = [Client(number) for number in range(program.clients)]
    shown: list[Message] = []
    begun = time.monotonic()
    _start(program, report)
    program.prepare()
    while report.kills < kills:
        _write_and_kill(program, clients, chance.uniform(0.02, LONGEST_RUN_S))
        report.kills += 1
        if report.kills % FILES_CHECKED_EVERY == 1:
            _check_files(program, report)
        if chance.random() < KILLED_WHILE_STARTING:
            program.spawn()
            time.sleep(chance.uniform(0, 0.8))
            program.kill()
            report.kills += 1
        _start(program, report)
        shown += program.messages_after(shown)
        _check_messages(shown, clients, report)
        _repeat(program, shown, clients, chance, report)
    if program.messages_after([]) != shown + program.messages_after(shown):
        report.wrong.append("at the end: history is not what it was")
    program.kill()
    program.hang_up()
    _check_files(program, report)
    report.acknowledged = sum(len(client.answers) for client in clients)
    report.seconds = time.monotonic() - begun
    return report


def _start(program: Program, report: Report) -> None:
    begun = time.monotonic()
    program.spawn()
    program.wait_ready()
    report.slowest_start_s = max(report.slowest_start_s, time.monotonic() - begun)


def _write_and_kill(program: Program, clients: list[Client], after_s: float) -> None:
    writers = [
        threading.Thread(target=client.write_until_the_end, args=(program,)) for client in clients
    ]
    for writer in writers:
        writer.start()
    time.sleep(after_s)
    program.kill()
    for writer in writers:
        writer.join()
    program.hang_up()


def _check_messages(shown: list[Message], clients: list[Client], report: Report) -> None:
    where = f"after kill {report.kills}"
    if len({message[:2] for message in shown}) != len(shown):
        report.wrong.append(f"{where}: a message is there twice")
    ids = {(client, number): answer for client, number, answer in shown}
    for client in clients:
        for number, answer in client.answers.items():
            if ids.get((client.number, number)) != answer:
                report.wrong.append(f"{where}: message {number} of client {client.number} is lost")
        mine = [number for owner, number, _ in shown if owner == client.number]
        if mine != sorted(mine):
            report.wrong.append(f"{where}: the order of client {client.number}")


def _repeat(
    program: Program,
    shown: list[Message],
    clients: list[Client],
    chance: random.Random,
    report: Report,
) -> None:
    """What was not answered is sent again, and some of what was answered too."""
    where = f"after kill {report.kills}"
    ids = {(client, number): answer for client, number, answer in shown}
    for client in clients:
        if client.unanswered:
            stored = ids.get((client.number, client.next_message))
            answer = program.send(client.number, client.next_message)
            report.repeated += 1
            report.already_there += stored is not None
            if stored not in (None, answer):
                report.wrong.append(f"{where}: the repeat of a transaction was stored again")
            client.answers[client.next_message] = answer
            client.next_message += 1
            client.unanswered = False
        for number in chance.sample(sorted(client.answers), min(3, len(client.answers))):
            if program.send(client.number, number) != client.answers[number]:
                report.wrong.append(f"{where}: an old transaction id was used anew")


def _check_files(program: Program, report: Report) -> None:
    """A copy of the files, as the kill left them."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            source = program.database.with_name(program.database.name + suffix)
            if source.exists():
                shutil.copy(source, Path(folder) / f"db{suffix}")
        failures: list[str] = []
        store = Store.open(
            Path(folder) / "db",
            runner=Runner.INLINE,
            migrations=program.migrations,
            on_fatal=lambda error: failures.append(repr(error)),
            tuning=Tuning(reserve_bytes=0),
        )
        try:
            result = store.read(lambda tx: tx.run("PRAGMA integrity_check"))
            if result != [("ok",)] or failures:
                report.wrong.append(f"after kill {report.kills}: {result} {failures}")
        finally:
            store.close()
    report.files_checked += 1


def main(kills: int, kind: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        program: Program
        if kind == "matrixbox":
            program = MatrixProgram(folder, port)
        else:
            program = TinyProgram(folder, port, careless=kind == "careless")
        report = run(program, kills)
    print(f"{kind}: {report}")
    for line in report.wrong[:10]:
        print("   ", line)
    if kind == "careless":
        print("found out, as it must be" if report.wrong else "FAILED: not found out")
        return 0 if report.wrong else 1
    good = report.kills >= kills and report.acknowledged > 10 * kills and not report.wrong
    print("proved" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(int(arguments[0]) if arguments else KILLS, (arguments[1:] or ["matrixbox"])[0]))
