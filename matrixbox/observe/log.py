"""Structured log lines: a constant name plus fields, one line each.

    2026-11-22T23:47:01.123Z info pdu soft-failed event_id="$abc" check=6 request=1f0c92ab

Values are JSON with ASCII escapes, so nothing a remote server or client sends can start a new line
or reach the terminal as a control sequence. Tokens in addresses are masked. The text of foreign
exceptions is left out, because it may quote what somebody wrote: type and places only (threats
T101, T109). Ids are fields; message content never is.

The lines travel through the standard library's `logging`, so that what our libraries log takes the
same way and the same masks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import re
import secrets
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from matrixbox.errors import MatrixError, RemoteError

_logger = logging.getLogger("matrixbox")
_request_id: ContextVar[str | None] = ContextVar("matrixbox_request_id", default=None)

_SECRET_IN_TEXT = re.compile(
    r"""(access_token=|refresh_token=|loginToken=|bearer\s+)[^\s&"'\\,;)\]]+""", re.IGNORECASE
)
_SECRET_FIELDS = frozenset(
    {"access_token", "refresh_token", "token", "password", "secret", "content", "body"}
)
_MASK = "(masked)"
_MAX_VALUE_CHARACTERS = 1_000
_MAX_STRUCTURE_CHARACTERS = 4_000
_MAX_FRAMES = 12
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def debug(event: str, /, **fields: object) -> None:
    """For the one who looks for a fault."""
    _write(logging.DEBUG, event, fields)


def info(event: str, /, **fields: object) -> None:
    """A decision that an administrator might ask about."""
    _write(logging.INFO, event, fields)


def warning(event: str, /, **fields: object) -> None:
    """Something does not work as it should, and the server copes."""
    _write(logging.WARNING, event, fields)


def error(event: str, /, **fields: object) -> None:
    """Something is broken, and somebody should look."""
    _write(logging.ERROR, event, fields)


def bug(event: str, failure: BaseException, /, **fields: object) -> str:
    """Log an exception that should not have happened; returns the error id to give to the user."""
    error_id = new_id()
    _write(logging.ERROR, event, {"error_id": error_id, **fields, **describe(failure)})
    return error_id


def new_id() -> str:
    """A short random id for a request or an error: for finding lines, not for security."""
    return secrets.token_hex(4)


@contextlib.contextmanager
def request(request_id: str) -> Iterator[None]:
    """Every line written inside, in tasks started inside too, carries the request's id."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def describe(failure: BaseException) -> dict[str, object]:
    """An exception as fields: type, where it was raised and through what, and a text if it is ours.

    Groups and causes are followed a few steps.
    """
    fields: dict[str, object] = {"exception": type(failure).__name__}
    if text := _safe_text(failure):
        fields["text"] = text
    if frames := traceback.extract_tb(failure.__traceback__)[-_MAX_FRAMES:]:
        fields["trace"] = [
            f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
            for frame in reversed(frames)
        ]
    if isinstance(failure, BaseExceptionGroup):
        fields["group"] = [describe(inner) for inner in failure.exceptions[:3]]
    elif failure.__cause__ is not None:
        fields["cause"] = describe(failure.__cause__)
    return fields


def _safe_text(failure: BaseException) -> str | None:
    if isinstance(failure, MatrixError):
        return f"{failure.errcode} {failure.text}"
    if isinstance(failure, RemoteError):
        return str(failure)
    if isinstance(failure, OSError):
        return failure.strerror
    return None


def configure(level: str, file: Path | None = None, keep_days: int = 14) -> None:
    """Send log lines to `file` (a new one every day, old ones deleted) or to standard error.

    Call once, early; called again it replaces what it set before. Raises OSError.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.handlers.TimedRotatingFileHandler(
            file, when="midnight", backupCount=keep_days, encoding="utf-8", utc=True
        )
        file.chmod(0o600)
    handler.setFormatter(_Formatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries: only what is wrong
    _logger.setLevel(_LEVELS.get(level, logging.ERROR))
    # A log that cannot be written (full disk, closed pipe) must not stop the server.
    logging.raiseExceptions = False


def _write(level: int, event: str, fields: Mapping[str, object]) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", event, extra={"fields": fields, "request": _request_id.get()})


class _Formatter(logging.Formatter):
    """One record, ours or a library's, to one line."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event = record.getMessage()
        fields: dict[str, object] = {}
        if not hasattr(record, "fields"):
            fields["text"] = event
            event = f"from {record.name}"
        fields.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            fields.update(describe(record.exc_info[1]))
        if getattr(record, "request", None):
            fields["request"] = record.__dict__["request"]
        parts = [f"{seconds}.{int(record.msecs):03}Z", record.levelname.lower(), event]
        parts += [f"{name}={_shown(name, value)}" for name, value in fields.items()]
        return " ".join(parts)


def _shown(name: str, value: object) -> str:
    """A value as masked, bounded JSON; short plain words without quotes."""
    if name in _SECRET_FIELDS:
        return _MASK
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z0-9_.+-]+", value) and len(value) <= _MAX_VALUE_CHARACTERS:
            return value
        shown = value
    elif isinstance(value, int | float | None):
        return json.dumps(value)
    elif isinstance(value, dict | list | tuple):
        return _masked(json.dumps(value, default=str)[:_MAX_STRUCTURE_CHARACTERS])
    else:
        shown = str(value)
    if len(shown) > _MAX_VALUE_CHARACTERS:
        shown = shown[:_MAX_VALUE_CHARACTERS] + "…"
    return _masked(json.dumps(shown))


def _masked(text: str) -> str:
    return _SECRET_IN_TEXT.sub(rf"\1{_MASK}", text)
