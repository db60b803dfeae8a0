"""`matrixbox key`: the signing key."""

from __future__ import annotations

import argparse

import trio

from matrixbox.cli.common import settings_of, tell
from matrixbox.config import EXIT_CONFIG
from matrixbox.datafolder import FolderError
from matrixbox.household.checking import EXIT_DATABASE
from matrixbox.keyfile import EXIT_KEY, KeyFileError
from matrixbox.store.errors import StoreError


def rotate(options: argparse.Namespace) -> int:
    """Replace the signing key."""
    from matrixbox.serve import rotate_key  # noqa: PLC0415 takes a while, and help needs none

    settings = settings_of(options)
    if settings is None:
        return EXIT_CONFIG
    try:
        old, new = trio.run(rotate_key, settings)
    except (KeyFileError, FolderError, StoreError) as error:
        tell(str(error))
        if isinstance(error, FolderError):
            return error.exit_code
        return EXIT_KEY if isinstance(error, KeyFileError) else EXIT_DATABASE
    print(f"The signing key is {new.key_id} now; {old.key_id} is published as an old one.")
    print("Keep a copy of the new key file in a safe place: without it the name is lost.")
    return 0
