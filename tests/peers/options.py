"""The command line of `synapse_peer`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tests.peers.installing import SYNAPSE_REQUIREMENT


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run Synapse on loopback until SIGINT or SIGTERM; "
        "one line of JSON on standard output tells where it is."
    )
    parser.add_argument("--venv", default=".peers/synapse-venv", help="virtual environment")
    parser.add_argument("--install", action="store_true", help="make the venv if it is missing")
    parser.add_argument("--requirement", default=SYNAPSE_REQUIREMENT, help="what pip installs")
    parser.add_argument("--data-dir", default=".peers/synapse", help="database, keys, log")
    parser.add_argument("--ca-dir", help="folder of the test CA; federation is on when given")
    parser.add_argument("--server-name", help="default: ADDRESS:PORT, which needs no DNS")
    parser.add_argument("--address", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--client-port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--federation-port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--register", nargs="*", default=[], metavar="NAME[:PASSWORD]")
    parser.add_argument("--config", help="JSON file with extra Synapse settings")
    parser.add_argument("--secret", default="", help="registration shared secret; default: random")
    parser.add_argument("--fresh", action="store_true", help="remove the data folder first")
    parser.add_argument("--settle", action="store_true", help="wait for background updates")
    parser.add_argument("--log-level", default="WARNING")
    parser.add_argument("--install-only", action="store_true", help="make the venv, then exit")
    return parser.parse_args(arguments)
