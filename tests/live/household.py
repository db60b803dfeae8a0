"""Two people at home who talk, in a process of their own, and how long each message takes.

    python -m tests.live.household URL ROOM TOKEN TOKEN

One says something every `PAUSE_S`, the other one's `/sync` waits for it.  They stop when standard
input is closed, and print what they saw as JSON: milliseconds of each send, and from the beginning
of a send to its arrival.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from typing import Any
from urllib.parse import quote, urlsplit

PAUSE_S = 0.08


class Client:
    """One connection that is kept."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        target = f"/_matrix/client/v3{path}"
        self._connection.request(method, target, data, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, f"{method} {path}: {answer.status} {text!r}"
        return json.loads(text)


def main() -> None:
    url, room, mine, theirs = sys.argv[1:]
    over = threading.Event()
    sent_at: dict[str, float] = {}
    sends: list[float] = []
    arrivals: list[float] = []
    threads = [
        threading.Thread(target=say, args=(Client(url, mine), room, over, sent_at, sends)),
        threading.Thread(target=listen, args=(Client(url, theirs), room, over, sent_at, arrivals)),
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"sends": sends, "arrivals": arrivals, "lost": len(sends) - len(arrivals)}))


def say(
    client: Client, room: str, over: threading.Event, sent_at: dict[str, float], sends: list[float]
) -> None:
    number = 0
    while not over.wait(PAUSE_S):
        number += 1
        before = sent_at[f"{number}"] = time.perf_counter()
        path = f"/rooms/{quote(room)}/send/m.room.message/{number}.{before}"
        client.request("PUT", path, {"msgtype": "m.text", "body": f"{number}"})
        sends.append((time.perf_counter() - before) * 1000)


def listen(
    client: Client,
    room: str,
    over: threading.Event,
    sent_at: dict[str, float],
    arrivals: list[float],
) -> None:
    since = client.request("GET", "/sync?timeout=0")["next_batch"]
    ended_at = None
    while ended_at is None or time.perf_counter() < ended_at + 2:
        if over.is_set() and ended_at is None:
            ended_at = time.perf_counter()
        answer = client.request("GET", f"/sync?timeout=1000&since={quote(since)}")
        now, since = time.perf_counter(), answer["next_batch"]
        joined = answer.get("rooms", {}).get("join", {}).get(room, {})
        for event in joined.get("timeline", {}).get("events", []):
            if (begin := sent_at.get(event["content"].get("body", ""))) is not None:
                arrivals.append((now - begin) * 1000)


if __name__ == "__main__":
    main()
