"""The command line: what it says, what it leaves behind, how it ends."""

from __future__ import annotations

import configparser
import io
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from matrixbox import cli, serve
from matrixbox.cli.running import welcome
from matrixbox.config import load
from matrixbox.datafolder import DataFolder, FolderInUse
from matrixbox.household import control
from matrixbox.keyfile import KeyFileError, open_key, read_key
from matrixbox.store import accounts, inbound, meta, reports, rooms
from matrixbox.store.database import Store
from matrixbox.store.errors import DatabaseTooNew
from matrixbox.store.reports import Subject
from matrixbox.tasks import CrashLoop


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home folder, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[2]))  # for the child processes
    for name in ("XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write_config(folder: Path, text: str = "") -> Path:
    file = folder / "matrixbox.toml"
    file.write_text(f'[server]\nname = "home.test"\ndata_dir = "data"\n{text}')
    return file


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "matrixbox init example.org"),
        (["serve", "--help"], "127.0.0.1:8008"),
        (["init", "--help"], "cannot be changed later"),
        (["check", "--help"], "exit code tells the first problem"),
        (["user", "--help"], "deactivate"),
        (["user", "passwd", "--help"], "standard input"),
    ],
)
def test_help_reads_well(arguments, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert expected in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_help_is_quick_because_it_imports_little():
    code = "import sys, matrixbox.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'trio', 'apsw', 'nacl', 'quart', 'argon2', 'attrs'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["user"], ["init"], ["user", "add"]])
def test_wrong_use_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "matrixbox", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("matrixbox 0.")


# --- init ---------------------------------------------------------------------------------------


def test_init_writes_private_configuration_and_key(home, capsys):
    assert run("init", "example.org") == 0
    folder = home / "example.org"
    modes = {
        str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")
    }
    assert modes == {
        "matrixbox.toml": 0o600,
        "data": 0o700,
        "data/keys": 0o700,
        "data/keys/signing.key": 0o600,
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    found = load(folder / "matrixbox.toml")
    assert found.server.name == "example.org"
    assert found.server.data_dir == folder / "data"
    assert not found.registration.open
    shown = capsys.readouterr().out
    assert "matrixbox serve --config example.org/matrixbox.toml" in shown
    assert read_key(folder / "data" / "keys" / "signing.key").key_id.startswith("ed25519:")


def test_init_never_overwrites(home, capsys):
    assert run("init", "example.org") == 0
    before = {
        path: path.read_bytes() for path in (home / "example.org").rglob("*") if path.is_file()
    }
    assert run("init", "example.org") == 1
    assert "exists already; nothing was changed" in capsys.readouterr().err
    (home / "example.org" / "matrixbox.toml").unlink()
    assert run("init", "example.org") == 1
    (home / "example.org" / "matrixbox.toml").write_text("mine")
    assert run("init", "other.org", "--folder", "example.org") == 1
    after = {
        path: path.read_bytes() for path in (home / "example.org").rglob("*") if path.is_file()
    }
    assert after == {**before, home / "example.org" / "matrixbox.toml": b"mine"}


def test_init_with_a_port_or_an_address_makes_a_sensible_folder(home):
    assert run("init", "localhost:8801") == 0
    assert load(home / "localhost" / "matrixbox.toml").server.name == "localhost:8801"
    assert run("init", "[::1]:8448", "--folder", "six") == 0
    assert load(home / "six" / "matrixbox.toml").server.name == "[::1]:8448"


def test_init_of_the_configuration_only_leaves_the_rest_to_the_first_start(home, capsys):
    assert run("init", "example.org", "--config-only", "--folder", "etc") == 0
    assert "systemctl enable --now matrixbox" in capsys.readouterr().out
    assert [path.name for path in (home / "etc").iterdir()] == ["matrixbox.toml"]
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(Path(cli.__file__).parents[2] / "packaging" / "matrixbox.service")
    state_folder = Path("/var/lib") / unit["Service"]["StateDirectory"]
    assert load(home / "etc" / "matrixbox.toml", {}).server.data_dir == state_folder


def test_no_account_is_made_beside_the_server(home, capsys):
    """A configuration that leaves the data folder to systemd, and a command line that is not it."""
    config = home / "matrixbox.toml"
    config.write_text('[server]\nname = "example.org"\n')
    assert run("user", "list", "--config", config) == 1
    assert "There is no data of a server in" in capsys.readouterr().err
    assert [*home.iterdir()] == [config]


@pytest.mark.parametrize(
    "name", ["https://example.org", "@ann:example.org", "exa mple", "", "ü.de"]
)
def test_init_refuses_what_is_no_server_name(home, name, capsys):
    assert run("init", name) == 1
    assert "is not a server name" in capsys.readouterr().err
    assert list(home.iterdir()) == []


# --- serve --------------------------------------------------------------------------------------


def fake_server(monkeypatch, main) -> None:
    """In the place of the composition root."""
    monkeypatch.setattr("matrixbox.serve.main", main)
    monkeypatch.setattr("matrixbox.observe.log.configure", lambda *_: None)


def test_t161_a_bad_configuration_ends_with_78_before_anything_is_made(home, monkeypatch, capsys):
    fake_server(monkeypatch, lambda *_: pytest.fail("was started"))
    config = write_config(home, "nonsense = 1\n")
    for command in (["serve"], ["check"], ["user", "list"]):
        assert run(*command, "--config", config) == 78
        assert f"{config}:4: server.nonsense: unknown key" in capsys.readouterr().err
    assert list(home.iterdir()) == [config]


def test_t170_root_may_not_serve_other_machines_unless_told(home, monkeypatch, capsys):
    started = []
    fake_server(monkeypatch, lambda settings, on_ready: started.append(settings) or 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    config = write_config(home, '[listen]\nhttp = ["0.0.0.0:8008"]\n')
    assert run("serve", "--config", config) == 77
    assert "should not run as root" in capsys.readouterr().err
    assert run("serve", "--config", config, "--allow-root") == 0
    assert run("serve", "--config", write_config(home)) == 0
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("serve", "--config", write_config(home, '[listen]\nhttp = ["[::]:80"]\n')) == 0
    assert len(started) == 3


@pytest.mark.parametrize(
    ("error", "code"), [(FolderInUse("in use: stop it"), 73), (KeyFileError("no key"), 77)]
)
def test_what_stops_a_start_is_told_in_one_line_with_its_exit_code(
    home, monkeypatch, capsys, error, code
):
    def main(settings, on_ready):
        raise error

    fake_server(monkeypatch, main)
    assert run("serve") == code
    assert capsys.readouterr().err == f"{error}\n"


@pytest.mark.parametrize("error", [CrashLoop("push"), KeyError("hunter2"), OSError(5, "I/O error")])
def test_a_server_that_breaks_down_ends_with_70_without_quoting_anybody(
    home, monkeypatch, capsys, error
):
    def main(settings, on_ready):
        on_ready({})
        raise ExceptionGroup("nursery", [error])

    fake_server(monkeypatch, main)
    assert run("serve") == 70
    assert "hunter2" not in capsys.readouterr().err


def test_a_database_of_a_newer_release_is_told(home, monkeypatch, capsys):
    def main(settings, on_ready):
        raise DatabaseTooNew("it was used by a newer release")

    fake_server(monkeypatch, main)
    assert run("serve") == 65
    assert "used by a newer release" in capsys.readouterr().err


def test_the_try_out_says_what_to_do_next(home, monkeypatch, capsys):
    def main(settings, on_ready):
        on_ready({})
        return 0

    fake_server(monkeypatch, main)
    assert run("serve") == 0
    shown = capsys.readouterr().out
    assert "http://127.0.0.1:8008" in shown
    assert str(home / ".local/state/matrixbox") in shown
    assert "anybody on it can register" in shown
    assert "matrixbox init your.domain" in shown


def test_a_configured_server_says_where_it_is_without_lessons(home):
    shown = welcome(load(write_config(home)))
    assert "home.test" in shown
    assert "try-out" not in shown


# --- check --------------------------------------------------------------------------------------


def test_check_of_a_new_server_finds_everything_in_order(home, capsys):
    run("init", "example.org")
    config = home / "example.org" / "matrixbox.toml"
    config.write_text(config.read_text().replace("127.0.0.1:8008", "127.0.0.1:0"))
    assert run("check", "--config", config) == 0
    shown = capsys.readouterr().out
    assert "PROBLEM" not in shown
    for part in ("configuration", "data folder", "signing key", "database", "http 127.0.0.1:0"):
        assert part in shown


async def make_database(folder: Path, name: str = "home.test") -> None:
    data = DataFolder.open(folder)
    with data:
        async with Store.open(data.database) as store:
            await store.write(meta.put_text, "server_name", name)
            key = open_key(data.signing_key, known_key_ids=())
            await store.write(meta.put_text, "key_id", key.key_id)


async def test_t051_check_tells_when_the_key_is_gone_although_the_database_knows_it(home, capsys):
    await make_database(home / "data")
    config = write_config(home, '[listen]\nhttp = ["127.0.0.1:0"]\n')
    assert run("check", "--config", config) == 0
    key = home / "data" / "keys" / "signing.key"
    key.unlink()
    assert run("check", "--config", config) == 77
    assert "PROBLEM  signing key" in capsys.readouterr().out
    assert not key.exists()


async def test_check_tells_a_damaged_or_foreign_database(home, capsys):
    await make_database(home / "data", "other.test")
    config = write_config(home, '[listen]\nhttp = ["127.0.0.1:0"]\n')
    assert run("check", "--config", config) == 65
    assert "belongs to the server other.test" in capsys.readouterr().out
    file = home / "data" / "matrixbox.db"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run("check", "--config", config) == 65
    assert "PROBLEM  database" in capsys.readouterr().out
    file.write_bytes(b"not a database" * 100)
    assert run("check", "--config", config) == 65


def test_check_tells_an_address_in_use(home, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = write_config(home, f'[listen]\nhttp = ["127.0.0.1:{port}"]\n')
        assert run("check", "--config", config) == 69
    assert f"PROBLEM  http 127.0.0.1:{port}" in capsys.readouterr().out


def test_check_tells_a_missing_certificate(home, capsys):
    text = '[listen]\nhttp = []\nhttps = ["127.0.0.1:0"]\n'
    text += '[tls]\nmode = "files"\ncert = "none.pem"\nkey = "none.key"\n'
    assert run("check", "--config", write_config(home, text)) == 69
    assert "PROBLEM  certificate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "No such file"), (b"nonsense", "holds no certificates")]
)
def test_check_tells_authorities_that_cannot_be_used(home, capsys, content, expected):
    if content is not None:
        (home / "ca.pem").write_bytes(content)
    config = write_config(home, '[outbound]\nextra_ca_files = ["ca.pem"]\n')
    assert run("check", "--config", config) == 69
    shown = capsys.readouterr().out
    assert "PROBLEM  authorities" in shown
    assert expected in shown


def test_check_leaves_a_running_server_alone(home, capsys):
    with DataFolder.open(home / "data"):
        config = write_config(home)
        assert run("check", "--config", config) == 0
    shown = capsys.readouterr().out
    assert "a server is running on it" in shown
    assert "not tried" in shown
    assert not (home / "data" / "matrixbox.db").exists()


# --- user ---------------------------------------------------------------------------------------


@pytest.fixture
def configured(home):
    return write_config(home, '[limits]\npassword_hash_cost = "lowest"\n')


def typed(monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_accounts_are_managed_without_a_server(configured, monkeypatch, capsys):
    config = ["--config", configured]
    typed(monkeypatch, "correct horse\n")
    assert run("user", "add", "ann", "--admin", *config) == 0
    assert capsys.readouterr().out == "Made @ann:home.test.\n"
    typed(monkeypatch, "another horse\n")
    assert run("user", "passwd", "@ann:home.test", *config) == 0
    typed(monkeypatch, "")
    assert run("user", "deactivate", "ann", *config) == 1
    assert "add --yes" in capsys.readouterr().err
    assert run("user", "deactivate", "ann", "--yes", *config) == 0
    capsys.readouterr()
    assert run("user", "list", *config) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("@ann:home.test  20")
    assert shown.endswith("  admin deactivated\n")


def test_reports_are_shown_and_done_with(configured, monkeypatch, capsys):
    """C18.05; what somebody wrote does not steer the terminal (T109)."""
    config = ["--config", configured]
    assert run("report", "list", *config) == 0
    assert "no reports" in capsys.readouterr().err

    async def make() -> None:
        async with serve.open_users(load(configured)) as users:
            await users.add("ann", "correct horse", admin=False)
            ann = users.store.read(accounts.find, "ann")
            subject = Subject("@bo:home.test", "!r:home.test", "$e")
            await users.store.write(reports.put, ann.user, subject, "a\x1b[2Jb\nc", 1_000_000)

    trio.run(make)
    assert run("report", "list", *config) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "1  1970-01-01 00:16  reported by @ann:home.test"
    assert shown[1:4] == ["    user: @bo:home.test", "    room: !r:home.test", "    event: $e"]
    assert shown[4] == "    reason: a [2Jb c"
    assert run("report", "done", "1", *config) == 0
    assert run("report", "done", "1", *config) == 1
    assert "no report 1" in capsys.readouterr().err


def test_rooms_that_take_no_events_are_shown_and_tried_again(configured, monkeypatch, capsys):
    """T029; what somebody called a room does not steer the terminal (T109)."""
    config = ["--config", configured]
    assert run("room", "parked", *config) == 0
    assert "All rooms take events" in capsys.readouterr().err

    async def make() -> None:
        def park(tx):
            inbound.park(tx, rooms.add(tx, "!r:home.test", "11"), 1_000_000, "It costs too much.")

        async with serve.open_users(load(configured)) as users:
            await users.store.write(park)

    trio.run(make)
    assert run("room", "parked", *config) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "!r:home.test  since 1970-01-01 00:16"
    assert shown[1] == "    It costs too much."
    assert "matrixbox room retry '!r:home.test'" in shown[2]
    assert run("room", "retry", "!r:home.test", *config) == 0
    assert "takes events again" in capsys.readouterr().out
    assert run("room", "retry", "!r:home.test", *config) == 1
    assert "is no room that takes no events" in capsys.readouterr().err


def test_refusals_say_why(configured, monkeypatch, capsys):
    typed(monkeypatch, "bad\n")
    assert run("user", "add", "ann", "--config", configured) == 1
    assert capsys.readouterr().err == "The password must be at least 4 bytes long\n"
    assert run("user", "deactivate", "bo", "--yes", "--config", configured) == 1
    assert 'no account "bo"' in capsys.readouterr().err


def test_t147_a_folder_in_use_without_a_socket_is_told(configured, home, capsys):
    with DataFolder.open(home / "data"):
        assert run("user", "list", "--config", configured) == 73
    assert "in use by process" in capsys.readouterr().err


async def test_a_running_server_is_asked(configured, home, monkeypatch, capsys):
    settings = load(configured)
    async with serve.open_users(settings) as users, trio.open_nursery() as nursery:
        path = home / "data" / "control.sock"
        await nursery.start(control.listen, path, users.functions())
        typed(monkeypatch, "correct horse\n")
        add = ("user", "add", "ann", "--config", configured)
        assert await trio.to_thread.run_sync(lambda: run(*add)) == 0
        assert [account.localpart for account in users.everybody()] == ["ann"]
        typed(monkeypatch, "correct horse\n")
        assert await trio.to_thread.run_sync(lambda: run(*add)) == 1
        nursery.cancel_scope.cancel()
    assert "taken" in capsys.readouterr().err


def test_a_password_typed_twice_must_be_the_same(configured, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answers = iter(["correct horse", "correct house"])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    assert run("user", "add", "ann", "--config", configured) == 1
    assert "not the same" in capsys.readouterr().err


# --- the real server, as a process --------------------------------------------------------------


@contextmanager
def server(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`matrixbox serve`, ready; killed at the end if it still runs."""
    command = [sys.executable, "-m", "matrixbox", "serve", *map(str, arguments)]
    environment = {**os.environ, "HOME": str(folder)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_the_server_runs_is_managed_and_stops_in_good_order(home):
    port = free_port()
    config = write_config(home, f'[listen]\nhttp = ["127.0.0.1:{port}"]\n')

    def command(*arguments: str, typed: str = "") -> str:
        words = [sys.executable, "-m", "matrixbox", *arguments, "--config", config]
        done = subprocess.run(words, input=typed, capture_output=True, text=True, check=True)
        return done.stdout

    with server(home, "--config", config) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "matrixbox is running as home.test. Ctrl-C stops it.\n"
        url = f"http://127.0.0.1:{port}/_matrix/client/versions"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
        assert command("user", "add", "ann", typed="correct horse\n") == "Made @ann:home.test.\n"
        assert command("user", "list").startswith("@ann:home.test")
        assert "a server is running on it" in command("check")
        # T147: a second one on the same folder, and one on the same address.
        with server(home, "--config", config) as second:
            assert second.wait(20) == 73
        other = write_config(home / "data", f'[listen]\nhttp = ["127.0.0.1:{port}"]\n')
        with server(home, "--config", other) as third:
            assert third.wait(20) == 69
            assert third.stderr is not None
            assert "Address already in use" in third.stderr.read().splitlines()[-1]
        running.terminate()
        assert running.wait(20) == 0
    assert command("user", "list").startswith("@ann:home.test")
    assert "PROBLEM" not in command("check")


def test_t051_t161_a_server_whose_key_or_name_is_wrong_does_not_start(home):
    text = '[listen]\nhttp = ["127.0.0.1:0"]\n'
    config = write_config(home, text)
    assert run("check", "--config", config) == 0
    assert run("user", "list", "--config", config) == 0  # makes the database and the key
    config.write_text(config.read_text().replace("home.test", "other.test"))
    with server(home, "--config", config) as process:
        assert process.wait(20) == 77
        assert process.stderr is not None
        assert "belongs to the server home.test" in process.stderr.read()
    write_config(home, text)
    (home / "data" / "keys" / "signing.key").unlink()
    with server(home, "--config", config) as process:
        assert process.wait(20) == 77
        assert process.stderr is not None
        assert "No new key is made" in process.stderr.read()
