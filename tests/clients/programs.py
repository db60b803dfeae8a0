"""How the programs of the libraries are started, where they are installed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from tests.clients.conversation import Kind
from tests.clients.rust.installing import FOLDER as RUST_SDK
from tests.clients.rust.installing import is_there

HERE = Path(__file__).parent
NAMES: dict[Kind, str] = {"nio": "matrix-nio", "js": "matrix-js-sdk", "rust": "the Rust SDK"}

Command = list[str | Path]


def command_of(kind: Kind) -> Command | None:
    """The command, to which the socket's path is added; None where the library is missing."""
    return {"nio": _nio, "js": _js, "rust": _rust}[kind]()


def why_not(kind: Kind) -> str:
    """What to say then."""
    return f"{NAMES[kind]} is not installed (tests/run.py does it)"


def _nio() -> Command | None:
    if importlib.util.find_spec("nio") is None:
        return None
    return [sys.executable, HERE / "nio_talk.py"]


def _js() -> Command | None:
    """On the Node.js of the test environment."""
    node = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
    if node is None or not (HERE / "js" / "node_modules").is_dir():
        return None
    return [node, HERE / "js" / "talk.mjs"]


def _rust() -> Command | None:
    if not is_there(RUST_SDK):
        return None
    return [sys.executable, HERE / "rust" / "talk.py", RUST_SDK]
