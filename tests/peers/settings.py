"""What a Synapse that serves as a test peer is told: no notary, no delays, no limits.

- `trusted_key_servers: []`: the peer asks each server for its keys.
- `ip_range_blacklist: []` and its federation twin: Synapse refuses loopback otherwise.
- `federation_custom_ca_list`: only the test authority is trusted, so certificates are verified.
- All rate limits are a million a second; passwords are hashed cheaply.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_GENEROUS = {"per_second": 1_000_000, "burst_count": 1_000_000}


def homeserver_settings(
    data: Path, *, server_name: str, address: str, client_port: int, secret: str
) -> dict[str, Any]:
    """The configuration file of a peer with a plain client listener only."""
    bracketed = f"[{address}]" if ":" in address else address
    listeners: list[dict[str, Any]] = [
        {
            "port": client_port,
            "bind_addresses": [address],
            "type": "http",
            "tls": False,
            "x_forwarded": False,
            "resources": [{"names": ["client"], "compress": False}],
        }
    ]
    return {
        "server_name": server_name,
        "public_baseurl": f"http://{bracketed}:{client_port}/",
        "pid_file": str(data / "synapse.pid"),
        "signing_key_path": str(data / "signing.key"),
        "media_store_path": str(data / "media"),
        "log_config": str(data / "log.config"),
        "database": {
            "name": "sqlite3",
            "args": {"database": str(data / "homeserver.db")},
        },
        "listeners": listeners,
        "report_stats": False,
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "registration_shared_secret": secret,
        "macaroon_secret_key": "only for tests",
        "form_secret": "only for tests",
        "bcrypt_rounds": 4,
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "ip_range_blacklist": [],
        "federation_ip_range_blacklist": [],
        "allow_public_rooms_over_federation": True,
        "allow_device_name_lookup_over_federation": True,
        "url_preview_enabled": False,
        # Without this a new database is busy for a minute instead of seconds.
        "background_updates": {"sleep_enabled": False},
        # A peer that was down is retried at once instead of after ten minutes.
        # Durations are in milliseconds.
        "federation": {
            "client_timeout": 20_000,
            "max_short_retry_delay": 500,
            "max_short_retries": 2,
            "max_long_retry_delay": 2_000,
            "max_long_retries": 3,
            "destination_min_retry_interval": 200,
            "destination_retry_multiplier": 1,
            "destination_max_retry_interval": 1_000,
        },
        **generous_limits(),
    }


def with_federation(
    config: dict[str, Any],
    address: str,
    port: int,
    chain: Path,
    key: Path,
    authority: Path,
) -> dict[str, Any]:
    """The configuration with a TLS listener for federation, and trust in one authority."""
    listener = {
        "port": port,
        "bind_addresses": [address],
        "type": "http",
        "tls": True,
        "x_forwarded": False,
        "resources": [{"names": ["client", "federation"], "compress": False}],
    }
    return config | {
        "tls_certificate_path": str(chain),
        "tls_private_key_path": str(key),
        "federation_custom_ca_list": [str(authority)],
        "federation_client_minimum_tls_version": "1.2",
        "listeners": [*config["listeners"], listener],
    }


def log_settings(level: str) -> dict[str, Any]:
    """Python's logging configuration for the peer."""
    return {
        "version": 1,
        "formatters": {
            "line": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": level, "handlers": ["console"]},
        "disable_existing_loggers": False,
    }


def generous_limits() -> dict[str, Any]:
    """Rate limits so high that no test meets them."""
    plain = (
        "rc_message",
        "rc_registration",
        "rc_registration_token_validity",
        "rc_admin_redaction",
        "rc_joins_per_room",
        "rc_key_requests",
        "rc_3pid_validation",
        "rc_third_party_invite",
        "rc_media_create",
        "rc_delayed_event_mgmt",
        "rc_room_creation",
        "rc_reports",
        "rc_user_directory",
        "rc_profile",
    )
    limits: dict[str, Any] = {name: dict(_GENEROUS) for name in plain}
    for name, parts in {
        "rc_login": ("address", "account", "failed_attempts"),
        "rc_joins": ("local", "remote"),
        "rc_invites": ("per_room", "per_user", "per_issuer"),
        "rc_presence": ("per_user",),
    }.items():
        limits[name] = {part: dict(_GENEROUS) for part in parts}
    limits["rc_federation"] = {
        "window_size": 1000,
        "sleep_limit": 1_000_000,
        "sleep_delay": 1,
        "reject_limit": 1_000_000,
        "concurrent": 100,
    }
    limits["federation_rr_transactions_per_room_per_second"] = 1_000_000
    limits["remote_media_download_per_second"] = "1G"
    limits["remote_media_download_burst_count"] = "10G"
    return limits
