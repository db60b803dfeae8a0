"""One power level value, as each room version reads it [A5.24].

Matrix v1.19, fragments/v1-stringy-power-levels (room versions 1 to 9) and
fragments/v1-floaty-power-levels (1 to 5); from version 10 on only integers.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from matrixbox.core.json import MAX_DIGITS, Json, RawNumber
from matrixbox.core.room_versions import RoomRules

_INTEGER_TEXT = re.compile(r"([+-]?)0*([0-9]*)")


def read_level(rules: RoomRules, value: Json) -> int | None:
    """The level a value stands for, None if it stands for none in this room version."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        return None if rules.integer_power_levels else _from_text(value)
    if rules.float_power_levels:
        if isinstance(value, RawNumber):
            return _truncated(value.text)
        if isinstance(value, float):
            return _truncated(repr(value))
    return None


def _from_text(text: str) -> int | None:
    """A base 10 integer: white space around, one sign, leading zeroes."""
    text = text.strip()
    found = _INTEGER_TEXT.fullmatch(text)
    # No digits besides zeroes is fine, no digits at all is not.  Bounded digits: T025.
    if found is None or not text[-1:].isdigit() or len(found[2]) > MAX_DIGITS:
        return None
    return int(found[1] + (found[2] or "0"))


def _truncated(text: str) -> int | None:
    """A number as written: the exponent is applied, then the fraction cut off.

    None beyond the range of a double, where the event is to be rejected.
    """
    approximate = float(text)
    if not math.isfinite(approximate):
        return None
    if abs(approximate) < 0.5:
        return 0  # also keeps Decimal away from absurd exponents
    return int(Decimal(text))
