"""`matrixbox init`, `check` and `settings`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matrixbox.cli.common import settings_of, tell
from matrixbox.config import EXIT_CONFIG
from matrixbox.config.example import example
from matrixbox.household import checking, setup


def init(options: argparse.Namespace) -> int:
    """Set up a new server, and say what to do next."""
    # A port, and the brackets of an address literal, would make an odd folder name.
    folder = options.folder or Path(options.name.partition(":")[0].strip("[]") or "matrixbox")
    try:
        made = setup.create(options.name, folder, config_only=options.config_only)
    except setup.SetupError as error:
        tell(str(error))
        return 1
    print(f"A new server for {made.name}:")
    print(f"  configuration  {made.config}")
    if made.key is not None:
        print(f"  signing key    {made.key}")
        print("                 Keep a copy in a safe place: without it the name is lost.")
    print("Next:")
    if made.key is None:
        print("  systemctl enable --now matrixbox  (with packaging/matrixbox.service installed)")
    else:
        print(f"  matrixbox check --config {made.config}")
        print(f"  matrixbox serve --config {made.config}")
    print(f"  matrixbox user add NAME --config {made.config}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Look at everything; the exit code is that of the first problem."""
    settings = settings_of(options)
    if settings is None:
        return EXIT_CONFIG
    source = options.config or "built in: the try-out on this machine"
    findings = [checking.Finding("configuration", str(source)), *checking.check(settings)]
    width = max(len(finding.part) for finding in findings)
    for finding in findings:
        mark = "PROBLEM" if finding.exit_code else "ok     "
        print(f"{mark}  {finding.part:{width}}  {finding.text}")
    return next((finding.exit_code for finding in findings if finding.exit_code), 0)


def settings(options: argparse.Namespace) -> int:
    """Print the whole configuration file with its defaults."""
    sys.stdout.write(example())
    return 0
