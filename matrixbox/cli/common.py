"""What several commands share: reading the configuration, telling what is wrong."""

from __future__ import annotations

import argparse
import sys

from matrixbox.config import ConfigError, Settings, load


class Refused(Exception):
    """The command ends with this text and exit code."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(text)


def settings_of(options: argparse.Namespace) -> Settings | None:
    """The settings, or None when they are wrong and that has been told."""
    try:
        return load(options.config)
    except ConfigError as error:
        for problem in error.problems:
            tell(str(problem))
        tell("Nothing was started. `matrixbox settings` prints every setting with its meaning.")
        return None


def tell(text: str) -> None:
    """A line for the one at the terminal that is not the result of the command."""
    print(text, file=sys.stderr)
