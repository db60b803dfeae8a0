"""What a household notices while another server and strangers attack: nothing.

Section 4 of the threat catalogue: sending and syncing stay at p99 250 ms or less, memory below
384 MiB, and it is the same process at the end (T004, T014, T015, T024, T029, T032, T067, T068,
T084).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matrixbox.core.events import Event, parse_event
from tests.federation.hostile import V1
from tests.federation.siege import MIB, Siege, besieged
from tests.rooms.far import Graph
from tests.server import TOP

P99_MS = 250.0
MOST_BYTES = 384 * MIB
FEWEST_MESSAGES = 100
ATTACK_S = 3.0
"""How long each attack goes on; all its material is made before."""

Attack = Callable[[], None]


@contextmanager
def household(siege: Siege) -> Iterator[dict[str, Any]]:
    """Two people talk meanwhile; what they saw is in the dictionary afterwards."""
    guest = siege.side.person("guest")
    siege.home.upon("invite", siege.home_room, guest)
    guest.join(siege.home_room)
    url = siege.server.base_url
    command = [sys.executable, "-m", "tests.live.household", url, siege.home_room]
    talking = subprocess.Popen(
        [*command, siege.home.token, guest.token],
        cwd=TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    seen: dict[str, Any] = {}
    try:
        yield seen
    finally:
        told, _ = talking.communicate(timeout=60)
    assert talking.returncode == 0
    seen.update(json.loads(told))


def highest_memory(pid: int) -> int:
    """The most bytes that the process ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def p99(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=100, method="inclusive")[98]


def attacks(siege: Siege) -> Iterator[tuple[str, Attack]]:
    """Each is called again and again."""
    foe = siege.foe
    _, graph = siege.joined("11", users={foe.user("mallory"): 100})
    mallory, eve = foe.user("mallory"), foe.user("eve")
    room, base = graph.room_id, graph.last()

    strangers = iter([_event(graph, eve, f"{n}", [base]) for n in range(2_000)])
    yield "events of somebody who is not in the room", lambda: _send(siege, strangers)

    unsigned = ({**_event(graph, mallory, f"u{n}", [base]), "signatures": {}} for n in range(5_000))
    yield "events without a signature", lambda: _send(siege, unsigned)

    forks = iter([_event(graph, mallory, f"fork{n}", [base]) for n in range(2_000)])
    yield "hundreds of forks", lambda: _send(siege, forks)

    bomb = iter(_bomb(graph, mallory, foe.name))
    yield "conflicting power levels on many branches", lambda: _send(siege, bomb)

    gaps = (
        _event(
            graph, mallory, f"gap{n}", [base], prev_events=[f"${n}{time.monotonic_ns():042}"[:44]]
        )
        for n in range(10_000)
    )
    yield "parents that nobody has", lambda: _send(siege, gaps)

    typing = [
        {
            "edu_type": "m.typing",
            "content": {"room_id": room, "user_id": mallory, "typing": n % 2 == 0},
        }
        for n in range(100)
    ]
    yield "typing and no end", lambda: foe.send(edus=typing)

    yield (
        "requests with a forged signature",
        lambda: foe.raw("GET", f"{V1}/state/{room}", None, {"Authorization": _forged(siege)}),
    )
    yield (
        "states of a room that it is not in",
        lambda: foe.request("GET", f"{V1}/state/{siege.home_room}?event_id=$x"),
    )
    yield (
        "keys asked for at random",
        lambda: foe.raw("GET", f"/_matrix/key/v2/query/s{time.monotonic_ns()}.example", None, {}),
    )


def _forged(siege: Siege) -> str:
    return (
        f'X-Matrix origin="{siege.foe.name}",destination="{siege.side.name}",'
        f'key="{siege.foe.key.key_id}",sig="{"A" * 86}"'
    )


def _event(
    graph: Graph, sender: str, body: str, parents: list[Event], **fields: Any
) -> dict[str, Any]:
    before = graph.state_before(parents)
    auth = graph.cited("m.room.message", sender, None, {}, before)
    content = {"msgtype": "m.text", "body": body}
    pdu = graph.pdu("m.room.message", sender, content, None, parents, auth)
    return dict(graph.signed({**pdu, **fields}, sender.split(":", 1)[1]))


def _bomb(graph: Graph, sender: str, server: str) -> list[dict[str, Any]]:
    """20 branches of 15 changes of the power levels each."""
    base, found = graph.last(), []
    key = ("m.room.power_levels", "")
    power = graph.events[graph.after[base.event_id][key]].content
    for branch in range(20):
        tip, state = base, graph.after[base.event_id]
        for number in range(15):
            content = {**power, "notifications": {"room": branch * 100 + number}}
            auth = graph.cited(key[0], sender, "", content, state)
            pdu = graph.signed(graph.pdu(key[0], sender, content, "", [tip], auth), server)
            tip = parse_event(graph.rules, pdu)
            graph.events[tip.event_id] = tip
            state = {**state, key: tip.event_id}
            found.append(dict(pdu))
    return found


def _send(siege: Siege, pdus: Iterator[dict[str, Any]]) -> None:
    part = [pdu for _, pdu in zip(range(50), pdus, strict=False)]
    if part:
        siege.foe.send(part)
    else:
        time.sleep(0.1)


def test_the_household_talks_on_while_the_server_is_attacked(tmp_path: Path) -> None:
    with besieged(tmp_path) as siege:
        pid = siege.server.pid
        prepared = list(attacks(siege))
        told: dict[str, int] = {}
        with household(siege) as seen:
            for name, attack in prepared:
                give_up, told[name] = time.monotonic() + ATTACK_S, 0
                while time.monotonic() < give_up:
                    attack()
                    told[name] += 1
        assert siege.server.is_running
        assert siege.server.pid == pid
        assert min(told.values()) > 0, told
        assert len(seen["sends"]) > FEWEST_MESSAGES
        assert seen["lost"] == 0
        assert p99(seen["sends"]) <= P99_MS, sorted(seen["sends"])[-20:]
        assert p99(seen["arrivals"]) <= P99_MS, sorted(seen["arrivals"])[-20:]
        assert highest_memory(pid) < MOST_BYTES
        print(
            f"{len(seen['sends'])} messages, send p99 {p99(seen['sends']):.0f} ms, arrival p99 "
            f"{p99(seen['arrivals']):.0f} ms, {highest_memory(pid) / MIB:.0f} MiB at most; {told}"
        )
