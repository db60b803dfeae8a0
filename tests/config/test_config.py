"""The configuration file: strict, whole or not at all, with messages that help (threats T161)."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from matrixbox.config import Address, ConfigError, Settings, default_data_dir, load
from matrixbox.config import example as example_module
from matrixbox.config import settings as settings_module
from matrixbox.config.settings import sections, settings_of

TOP = Path(__file__).resolve().parents[2]


def write(folder: Path, text: str) -> Path:
    file = folder / "matrixbox.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return file


def problems(folder: Path, text: str) -> list[str]:
    """The messages for a file, without its folder."""
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text))
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


NAME = '[server]\nname = "example.org"\n'


# --- What is read -------------------------------------------------------------------------------


def test_without_a_file_it_is_a_try_out_that_only_this_machine_can_reach():
    found = load(None, {"HOME": "/home/ann"})
    assert found.server.name == "localhost"
    assert found.listen.http == (Address("127.0.0.1", 8008),)
    assert found.listen.https == ()
    assert found.tls.mode == "off"
    assert found.server.data_dir == Path("/home/ann/.local/state/matrixbox")
    assert found.is_loopback_only
    assert found.registration.open
    assert not found.registration.guests
    assert found.base_url == "http://127.0.0.1:8008"


def test_t096_with_a_file_registration_is_closed_even_on_loopback(tmp_path):
    found = load(write(tmp_path, NAME))
    assert found.is_loopback_only
    assert not found.registration.open


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/h"}, "/h/.local/state/matrixbox"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/s/matrixbox"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/matrixbox"),
        ({"HOME": "/h", "STATE_DIRECTORY": "/var/lib/matrixbox"}, "/var/lib/matrixbox"),
        ({"HOME": "/h", "STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
    ],
)
def test_the_data_folder_is_found_without_a_setting(environment, expected):
    assert default_data_dir(environment) == Path(expected)


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    text = NAME + (
        'data_dir = "data"\n[tls]\ncert = "/etc/tls.pem"\nkey = "tls.key"\n'
        '[appservices]\nregistrations = ["irc.yaml"]\n'
    )
    found = load(write(tmp_path, text))
    assert found.server.data_dir == tmp_path / "data"
    assert found.tls.cert == Path("/etc/tls.pem")
    assert found.tls.key == tmp_path / "tls.key"
    assert found.appservices.registrations == (tmp_path / "irc.yaml",)


CONFORMANCE = """
[server]
name = "localhost:8801"
data_dir = "data"
public_base_url = "http://localhost:8800/"

[listen]
http = ["localhost:8800", "127.0.0.11:8008", "[::1]:0"]
https = ["127.0.0.11:8448"]

[tls]
mode = "files"
cert = "/x/tls.pem"
key = "/x/tls.key"

[outbound]
extra_ca_files = ["/x/ca.pem"]
allow_private_addresses = true
srv_lookups = false
backoff_max_seconds = 1

[registration]
open = true
guests = true
shared_secret = "complement"

[limits]
rate_limits = false
password_hash_cost = "lowest"

[rooms]
default_version = "11"
directory_without_login = true
directory_over_federation = true
publish = "anyone"

[features]
presence = true
url_previews = true
third_party_ids = true
legacy_media = true

[appservices]
registrations = ["/x/as.yaml"]

[email]
smtp_host = ""
smtp_port = 0
from = "matrixbox@localhost"

