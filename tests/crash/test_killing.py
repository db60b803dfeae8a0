"""T142: kill -9 at any moment, under two writing clients."""

from __future__ import annotations

from pathlib import Path

from tests.crash import killing
from tests.crash.matrix_writer import MatrixProgram
from tests.crash.tiny_server import TinyProgram
from tests.server import free_port


def test_no_kill_loses_or_doubles_a_message_t142(tmp_path: Path) -> None:
    report = killing.run(MatrixProgram(tmp_path, free_port()), killing.KILLS)
    print(report)
    assert report.wrong == []
    assert report.kills >= killing.KILLS
    assert report.acknowledged > 10 * killing.KILLS
    assert report.repeated > killing.KILLS // 2


def test_nor_with_a_small_server_around_the_store_alone(tmp_path: Path) -> None:
    report = killing.run(TinyProgram(tmp_path, free_port()), 5)
    assert report.wrong == []


def test_the_harness_finds_a_server_that_acknowledges_before_it_commits(tmp_path: Path) -> None:
    report = killing.run(TinyProgram(tmp_path, free_port(), careless=True), 3)
    assert any("is lost" in line for line in report.wrong)
