"""The list of threats and the tests that cite them."""

from __future__ import annotations

from tests.threats import catalogue, cited, table


def test_every_number_that_a_test_cites_is_in_the_catalogue() -> None:
    unknown = set(cited()) - {threat.number for threat in catalogue()}
    assert unknown == set()


def test_numbers_are_never_given_twice() -> None:
    numbers = [threat.number for threat in catalogue()]
    assert len(numbers) == len(set(numbers)) == 171


def test_a_threat_without_a_test_is_shown_as_such() -> None:
    first, second, *_ = catalogue()
    told = table([first, second], {first.number: ["core/test_x.py"]})
    assert told.splitlines()[0].endswith(": core/test_x.py")
    assert told.splitlines()[1].endswith(": -")
