"""T141, T157: no power cut takes back what was acknowledged, or leaves half of anything."""

from __future__ import annotations

from tests.crash import powercut


def test_no_power_cut_loses_or_breaks_anything_t141_t157() -> None:
    log = powercut.record("FULL")
    report = powercut.look_at(log, powercut.DISKS)
    print(f"FULL: {len(log)} operations; {report}")
    assert report.examples == []
    assert report.disks == powercut.DISKS


def test_the_harness_finds_the_settings_that_are_known_to_be_bad() -> None:
    normal, off = powercut.controls()
    print(f"NORMAL: {normal}\nOFF: {off}")
    assert normal.lost > 0
    assert normal.broken == 0
    assert off.broken > 0
