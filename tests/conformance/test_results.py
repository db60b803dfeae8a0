"""The table of a public suite's results says what the suite said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import results
from tests.conformance.__main__ import TABLE, main

LINES = """\
2026/01/02 03:04:05 config: --- PASS: TestNothing (0.00s)
=== RUN   TestRooms
=== RUN   TestRooms/GET_/may/be_left
=== PAUSE TestRooms/GET_/may/be_left
=== RUN   TestRooms/say_(who)_is_in: them
=== CONT  TestRooms/GET_/may/be_left
    rooms.go:10: it was "--- PASS: TestRooms" (0.01s) before
--- FAIL: TestRooms (1.20s)
    --- PASS: TestRooms/GET_/may/be_left (0.00s)
    --- FAIL: TestRooms/say_(who)_is_in: them (0.50s)
=== RUN   TestLater
--- SKIP: TestLater (0.00s)
=== RUN   TestDies
panic: the program ends here
"""
EXPECTED = {
    "TestDies": "fail",
    "TestLater": "skip",
    "TestRooms": "fail",
    "TestRooms/GET_/may/be_left": "pass",
    "TestRooms/say_(who)_is_in: them": "fail",
}


def as_json(package: str) -> str:
    """The same run as the tools of the language tell it."""

    def line(action: str, **more: Any) -> str:
        return json.dumps({"Action": action, "Package": package, **more})

    found = [line("start")]
    for test, result in EXPECTED.items():
        found.append(line("run", Test=test))
        found.append(line("output", Test=test, Output="--- PASS: TestNothing (0.00s)\n"))
        if test != "TestDies":
            found.append(line(result, Test=test, Elapsed=0.1))
    return "\n".join([*found, "{ not JSON", line("fail", Elapsed=1.2), ""])


def in_package(name: str) -> results.Results:
    return {(name, test): result for test, result in EXPECTED.items()}


def test_lines_and_json_say_the_same():
    assert results.read(LINES.splitlines(), "rooms") == in_package("rooms")
    text = as_json("example.org/suite/tests/rooms/more")
    assert results.read(text.splitlines()) == in_package("rooms/more")
    assert results.read(as_json("example.org/suite/tests").splitlines()) == in_package("tests")
    assert results.read(text.splitlines(), "rooms") == in_package("rooms")
    with pytest.raises(ValueError, match="NAME=FILE"):
        results.read(LINES.splitlines())


def test_a_table_is_sorted_and_read_again_the_same():
    found = {**in_package("b"), **in_package("a")}
    text = results.table(dict(reversed(found.items())))
    assert text == results.table(found)
    assert text.splitlines()[1:4] == [
        "a\tTestDies\tfail", "a\tTestLater\tskip", "a\tTestRooms\tfail",
    ]  # fmt: skip
    assert results.parse(text) == found
    for broken in ("no table\n", "package\ttest\tresult\na\tTestDies\tmaybe\n"):
        with pytest.raises(ValueError, match="result"):
            results.parse(broken)


def test_a_run_replaces_its_own_packages_and_tells_what_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    table, log, other = tmp_path / "table.tsv", tmp_path / "log", tmp_path / "other.json"
    log.write_text(LINES)
    other.write_text(as_json("example.org/suite/tests/other"))
    assert main(["--table", str(table), f"rooms={log}", str(other)]) == 0
    first = table.read_text()
    assert results.parse(first) == {**in_package("rooms"), **in_package("other")}
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "other: 1 pass, 2 fail, 1 skip", "rooms: 1 pass, 2 fail, 1 skip",
    ]  # fmt: skip
    log.write_text(LINES.replace("PASS: TestRooms/GET_/may", "FAIL: TestRooms/GET_/may"))
    main(["--table", str(table), f"rooms={log}"])
    assert table.read_text() == first.replace("rooms\tTestRooms/GET_/may/be_left\tpass", LOST)
    assert capsys.readouterr().out.splitlines() == [
        "rooms TestRooms/GET_/may/be_left: pass -> fail",
        "other: 1 pass, 2 fail, 1 skip",
        "rooms: 0 pass, 3 fail, 1 skip",
    ]
    log.write_text("=== RUN   TestNew\n--- PASS: TestNew (0.00s)\n")
    main(["--table", str(table), f"rooms={log}"])
    gone = capsys.readouterr().out
    assert "rooms TestRooms: fail -> not there\n" in gone
    assert "rooms TestNew: not there -> pass\n" in gone


LOST = "rooms\tTestRooms/GET_/may/be_left\tfail"


@pytest.mark.parametrize("given", ["nothing", "rooms=missing", "rooms=empty"])
def test_what_holds_no_results_changes_no_table(given: str, tmp_path: Path):
    (tmp_path / "nothing").write_text(LINES)
    (tmp_path / "empty").write_text("nothing at all\n")
    name, equals, file = given.rpartition("=")
    with pytest.raises(SystemExit):
        main(["--table", str(tmp_path / "table"), f"{name}{equals}{tmp_path / file}"])
    assert not (tmp_path / "table").exists()


def test_the_table_that_is_kept_is_one():
    text = TABLE.read_text(encoding="utf-8")
    assert results.table(results.parse(text)) == text
