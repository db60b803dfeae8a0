"""The command line: text for people, exit codes for scripts.

Each command lives in a module that is imported only when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from matrixbox.cli.parser import parser

EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        code = options.run(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    assert isinstance(code, int)
    return code


def run() -> None:
    """The console script."""
    sys.exit(main())
