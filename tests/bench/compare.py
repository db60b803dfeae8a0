"""matrixbox and Synapse under the same load, in turns: ``python -m tests.bench.compare``.

For each scenario fresh servers are started, first one then the other, as often as asked; the
medians stand beside the goals that the project has set itself.  CPU time and bytes written per
operation hardly depend on what else the machine does; rates and latencies do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.pairs import Running, two_matrixboxes, two_synapses
from tests.peers.synapse_peer import SynapsePeer, ensure_venv
from tests.server import running_server

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]

Figure = tuple[str, str, float]  # name, path in the report, goal

SCENARIOS: Mapping[str, tuple[list[str], list[Figure]]] = {
    "send": (
        ["send"],
        [
            ("messages/s", "messages_per_s", 8 * 63),
            ("CPU ms per message", "server_cpu_ms_per_operation", 2),
            ("KiB written per message", "written_kib_per_operation", 25),
        ],
    ),
    "mixed-household": (
        ["mixed-household"],
        [
            ("CPU ms per message", "server_cpu_ms_per_operation", 13),
            ("KiB written per message", "written_kib_per_operation", 40),
            ("delivery p95 ms", "delivery.p95_ms", 20),
        ],
    ),
    "encrypted-household": (
        ["encrypted-household"],
        [
            ("CPU ms per message", "server_cpu_ms_per_operation", 13),
            ("RSS peak MiB", "server.rss_peak_mib", 90),
            ("delivery p95 ms", "delivery.p95_ms", 20),
        ],
    ),
    "e2ee-keys": (
        ["e2ee-keys"],
        [
            ("uploads/s", "upload.requests_per_s", 4 * 109),
            ("queries/s", "query_all.requests_per_s", 2 * 424),
            ("claims/s", "claim_one.requests_per_s", 3 * 527),
        ],
    ),
    "sync-fanout": (["sync-fanout"], [("each client p95 ms", "each_client.p95_ms", 25)]),
    "initial-sync": (
        ["initial-sync"],
        [
            ("initial p50 ms", "initial.p50_ms", 40),
            ("idle polls/s, 4 at once", "incremental_concurrent.syncs_per_s", 1200),
        ],
    ),
    "sliding-sync": (
        ["sliding-sync"],
        [
            ("first screen p50 ms", "screen.p50_ms", 40),
            ("50 rooms p50 ms", "all_rooms.p50_ms", 60),
            ("answers/s, nothing new", "polls_per_s", 500),
        ],
    ),
    "history": (["history"], [("events/s", "events_per_s", 12_000)]),
    "bigroom": (["bigroom"], [("joins/s", "joins_per_s", 250)]),
    "fed-send": (
        ["fed-send"],
        [
            ("one way p95 ms", "one_way.p95_ms", 20),
            ("burst received/s", "burst_received_per_s", 300),
            ("CPU ms per message, sender", "server_cpu_ms_per_operation", 3),
            ("the same, receiver", "server_2_cpu_ms_per_operation", 3),
        ],
    ),
    "fed-join": (
        ["fed-join"],
        [("join s", "join_s", 0.1), ("all members s", "until_all_members_s", 0.25)],
    ),
}
FEDERATED = ("fed-send", "fed-join")
STARTUP: list[Figure] = [("ready s", "ready_s", 0.7), ("idle RSS MiB", "idle_rss_mib", 60)]


def look_up(report: Mapping[str, Any], path: str) -> float:
    """A figure in a report."""
    value: Any = report
    for name in path.split("."):
        value = value[name]
    return float(value)


def csload(arguments: list[str], *servers: Running) -> dict[str, Any]:
    """One run of the load generator, in a process of its own."""
    scenario, *rest = arguments
    command = [sys.executable, str(HERE / "csload.py"), scenario]
    for suffix, (url, pid) in zip(("", "-2"), servers, strict=False):
        command += [f"--base-url{suffix}", url, f"--pid{suffix}", str(pid)]
    done = subprocess.run([*command, *rest], check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout)["median"]
    if "server_2" in report and "operations" in report:
        cpu_ms = report["server_2"]["cpu_s"] * 1000
        report["server_2_cpu_ms_per_operation"] = cpu_ms / report["operations"]
    return report


Start = Callable[[Path], AbstractContextManager[list[Running]]]


@contextmanager
def matrixbox(folder: Path) -> Any:
    """A matrixbox with nothing in it: its address and process."""
    with running_server(folder) as server:
        yield [(server.base_url, server.pid)]


def synapse(venv: Path) -> Start:
    """What starts a Synapse with nothing in it."""

    @contextmanager
    def start(folder: Path) -> Any:
        with SynapsePeer(folder, venv) as peer:
            peer.wait_background_updates()
            yield [(peer.client_url, peer.pid)]

    return start


def measure(start: Start, arguments: list[str]) -> dict[str, Any]:
    """One scenario on a fresh server."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as servers:
        return csload(arguments, *servers)


def startup(folder: Path, venv: Path, which: str) -> dict[str, Any]:
    """Time to the first answer and memory at rest, on data that exists already."""
    if which == "matrixbox":
        with running_server(folder) as server:
            url = server.base_url
        command = [sys.executable, "-m", "matrixbox", "serve", "--config", str(server.config)]
    else:
        with SynapsePeer(folder, venv) as peer:
            peer.wait_background_updates()
            url = peer.client_url
        python = str(venv / "bin" / "python")
        config = str(folder / "homeserver.yaml")
        command = [python, "-m", "synapse.app.homeserver", "-c", config]
    return csload(["startup", "--base-url", url, "--", *command])


def show(name: str, figures: list[Figure], runs: Mapping[str, list[dict[str, Any]]]) -> None:
    """A line for each figure: both medians, their ratio, the goal."""
    for title, path, goal in figures:
        medians = {
            server: statistics.median(look_up(report, path) for report in reports)
            for server, reports in runs.items()
        }
        ours, theirs = medians["matrixbox"], medians.get("synapse")
        beside = "" if theirs is None else f"  synapse {theirs:9.4g}  ratio {ours / theirs:7.3f}"
        print(f"{name:19} {title:26} matrixbox {ours:9.4g}{beside}  goal {goal:g}", flush=True)


def main() -> None:
    """The command line program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", nargs="*", choices=[*SCENARIOS, "startup"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--venv", type=Path, default=TOP / ".peers" / "synapse-venv")
    parser.add_argument("--alone", action="store_true", help="matrixbox only")
    options = parser.parse_args()
    # Both servers start as installed packages do: with their byte code on the disk.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    venv = options.venv.absolute()
    starts: dict[str, Start] = {"matrixbox": matrixbox}
    pairs: dict[str, Start] = {"matrixbox": two_matrixboxes}
    if not options.alone:
        ensure_venv(venv)
        starts["synapse"] = synapse(venv)
        pairs["synapse"] = partial(two_synapses, venv=venv)
    for name, (arguments, figures) in SCENARIOS.items():
        if options.only and name not in options.only:
            continue
        runs: dict[str, list[dict[str, Any]]] = {server: [] for server in starts}
        for _ in range(options.repeat):
            for server, start in (pairs if name in FEDERATED else starts).items():
                runs[server].append(measure(start, arguments))
        show(name, figures, runs)
    if not options.only or "startup" in options.only:
        runs = {server: [] for server in starts}
        for _ in range(options.repeat):
            for server in starts:
                with tempfile.TemporaryDirectory() as folder:
                    runs[server].append(startup(Path(folder), venv, server))
        show("startup", STARTUP, runs)


if __name__ == "__main__":
    main()
