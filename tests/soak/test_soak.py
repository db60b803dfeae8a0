"""Two minutes of the soak; `python -m tests.soak --minutes 20` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.reporting import did_not_run
from tests.soak.ledger import Whose
from tests.soak.running import soak
from tests.soak.town import missing

MINUTES = float(os.environ.get("MATRIXBOX_SOAK_MINUTES", "2"))


async def test_under_faults_every_message_arrives_and_can_be_read(tmp_path: Path) -> None:
    """[C8.21] to [C8.24], [C17.02] to [C17.05], T103: restarts, kill -9, dropped connections, a
    slow peer; clients on three libraries here and one on a real Synapse."""
    if (why := missing()) is not None:
        did_not_run(why, required_in_ci=True)
    seen: list[str] = []
    outcome = await soak(tmp_path, MINUTES * 60, seed=1, tell=seen.append)
    told = "\n".join([*seen, str(outcome)])
    print(told)
    assert outcome.troubles == [], told
    assert outcome.rounds >= 2
    assert outcome.acknowledged > 20 * outcome.rounds
    assert outcome.letters > 5 * outcome.rounds
    assert (outcome.lost, outcome.undecryptable[Whose.SERVER]) == (0, 0)
    assert outcome.watch is not None
    assert all(probe.answers > 20 * outcome.rounds for probe in outcome.watch.room_probes)
    assert all(probe.letters.numbers for probe in outcome.watch.letter_probes)
