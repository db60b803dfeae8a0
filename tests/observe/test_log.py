"""Log lines: one line each, escaped, masked, without anybody's words."""

from __future__ import annotations

import logging
import re

import pytest
import trio

from matrixbox.errors import Forbidden, RemoteTimeout
from matrixbox.observe import log

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) [ -~]+$")


@pytest.fixture
def written(tmp_path):
    """Configures the log; gives a function that returns its lines."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    root.handlers[:] = []
    file = tmp_path / "log"
    log.configure("info", file)
    yield lambda: file.read_text(encoding="utf-8").splitlines()
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("matrixbox").setLevel(logging.NOTSET)
    logging.raiseExceptions = raising


def test_a_line_has_time_level_event_and_fields(written):
    log.info("pdu soft-failed", event_id="$abc", check=6, ok=False, reason=None)
    (line,) = written()
    assert LINE.match(line)
    assert line.endswith('Z info pdu soft-failed event_id="$abc" check=6 ok=false reason=null')


def test_lines_below_the_level_are_not_written(written):
    log.debug("noise")
    assert written() == []


@pytest.mark.parametrize(
    "hostile",
    ["a\nfake line", "\x1b[31mred", "\u2028", "\x00", "ÿ\u202eabc", '" injected="1', "\ud800"],
)
def test_rule_10_values_cannot_leave_their_field(written, hostile):
    log.info("event", value=hostile, list=[hostile], table={"k": hostile})
    (line,) = written()
    assert LINE.match(line)
    assert ' injected="1"' not in line.replace('\\"', "")


@pytest.mark.parametrize(
    "text",
    [
        "GET /sync?access_token=hunter2&since=1",
        "GET /sync?since=1&ACCESS_TOKEN=hunter2",
        "Authorization: Bearer hunter2",
        "/login?loginToken=hunter2",
    ],
)
def test_t101_tokens_in_addresses_are_masked(written, text):
    log.info("request", target=text)
    log.info("request", targets=[text])
    logging.getLogger("hypercorn.error").error("bad request: %s", text)
    lines = written()
    assert len(lines) == 3
    assert all("(masked)" in line and "hunter2" not in line for line in lines)


@pytest.mark.parametrize("name", ["password", "access_token", "content", "body", "secret"])
def test_t109_fields_that_would_hold_secrets_or_content_are_masked(written, name):
    log.info("event", **{name: "hunter2"})
    assert "hunter2" not in written()[0]


def test_t109_a_bug_is_logged_with_places_but_without_the_words_of_others(written):
    def inner() -> None:
        local = "hunter2"
        raise KeyError(local)

    try:
        try:
            inner()
        except KeyError as error:
            raise ValueError("hunter2") from error
    except ValueError as error:
        error_id = log.bug("request failed", error)
    (line,) = written()
    assert "hunter2" not in line
    assert f"error_id={error_id}" in line
    assert "exception=ValueError" in line
    assert "KeyError" in line
    assert re.search(r"observe/test_log.py:\d+ inner", line)


def test_errors_of_our_own_keep_their_text(written):
    log.bug("a", Forbidden("not a member"))
    log.bug("b", RemoteTimeout("b.test", "no answer"))
    log.bug("c", PermissionError(13, "Permission denied"))
    lines = written()
    assert "M_FORBIDDEN not a member" in lines[0]
    assert "b.test: no answer" in lines[1]
    assert "Permission denied" in lines[2]


def test_groups_of_errors_are_described(written):
    log.bug("a", ExceptionGroup("two", [KeyError("hunter2"), ValueError("hunter2")]))
    (line,) = written()
    assert "KeyError" in line
    assert "ValueError" in line
    assert "hunter2" not in line


def test_exceptions_that_libraries_log_lose_their_text_too(written):
    try:
        raise ValueError("hunter2")
    except ValueError:
        logging.getLogger("quart.app").exception("Exception on request")
    (line,) = written()
    assert 'from quart.app text="Exception on request" exception=ValueError' in line
    assert "hunter2" not in line


def test_values_are_bounded(written):
    log.info("event", text="x" * 10_000, many=["y" * 100] * 1_000)
    assert len(written()[0]) < 6_000


async def test_lines_carry_the_request_id_also_in_child_tasks_and_threads(written):
    async def child() -> None:
        log.info("child")

    with log.request("abcd"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.to_thread.run_sync(log.info, "thread")
    log.info("after")
    lines = written()
    assert sorted(line.partition("info ")[2] for line in lines) == [
        "after",
        "child request=abcd",
        "thread request=abcd",
    ]


def test_the_log_file_is_private(tmp_path, written):
    log.info("x")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_the_log_goes_to_standard_error_without_a_file(written, capsys):
    log.configure("debug")
    log.debug("hello")
    assert capsys.readouterr().err.endswith("Z debug hello\n")
