"""The server as a process of its own, the way people run it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests.mail.post_office import PostOffice

TOP = Path(__file__).resolve().parents[3]
SERVER_NAME = "home.test"
BASE_URL = "http://home.test:8008"
OPEN = """
[registration]
open = true
shared_secret = "for the tests"

[limits]
rate_limits = false
password_hash_cost = "lowest"

[rooms]
directory_without_login = true

[support]
page = "https://home.test/help"
admin_user = "@ann:home.test"
security_user = "@ann:home.test"
security_email = "security@home.test"

[log]
level = "debug"
"""
# Registration with a token only, nobody's list of rooms for strangers, and no publishing.
CLOSED = """
[registration]
token = "the word"
shared_secret = "for the tests"

[limits]
rate_limits = false
password_hash_cost = "lowest"

[rooms]
publish = "nobody"
"""
# As people run it, but for the cost of passwords.
LIMITED = """
[registration]
shared_secret = "for the tests"

[limits]
password_hash_cost = "lowest"
"""
# Open to people and to guests.
GUESTS = """
[registration]
open = true
guests = true

[limits]
rate_limits = false
password_hash_cost = "lowest"
"""
OFFICE = PostOffice()
# Keeps addresses of people, and sends them mail.
WITH_MAIL = f"""
[features]
third_party_ids = true

[email]
smtp_host = "127.0.0.1"
smtp_port = {OFFICE.port}
from = "matrixbox@home.test"
"""
MAILING = f"{OPEN}{WITH_MAIL}"
GUESTS_LIMITED = """
[registration]
guests = true
"""
MAILING_LIMITED = f"{LIMITED}{WITH_MAIL}"
CLOSED_AND_LIMITED = """
[registration]
token = "the word"
"""
_SECRET = re.compile(rb"mb[lorx]_[\w-]{43}|correct horse battery staple")
_DELAYED = re.compile(rb"mbd_[\w-]{43}")
_READY = re.compile(r'\bready\b.*listening=\["([^":]+):(\d+)"')


@frozen
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path

    @property
    def is_alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self.process.poll() is None

    def bugs(self) -> list[str]:
        """What the server logged of requests that failed by a bug."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if " error " in line]

    def tokens_written(self) -> set[str]:
        """The files, log and database, in which a token or a password stands as such (T101)."""
        files = [self.log, *(self.log.parent / "data").rglob("*")]
        found = {
            file.name
            for file in files
            if file.is_file() and _SECRET.search(file.read_bytes()) is not None
        }
        # What names a delayed event is enough to send it; its user can ask for it again.
        if _DELAYED.search(self.log.read_bytes()) is not None:
            found.add(self.log.name)
        return found


@contextmanager
def serving(folder: Path, settings: str = OPEN) -> Iterator[Server]:
    """Run `matrixbox serve` in a folder, and stop it orderly."""
    config, log = folder / "matrixbox.toml", folder / "server.log"
    config.write_text(
        f'[server]\nname = "{SERVER_NAME}"\ndata_dir = "data"\npublic_base_url = "{BASE_URL}"\n'
        f'[listen]\nhttp = ["127.0.0.1:0"]\n{settings}'
    )
    config.chmod(0o600)
    command = [sys.executable, "-m", "matrixbox", "serve", "--config", str(config)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=TOP, stdout=subprocess.DEVNULL, stderr=errors, stdin=subprocess.DEVNULL
        )
    try:
        yield Server(process, *_listening(process, log), log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        found = _READY.search(log.read_text())
        if found is not None:
            return found[1], int(found[2])
        time.sleep(0.02)
    raise AssertionError(f"the server did not start: {log.read_text()}")
