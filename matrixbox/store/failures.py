"""What happens when the database can no longer be trusted: the process ends.

After a failed sync the kernel may have dropped the pages, and SQLite's connection would go on as
if nothing were. So the first such error, in whichever thread, ends the process with exit code 70
and nobody is answered; the next start recovers from the files (T145).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import apsw

from matrixbox.observe import log
from matrixbox.store.errors import StoreFailed, describe
from matrixbox.store.recovery import FailureRecord

EXIT_DATABASE_FAILED = 70
"""EX_SOFTWARE of sysexits: systemd starts the server again."""

OnFatal = Callable[[BaseException], None]


def end_process(error: BaseException) -> None:
    """Write one line and end the process at once, without any clean-up that might write."""
    log.error("database failed", error=describe(error), exit_code=EXIT_DATABASE_FAILED)
    os._exit(EXIT_DATABASE_FAILED)


class Failures:
    """Where every thread of the store reports; remembers the first failure."""

    def __init__(self, on_fatal: OnFatal, record: FailureRecord | None = None) -> None:
        self._on_fatal = on_fatal
        self._record = record
        self.first: BaseException | None = None

    def report(self, error: BaseException) -> None:
        """End the process. Returns only where a test has put something else in its place."""
        if self.first is None:
            self.first = error
            if self._record is not None:
                self._record.add(error)
        self._on_fatal(error)

    def close(self, connection: apsw.Connection) -> None:
        """Close a connection; to fail at that is a failure of the database too."""
        try:
            connection.close()
        except apsw.Error as error:
            self.report(error)

    def check(self) -> None:
        """Raise StoreFailed if there was a failure."""
        if self.first is not None:
            raise StoreFailed(describe(self.first)) from self.first