[log]
file = "/x/log"
level = "debug"
"""


def test_every_key_that_the_conformance_suites_write_is_accepted(tmp_path):
    found = load(write(tmp_path, CONFORMANCE))
    assert found.server.name == "localhost:8801"
    assert found.base_url == "http://localhost:8800"
    assert found.listen.http == (
        Address("localhost", 8800),
        Address("127.0.0.11", 8008),
        Address("::1", 0),
    )
    assert found.is_loopback_only
    assert found.tls == settings_module.Tls("files", Path("/x/tls.pem"), Path("/x/tls.key"))
    assert found.outbound == settings_module.Outbound((Path("/x/ca.pem"),), True, False, 1)
    assert found.registration == settings_module.Registration(
        open=True, guests=True, shared_secret="complement"
    )
    assert found.limits.rate_limits is False
    assert found.limits.password_hash_cost == "lowest"
    assert found.rooms == settings_module.Rooms("11", True, True, "anyone")
    assert found.features == settings_module.Features(True, True, True, True)
    assert found.email == settings_module.Email("", 0, "matrixbox@localhost")
    assert found.log.file == Path("/x/log")
    assert found.log.level == "debug"


def test_settings_cannot_be_changed_after_loading():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        load(None).server.name = "other"


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        ('http = ["127.0.0.1:1", "[::1]:2", "localhost:3", "127.9.9.9:4"]', True),
        ('http = ["0.0.0.0:1"]', False),
        ('http = ["127.0.0.1:1", "[::]:1"]', False),
        ('http = ["192.168.1.5:1"]', False),
        ('http = ["localhost.example.org:1"]', False),
    ],
)
def test_listeners_are_known_to_be_loopback_or_not(tmp_path, listeners, expected):
    assert load(write(tmp_path, f"{NAME}[listen]\n{listeners}")).is_loopback_only is expected


def test_clients_are_told_the_public_address_or_the_server_name(tmp_path):
    public = '[listen]\nhttp = ["0.0.0.0:8008"]\n'
    assert load(write(tmp_path, NAME + public)).base_url == "https://example.org"
    text = NAME + 'public_base_url = "https://m.example.org/x/"\n' + public
    assert load(write(tmp_path, text)).base_url == "https://m.example.org/x"


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            NAME + 'data_dri = "/x"',
            'matrixbox.toml:3: server.data_dri: unknown key; did you mean "data_dir"?',
        ),
        (
            NAME + "[rooms]\nopen = true",
            'matrixbox.toml:4: rooms.open: unknown key; did you mean "registration.open"?',
        ),
        (
            NAME + "[listne]\nhttp = []",
            'matrixbox.toml:3: listne: unknown section; did you mean "listen"?',
        ),
        (NAME + "zzz = 1", "matrixbox.toml:3: server.zzz: unknown key"),
        (
            'http = "x"\n' + NAME,
            'matrixbox.toml:1: http: unknown section; did you mean "listen.http"?',
        ),
        (
            "server = 1",
            "matrixbox.toml:1: server: must be a section: [server]",
        ),
        (
            NAME + "[limits]\n\n# comment\nrate_limits = 'yes'",
            "matrixbox.toml:6: limits.rate_limits: must be true or false (without quotes), "
            "not text",
        ),
        (
            NAME + '[limits]\nrooms_per_user = "5"',
            "matrixbox.toml:4: limits.rooms_per_user: must be a whole number (without quotes), "
            "not text",
        ),
        (
            NAME + "[limits]\nrooms_per_user = true",
            "matrixbox.toml:4: limits.rooms_per_user: must be a whole number (without quotes), "
            "not true or false",
        ),
        (
            NAME + "[limits]\nrooms_per_user = 0",
            "matrixbox.toml:4: limits.rooms_per_user: must be from 1 to 100000",
        ),
        (
            NAME + "[log]\nlevel = 'loud'",
            'matrixbox.toml:4: log.level: must be one of "debug", "info", "warning", "error"',
        ),
        (
            NAME + "[rooms]\ndefault_version = 12",
            "matrixbox.toml:4: rooms.default_version: must be text in quotes, not a whole number",
        ),
        (
            NAME + '[listen]\nhttp = "127.0.0.1:8008"',
            'matrixbox.toml:4: listen.http: must be a list such as ["one", "two"], not text',
        ),
        (
            NAME + "[log]\nfile = 1979-05-27",
            "matrixbox.toml:4: log.file: must be text in quotes, not a date or time",
        ),
        (
            '[server]\nname = "bad name"',
            "matrixbox.toml:2: server.name: is not a server name such as "
            '"example.org" or "example.org:8448"',
        ),
        (
            f'[server]\nname = "{"a" * 231}"',
            "matrixbox.toml:2: server.name: is not a server name such as "
            '"example.org" or "example.org:8448"',
        ),
        (
            '[log]\nlevel = "info"',
            "matrixbox.toml: server.name: is missing; every user's id ends in it and it cannot "
            "be changed later",
        ),
        (
            NAME + '[listen]\nhttps = ["[::]:443"]',
            'matrixbox.toml: tls.mode: is "off", but listen.https is not empty',
        ),
        (
            NAME + '[tls]\nmode = "files"\ncert = "/x"',
            'matrixbox.toml: tls.key: must name a file when tls.mode is "files"',
        ),
        (
            NAME + "[listen]\nhttp = []",
            "matrixbox.toml:3: listen: http and https are both empty: nobody could connect",
        ),
        (
            NAME + '[appservices]\nregistrations = [""]',
            "matrixbox.toml:4: appservices.registrations: must not contain an empty name",
        ),
        (
            NAME + '[listen]\nhttp = ["127.0.0.1:1", "127.0.0.1:1"]',
            "matrixbox.toml:4: listen.http: must not name one address twice",
        ),
        (
            NAME + '[log]\nfile = "a\\u0000b"',
            "matrixbox.toml:4: log.file: must not contain control characters",
        ),
    ],
)
def test_t161_mistakes_are_named_with_file_line_key_and_suggestion(tmp_path, text, expected):
    assert problems(tmp_path, text) == [expected]


@pytest.mark.parametrize(
    "address",
    [
        "8008", ":8008", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:8008",
        "[127.0.0.1]:80", "[::1]", "a b:80", "exämple:80", "-:80", "a..b:80", "127.0.0.1:-1", "²:1",
        "127.0.0.1:²",
    ],
)  # fmt: skip
def test_bad_addresses_are_refused(tmp_path, address):
    (message,) = problems(tmp_path, f'{NAME}[listen]\nhttp = ["{address}"]')
    assert "ADDRESS:PORT" in message


@pytest.mark.parametrize(
    "url", ["example.org", "ftp://a", "https://", "https://a?b", "https://a#b", "https://u@a"]
)
def test_bad_base_addresses_are_refused(tmp_path, url):
    (message,) = problems(tmp_path, f'{NAME}public_base_url = "{url}"')
    assert "server.public_base_url: must be a" in message


@pytest.mark.parametrize("name", ["https://m.example.org", "m.example.org/x", "a b", "m.example:"])
def test_other_servers_are_only_told_of_a_server_name(tmp_path, name):
    (message,) = problems(tmp_path, f'{NAME}federation_name = "{name}"')
    assert "server.federation_name: is not a server name" in message


@pytest.mark.parametrize("key", ["admin_user", "security_user"])
def test_whom_to_ask_is_a_matrix_user(tmp_path, key):
    (message,) = problems(tmp_path, f'{NAME}[support]\n{key} = "ann"')
    assert f"support.{key}: is not a Matrix user" in message


def test_all_mistakes_are_told_at_once(tmp_path):
    found = problems(tmp_path, NAME + "a = 1\nb = 2\n[log]\nlevel = 3")
    assert len(found) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[server\n", r"matrixbox.toml:1: is not TOML: "),
        (b"[server]\nname = 'a'\nname = 'b'\n", r"matrixbox.toml:3: is not TOML: "),
        (b"[server]\nname = '\xff'", r"matrixbox.toml:2: is not UTF-8 text"),
        (b"a = " + b"[" * 5_000 + b"]" * 5_000, r"matrixbox.toml: is nested too deeply"),
        (b"#" * (300 * 1024), r"matrixbox.toml: is larger than 256 KiB"),
    ],
)
def test_what_is_no_toml_is_refused(tmp_path, content, expected):
    file = tmp_path / "matrixbox.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load(file)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml")


def test_t161_a_secret_in_a_file_that_everybody_can_read_is_refused(tmp_path):
    file = write(tmp_path, NAME + '[registration]\nshared_secret = "x"')
    assert load(file).registration.shared_secret == "x"
    file.chmod(0o604)
    with pytest.raises(ConfigError, match=r":4: registration.shared_secret: is a secret.*chmod o="):
        load(file)
    write(tmp_path, NAME).chmod(0o604)
    assert load(file).registration.shared_secret == ""


def test_the_line_of_a_key_after_text_over_several_lines_is_right(tmp_path):
    text = '[server]\nname = """\na = 1\n[log]\n"""\n[log]\nlevl = 1\n'
    found = problems(tmp_path, text)
    assert 'matrixbox.toml:7: log.levl: unknown key; did you mean "level"?' in found


VALUES = st.recursive(
    st.sampled_from(
        ["true", "0", "-1", "1.5", '""', '"x"', "1979-05-27", '"127.0.0.1:1"', "99999"]
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    max_leaves=4,
)
KEYS = [f"{name}.{key}" for name, section in sections().items() for key in settings_of(section)]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from([*KEYS, "server.nam", "x.y"]), VALUES, max_size=6))
@example({"server.name": '"x"', "log.level": "[[]]"})
def test_t161_any_file_gives_whole_settings_or_located_problems(tmp_path, chosen):
    lines = [f"{key} = {value}" for key, value in chosen.items()]
    file = write(tmp_path, "\n".join(lines))
    outcome: Settings | ConfigError
    try:
        outcome = load(file)
    except ConfigError as error:
        outcome = error
    if isinstance(outcome, Settings):
        assert "server.name" in chosen
    else:
        assert outcome.problems
        for problem in outcome.problems:
            if problem.line is not None:
                assert lines[problem.line - 1].startswith(problem.key)


# --- matrixbox.toml at the top ------------------------------------------------------------------


def test_the_example_file_is_what_the_code_says():
    written = (TOP / "matrixbox.toml").read_text(encoding="utf-8")
    assert written == example_module.example(), "run: python -m matrixbox.config > matrixbox.toml"


def test_the_command_prints_the_example_file():
    done = subprocess.run(
        [sys.executable, "-m", "matrixbox.config"], capture_output=True, text=True, check=True
    )
    assert done.stdout == example_module.example()


def test_the_example_file_gives_the_defaults(tmp_path):
    environment = {"HOME": "/h"}
    file = write(tmp_path, example_module.example())
    opened = load(None, environment)
    closed = attrs.evolve(opened, registration=attrs.evolve(opened.registration, open=False))
    assert load(file, environment) == closed


def test_every_setting_has_a_meaning_and_its_default_is_shown():
    text = example_module.example()
    for section in sections().values():
        for key, (_, setting) in settings_of(section).items():
            assert re.fullmatch(r"[\"A-Z].{15,}[.]", setting.help), key
            assert f"\n{key} = {setting.kind.show(setting.default)}\n" in text


@pytest.mark.parametrize("value", ['a"b', "a\\b", "ü", "\U0001f600", "#", "'''", "\x7f"])
def test_text_is_shown_as_toml_that_reads_back(tmp_path, value):
    text = example_module.minimal({"server": {"name": "x"}, "email": {"from": value}})
    if value == "\x7f":
        assert problems(tmp_path, text)[0].endswith("must not contain control characters")
    else:
        assert load(write(tmp_path, text)).email.sender == value


def test_a_file_s_mode_is_not_changed_by_reading(tmp_path):
    file = write(tmp_path, NAME)
    load(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
