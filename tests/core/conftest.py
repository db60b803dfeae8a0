"""How many examples the properties try: few in CI, many with MATRIXBOX_TEST_SIZE=large."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

# The small profile always tries the same examples, so that a failure in CI is never a mere chance.
settings.register_profile(
    "small",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_CHECKS,
)
settings.register_profile(
    "large", max_examples=3000, deadline=None, database=None, suppress_health_check=_CHECKS
)
# For the mutation tester: a mutant that survives ten examples is for the plain tests to catch.
settings.register_profile(
    "mutation",
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_CHECKS,
)
_SIZE = os.environ.get("MATRIXBOX_TEST_SIZE")
settings.load_profile(_SIZE if _SIZE in ("large", "mutation") else "small")
