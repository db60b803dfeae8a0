"""Read a configuration file, whole or not at all.

Unknown sections and keys, wrong types and impossible combinations are errors (threats T161). All of
them are collected, each with file, line where it is known, key, and the nearest known key.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from matrixbox.config.settings import Email, Settings, sections, settings_of
from matrixbox.core.identifiers import InvalidIdentifier, is_user_id, parse_server_name

MAX_FILE_BYTES = 256 * 1024
"""Bound for the parser, which is slow on nonsense; a real file has a few kilobytes."""

MAX_SERVER_NAME_CHARACTERS = 230
"""What the specification recommends, so that user ids have room for names. Appendices."""

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits: what the program ends with when its configuration is bad."""

_HEADER = re.compile(r"^\s*\[\s*([A-Za-z0-9_-]+)\s*\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")


@attrs.frozen
class Problem:
    """One thing that is wrong with the file."""

    file: Path
    line: int | None
    key: str | None
    text: str

    def __str__(self) -> str:
        place = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.text}" if self.key is None else f"{place}: {self.key}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used; nothing of it has been applied."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a file, or those of the loopback try-out when `path` is None.

    Raises ConfigError. Paths in the file are relative to its folder; `environment` only decides
    where the data folder is when the file does not say.
    """
    if path is None:
        settings = Settings()
        # Nobody but this machine's users can connect, and there is nothing here yet to protect.
        opened = attrs.evolve(settings.registration, open=settings.is_loopback_only)
        settings = attrs.evolve(settings, registration=opened)
        folder = Path.cwd()
    else:
        settings = _from_file(path)
        folder = path.absolute().parent
    return _with_absolute_paths(settings, folder, environment)


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """Where the data folder is when no setting says."""
    if environment.get("STATE_DIRECTORY"):
        return Path(environment["STATE_DIRECTORY"].partition(":")[0])
    state = Path(environment.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # also what the XDG specification says about relative ones
        state = Path(environment.get("HOME") or Path.home()) / ".local" / "state"
    return state / "matrixbox"


def _from_file(path: Path) -> Settings:
    document, lines = _parse(path)
    problems: list[Problem] = []

    def problem(key: str | None, text: str) -> None:
        problems.append(Problem(path, lines.get(key or ""), key, text))

    values: dict[str, Any] = {}
    known = sections()
    for name, table in document.items():
        if name not in known:
            problem(name, "unknown section" + _nearest(name, known))
        elif not isinstance(table, dict):
            problem(name, f"must be a section: [{name}]")
        else:
            fields = {}
            for key, value in table.items():
                try:
                    field, fields_value = _read_value(name, key, value)
                except ValueError as error:
                    problem(f"{name}.{key}", str(error))
                else:
                    fields[field] = fields_value
            values[name] = known[name](**fields)
    settings = Settings(**values)
    if not problems:
        for key, text in _contradictions(settings, document, path):
            problem(key, text)
    if problems:
        raise ConfigError(*problems)
    return settings


def _read_value(section: str, key: str, value: object) -> tuple[str, Any]:
    """The field's name and value; raises ValueError with a text for people."""
    known = settings_of(sections()[section])
    if key not in known:
        raise ValueError("unknown key" + _nearest(key, known))
    field, setting = known[key]
    return field, setting.kind.read(value)


def _nearest(wrong: str, here: Iterable[str]) -> str:
    """A suggestion: a known name of the same place, else a key of any section."""
    elsewhere = {key: name for name in sections() for key in settings_of(sections()[name])}
    if close := difflib.get_close_matches(wrong, here, n=1):
        return f'; did you mean "{close[0]}"?'
    if close := difflib.get_close_matches(wrong, elsewhere, n=1, cutoff=0.75):
        return f'; did you mean "{elsewhere[close[0]]}.{close[0]}"?'
    return ""


