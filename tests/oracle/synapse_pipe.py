"""The pipe to Synapse's code (`synapse_worker`), one process in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.oracle.answers import Answers
from tests.oracle.graphs import Graph
from tests.oracle.judging import STAGES
from tests.peers.synapse_peer import ensure_venv

CHECKOUT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("synapse_worker.py")


def environment() -> Path:
    """Python of the environment with Synapse in it; made with pip if there is none.

    `.peers/synapse-venv` in the checkout, or the folder that MATRIXBOX_SYNAPSE_VENV names.
    """
    folder = os.environ.get("MATRIXBOX_SYNAPSE_VENV") or CHECKOUT / ".peers" / "synapse-venv"
    return ensure_venv(folder)


class Synapse:
    """Answers batches of graphs; `ask` may run ahead of `answers` by one batch."""

    def __init__(self, interpreter: Path) -> None:
        outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [str(interpreter), "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr.fileno() if hasattr(sys.stderr, "fileno") else None,
            env=outside,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker by ending its input."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def ask(self, graphs: Sequence[Graph]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([task_of(graph) for graph in graphs]).encode() + b"\n")
        self._process.stdin.flush()

    def answers(self, graphs: Sequence[Graph]) -> list[Answers]:
        """The answers to the oldest batch that has none yet, which is `graphs`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the Synapse worker ended with {self._process.wait(10)}")
        told = json.loads(line)
        return [read_answers(graph, answer) for graph, answer in zip(graphs, told, strict=True)]


def task_of(graph: Graph) -> dict[str, Any]:
    """The graph as the worker wants it: events as they are on the wire, the rest by position."""
    position = {event_id: at for at, event_id in enumerate(graph.ids)}
    probes = []
    for probe, _ in graph.probes:
        accepted = [event_id for event_id in graph.rejected if event_id not in probe.rejected]
        probes.append(
            {
                "sets": [[position[i] for i in ids.values()] for ids in probe.sets],
                "rejected": [position[i] for i in probe.rejected if i not in graph.rejected],
                "accepted": [position[i] for i in accepted],
                "unpersisted": [],
            }
        )
    return {
        "version": graph.version.name,
        "events": graph.wire,
        "rejected": [position[event_id] for event_id in graph.rejected],
        "merges": {
            at: {
                "state": [position[event_id] for event_id in graph.before[at].values()],
                "unpersisted": unpersisted(graph, at),
            }
            for at in graph.merges
        },
        "homeless": [at for at in range(len(graph.ids)) if graph.state_to_judge_by(at) is None],
        "late": [[at, by] for at, by, _ in graph.late],
        "probes": probes,
    }


def unpersisted(graph: Graph, at: int) -> list[int]:
    """Events that Synapse has not stored yet: of one merge in four the later half, of another all.

    Synapse itself then walks the auth chains and finds the conflicted subgraph, along all paths, so
    that it would take for ever in large rooms.
    """
    if at % 4 > 1 or len(graph.steps) > 24:
        return []
    first = at - at // 2 if at % 4 else 1
    return [
        earlier
        for earlier in range(max(1, first), at)
        if graph.steps[earlier].room == 0 and graph.verdicts[earlier].accepted
    ]


def read_answers(graph: Graph, told: dict[str, Any]) -> Answers:
    """An answer of the worker in the common shape."""
    return Answers(
        ids=[theirs or mine for theirs, mine in zip(told["ids"], graph.ids, strict=True)],
        rows={stage: told[stage] for stage in STAGES},
        late=told["late"],
        merges={int(at): state for at, state in told["merges"].items()},
        probes=told["probes"],
        raised=told["raised"],
    )
