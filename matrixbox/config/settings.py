"""Every setting: its key, kind, default and meaning.

The classes are the sections of the file, the fields its keys. `matrixbox.toml` at the top of the
source tree is generated from here (`python -m matrixbox.config`), and a test keeps them equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs

from matrixbox.config import kinds
from matrixbox.config.kinds import Address, Kind

HASH_COSTS = ("normal", "lowest")
TLS_MODES = ("off", "files", "acme")
PUBLISHERS = ("anyone", "admins", "nobody")
MAIL_SECURITY = ("auto", "tls", "starttls", "none")
LOG_LEVELS = ("debug", "info", "warning", "error")
ROOM_VERSIONS = tuple(str(version) for version in range(1, 13))


@attrs.frozen
class Setting:
    """What is known about one key besides its value."""

    key: str
    kind: Kind
    default: Any
    help: str
    secret: bool
    in_effect: bool


def _setting(
    kind: Kind,
    default: Any,
    text: str,
    *,
    key: str = "",
    secret: bool = False,
    in_effect: bool = True,
) -> Any:
    """A field with its help text; the key is the field's name unless `key` says otherwise.

    `in_effect` is false for keys that are accepted before the feature behind them exists.
    """
    about = {"kind": kind, "help": text, "key": key, "secret": secret, "in_effect": in_effect}
    return attrs.field(default=default, metadata=about)


@attrs.frozen
class Server:
    """[server]"""

    name: str = _setting(
        kinds.text(),
        "localhost",
        "The name after the colon in @user:name. It cannot be changed once the server has been "
        "used. A port may be part of it. A configuration file must give it.",
    )
    data_dir: Path | None = _setting(
        kinds.path(),
        None,
        "Folder of the database, media and signing key; made if missing. Empty: "
        "$STATE_DIRECTORY (set by systemd), else matrixbox in $XDG_STATE_HOME or ~/.local/state.",
    )
    public_base_url: str = _setting(
        kinds.base_url(),
        "",
        "The address that clients are told to use. Empty: the first plain HTTP listener while all "
        "listeners are on this machine only, else https:// and the server name.",
    )
    federation_name: str = _setting(
        kinds.text(),
        "",
        "Where other servers are told to go (/.well-known/matrix/server), such as "
        '"matrix.example.org:443". Empty: they are told nothing and try port 8448 of the name.',
    )


@attrs.frozen
class Listen:
    """[listen]"""

    http: tuple[Address, ...] = _setting(
        kinds.addresses(),
        (Address("127.0.0.1", 8008),),
        "Addresses for plain HTTP: for clients on this machine, or a reverse proxy.",
    )
    https: tuple[Address, ...] = _setting(
        kinds.addresses(),
        (),
        'Addresses for TLS, usually ["[::]:443", "[::]:8448"]. Both APIs answer on all listeners.',
    )


@attrs.frozen
class Tls:
    """[tls]"""

    mode: Literal["off", "files", "acme"] = _setting(
        kinds.text(choices=TLS_MODES),
        "off",
        '"files": certificate and key from the files below. "off": no TLS, listen.https must be '
        'empty. "acme" (fetch a certificate) is accepted but cannot be used yet.',
    )
    cert: Path | None = _setting(
        kinds.path(), None, "Certificate chain (PEM), the server's own first."
    )
    key: Path | None = _setting(kinds.path(), None, "Private key (PEM) of the certificate.")


@attrs.frozen
class Outbound:
    """[outbound]"""

    extra_ca_files: tuple[Path, ...] = _setting(
        kinds.paths(),
        (),
        "Certificate authorities (PEM) to trust beside the system's, for every outgoing request.",
    )
    allow_private_addresses: bool = _setting(
        kinds.flag(),
        False,
        "Whether outgoing requests may go to loopback and private addresses. For tests only: it "
        "opens the home network to anybody's server names and links.",
    )
    srv_lookups: bool = _setting(
        kinds.flag(),
        True,
        "Whether DNS SRV records are asked for before falling back to port 8448.",
    )
    backoff_max_seconds: int = _setting(
        kinds.number(1, 86_400),
        86_400,
        "The longest pause before a server that was down is tried again.",
    )
    key_notaries: tuple[str, ...] = _setting(
        kinds.server_names(),
        ("matrix.org",),
        "Servers that are believed about the keys of servers which cannot be reached any more. "
        "Without one, rooms whose founders are gone cannot be joined. Empty: nobody is.",
    )
    private_push_gateways: bool = _setting(
        kinds.flag(),
        False,
        "Whether push gateways may be at private addresses, such as one of your own at home. Every "
        "user of this server can then make it send notifications to machines there.",
    )


@attrs.frozen
class Registration:
    """[registration]"""

    open: bool = _setting(
        kinds.flag(),
        False,
        "Whether anybody who reaches the server may make an account. The try-out without a "
        "configuration file, which only this machine can reach, is open.",
    )
    guests: bool = _setting(
        kinds.flag(),
        False,
        "Whether anybody who reaches the server may have an account without a password, which can "
        "enter rooms that are open to guests.",
    )
    token: str = _setting(
        kinds.text(),
        "",
        "Who knows this word may register an account, however closed registration is otherwise. "
        "Empty: nobody may.",
        secret=True,
    )
    shared_secret: str = _setting(
        kinds.text(),
        "",
        "Lets programs that know it make accounts (/_synapse/admin/v1/register). Empty: off. A "
        "file that holds it must not be readable by everybody.",
        secret=True,
    )


@attrs.frozen
class Limits:
    """[limits]"""

    rate_limits: bool = _setting(
        kinds.flag(), True, "Whether requests are throttled. Off for tests only."
    )
    password_hash_cost: Literal["normal", "lowest"] = _setting(
        kinds.text(choices=HASH_COSTS),
        "normal",
        '"normal": argon2id with 19 MiB and 2 passes. "lowest": for tests only.',
    )
    rooms_per_user: int = _setting(
        kinds.number(1, 100_000), 2_000, "How many rooms one account may be joined to."
    )
    delayed_events_per_user: int = _setting(
        kinds.number(0, 1_000),
        100,
        "How many messages one account may have the server send later, as calls need it to notice "
        "who has gone. 0: none, and clients are told so.",
    )
    delayed_events_hours: int = _setting(
        kinds.number(1, 8_784), 720, "The longest time for which a message may be delayed."
    )


@attrs.frozen
class Rooms:
    """[rooms]"""

    default_version: str = _setting(
        kinds.text(choices=ROOM_VERSIONS), "12", "The version of rooms made here."
    )
    directory_without_login: bool = _setting(
        kinds.flag(),
        False,
        "Whether the list of published rooms, and everybody's profile, can be read without an "
        "account.",
    )
    directory_over_federation: bool = _setting(
        kinds.flag(),
        False,
        "Whether other servers can read the list of published rooms.",
    )
    publish: Literal["anyone", "admins", "nobody"] = _setting(
        kinds.text(choices=PUBLISHERS),
        "anyone",
        "Which of this server's users may publish rooms in the list.",
    )


@attrs.frozen
class Features:
    """[features]"""

    presence: bool = _setting(kinds.flag(), True, "Whether users see who is online.")
    url_previews: bool = _setting(
        kinds.flag(),
        False,
        "Whether the server fetches pages that messages link to, to show a preview.",
        in_effect=False,
    )
    third_party_ids: bool = _setting(
        kinds.flag(),
        False,
        "Whether users can add e-mail addresses to their accounts, sign in by them, and set a new "
        "password by mail. The section [email] says how mail is sent.",
    )
    legacy_media: bool = _setting(
        kinds.flag(),
        False,
        "Whether media can be fetched without an access token (/_matrix/media), for old clients.",
        in_effect=False,
    )
    household_directory: bool = _setting(
        kinds.flag(),
        True,
        "Whether everybody on this server can be found by everybody else on it. Otherwise, and "
        "wherever registration is open, one finds whom one shares a room with, and who is in a "
        "public room.",
    )


@attrs.frozen
class Media:
    """[media]"""

    max_upload_mib: int = _setting(
        kinds.number(1, 10_240), 50, "The largest file that a user may upload.", in_effect=False
    )
    max_remote_file_mib: int = _setting(
        kinds.number(1, 10_240),
        50,
        "The largest file that is fetched from another server.",
        in_effect=False,
    )
    remote_cache_mib: int = _setting(
        kinds.number(0, 10_485_760),
        2_048,
        "Space for files fetched from other servers; the least recently used go first.",
        in_effect=False,
    )
    own_mib: int = _setting(
        kinds.number(1, 10_485_760), 20_480, "Space for files uploaded here.", in_effect=False
    )


@attrs.frozen
class Appservices:
    """[appservices]"""

    registrations: tuple[Path, ...] = _setting(
        kinds.paths(), (), "Registration files (YAML) of application services.", in_effect=False
    )


@attrs.frozen
class Turn:
    """[turn]"""

    uris: tuple[str, ...] = _setting(
        kinds.turn_uris(),
        (),
        'Servers through which calls find each other, such as "turn:turn.example.org".',
    )
    shared_secret: str = _setting(
        kinds.text(),
        "",
        "The secret of these servers (coturn: static-auth-secret), from which users get passwords.",
        secret=True,
    )
    lifetime_minutes: int = _setting(
        kinds.number(5, 10_080), 1_440, "How long such a password works."
    )


@attrs.frozen
class Email:
    """[email]"""

    smtp_host: str = _setting(kinds.text(), "", "Mail server. Empty: no mail is sent.")
    smtp_port: int = _setting(
        kinds.number(0, 65_535), 25, "The port of the mail server: usually 465, 587 or 25."
    )
    sender: str = _setting(kinds.text(), "", "The address that mail comes from.", key="from")
    security: Literal["auto", "tls", "starttls", "none"] = _setting(
        kinds.text(choices=MAIL_SECURITY),
        "auto",
        '"tls": encrypted from the start. "starttls": encrypted, or nothing is sent. "none": as it '
        'is. "auto": none on this machine, tls on port 465, else starttls.',
    )
    user: str = _setting(kinds.text(), "", "Who signs in to the mail server. Empty: nobody does.")
    password_file: Path | None = _setting(
        kinds.path(), None, "A file with the password of that user, which only we may read."
    )


@attrs.frozen
class Support:
    """[support]"""

    page: str = _setting(
        kinds.base_url(),
        "",
        "A page for people who need help or want to complain. What this section says is public, in "
        "/.well-known/matrix/support; all of it may be empty.",
    )
    admin_user: str = _setting(
        kinds.text(), "", "The Matrix user to ask about this server, such as @ann:example.org."
    )
    admin_email: str = _setting(kinds.text(), "", "The same as an e-mail address.")
    security_user: str = _setting(
        kinds.text(), "", "The Matrix user to tell about security problems."
    )
    security_email: str = _setting(kinds.text(), "", "The same as an e-mail address.")


@attrs.frozen
class Log:
    """[log]"""

    file: Path | None = _setting(
        kinds.path(), None, "File to write the log to. Empty: standard error."
    )
    level: Literal["debug", "info", "warning", "error"] = _setting(
        kinds.text(choices=LOG_LEVELS), "info", "The least important lines to write."
    )
    keep_days: int = _setting(
        kinds.number(1, 3_650), 14, "How long old log files are kept; a new one begins every day."
    )


@attrs.frozen
class Settings:
    """The whole configuration. `data_dir` and the other paths are absolute after `load`."""

    server: Server = Server()
    listen: Listen = Listen()
    tls: Tls = Tls()
    outbound: Outbound = Outbound()
    registration: Registration = Registration()
    limits: Limits = Limits()
    rooms: Rooms = Rooms()
    features: Features = Features()
    media: Media = Media()
    appservices: Appservices = Appservices()
    turn: Turn = Turn()
    email: Email = Email()
    support: Support = Support()
    log: Log = Log()

    @property
    def is_loopback_only(self) -> bool:
        """Whether only this machine can connect."""
        return all(address.is_loopback for address in (*self.listen.http, *self.listen.https))

    @property
    def base_url(self) -> str:
        """What clients are told to use; see `public_base_url`."""
        if self.server.public_base_url:
            return self.server.public_base_url
        if self.is_loopback_only and self.listen.http:
            return f"http://{self.listen.http[0]}"
        return f"https://{self.server.name}"


def sections() -> dict[str, type[attrs.AttrsInstance]]:
    """The sections of the file in order, by name."""
    defaults = Settings()
    return {field.name: type(getattr(defaults, field.name)) for field in attrs.fields(Settings)}


def settings_of(section: type[attrs.AttrsInstance]) -> dict[str, tuple[str, Setting]]:
    """The keys of a section in order, each with the name of its field."""
    found: dict[str, tuple[str, Setting]] = {}
    for field in attrs.fields(section):
        about = dict(field.metadata)
        key = about.pop("key") or field.name
        found[key] = (field.name, Setting(key=key, default=field.default, **about))
    return found