def _contradictions(
    settings: Settings, document: Mapping[str, Any], path: Path
) -> Iterator[tuple[str, str]]:
    """What is wrong with settings that are each right."""
    if "name" not in document.get("server", {}):
        yield "server.name", "is missing; every user's id ends in it and it cannot be changed later"
    if not _is_server_name(settings.server.name):
        yield "server.name", 'is not a server name such as "example.org" or "example.org:8448"'
    if settings.server.federation_name and not _is_server_name(settings.server.federation_name):
        yield "server.federation_name", 'is not a server name such as "matrix.example.org:443"'
    for key in ("admin_user", "security_user"):
        user = getattr(settings.support, key)
        if user and not is_user_id(user):
            yield f"support.{key}", "is not a Matrix user such as @ann:example.org"
    if not (settings.listen.http or settings.listen.https):
        yield "listen", "http and https are both empty: nobody could connect"
    if settings.listen.https and settings.tls.mode == "off":
        yield "tls.mode", 'is "off", but listen.https is not empty'
    if settings.tls.mode == "files":
        for name in ("cert", "key"):
            if getattr(settings.tls, name) is None:
                yield f"tls.{name}", 'must name a file when tls.mode is "files"'
    yield from _mail_contradictions(settings.email)
    for name, section in sections().items():
        for key, (field, setting) in settings_of(section).items():
            if setting.secret and getattr(getattr(settings, name), field) and _is_public(path):
                yield f"{name}.{key}", f"is a secret, but anybody can read it: chmod o= {path}"


def _mail_contradictions(email: Email) -> Iterator[tuple[str, str]]:
    if not email.smtp_host:
        return
    if email.sender.count("@") != 1 or not email.sender.isprintable():
        yield "email.from", "must be an address such as matrixbox@example.org to send mail from"
    if not email.smtp_port:
        yield "email.smtp_port", "must not be 0 where there is a mail server"
    if email.user and email.password_file is None:
        yield "email.password_file", "is missing; email.user needs a password"
    if email.user and email.security == "none":
        yield "email.security", 'must not be "none" where a password is sent'


def _is_server_name(name: str) -> bool:
    try:
        parse_server_name(name)
    except InvalidIdentifier:
        return False
    return len(name) <= MAX_SERVER_NAME_CHARACTERS


def _is_public(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IROTH)


def _with_absolute_paths(
    settings: Settings, folder: Path, environment: Mapping[str, str]
) -> Settings:
    """`settings` with every path absolute and the data folder chosen."""
    changed: dict[str, Any] = {}
    for name, section in sections().items():
        old = getattr(settings, name)
        new: dict[str, Any] = {}
        for field in attrs.fields(section):
            value = getattr(old, field.name)
            if isinstance(value, Path):
                new[field.name] = folder / value
            elif isinstance(value, tuple):
                new[field.name] = tuple(
                    folder / item if isinstance(item, Path) else item for item in value
                )
        changed[name] = attrs.evolve(old, **new)
    if settings.server.data_dir is None:
        data_dir = folder / default_data_dir(environment)
        changed["server"] = attrs.evolve(changed["server"], data_dir=data_dir)
    return attrs.evolve(settings, **changed)


def _parse(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The document, and the line of each section and key that could be found."""

    def broken(text: str, line: int | None = None) -> ConfigError:
        return ConfigError(Problem(path, line, None, text))

    try:
        data = path.read_bytes()
    except OSError as error:
        raise broken(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise broken(f"is larger than {MAX_FILE_BYTES // 1024} KiB")
    try:
        written = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise broken("is not UTF-8 text", line) from error
    try:
        return tomllib.loads(written), _lines(written)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise broken(f"is not TOML: {error}", int(found[1]) if found else None) from error
    except RecursionError as error:
        raise broken("is nested too deeply") from error


def _lines(written: str) -> dict[str, int]:
    """Where sections and keys stand: `tomllib` does not tell.

    It knows the usual ways of writing; what it does not find has no line in the message.
    """
    found: dict[str, int] = {}
    section = ""
    inside_text = False
    for number, line in enumerate(written.splitlines(), 1):
        if not inside_text:
            if header := _HEADER.match(line):
                section = header[1]
                found.setdefault(section, number)
            elif key := _KEY.match(line):
                name = re.sub(r"\s", "", key[1])
                found.setdefault(f"{section}.{name}" if section else name, number)
        if (line.count('"""') + line.count("'''")) % 2:
            inside_text = not inside_text
    return found
