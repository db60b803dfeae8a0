"""Keys and messages over `kill -9`: nothing is handed out twice, nothing acknowledged is lost.

T123, T128, [B7.10], [C8.22], on the real server.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.e2ee.people import ALGORITHM
from tests.federation.keys import Keys
from tests.server import Server, running_server

KEYS = 120
CLIENT = "/_matrix/client/v3"


@define(eq=False)
class User:
    """Somebody with a session."""

    server: Server
    user_id: str = ""
    device_id: str = ""
    token: str = ""

    @classmethod
    def register(cls, server: Server, name: str) -> User:
        """A new account."""
        auth = {"type": "m.login.dummy"}
        body = {"username": name, "password": "a long password", "auth": auth}
        made = cls(server).ask("POST", "/register", body)
        return cls(server, made["user_id"], made["device_id"], made["access_token"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request; OSError or HTTPException when none came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        payload = None if body is None else json.dumps(body)
        try:
            connection.request(method, CLIENT + path, payload, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, text
        return json.loads(text)

    def sure(self, method: str, path: str, body: Any = None) -> Any:
        """The same, again and again until it is answered."""
        while True:
            try:
                return self.ask(method, path, body)
            except (OSError, http.client.HTTPException):
                threading.Event().wait(0.02)


@define(eq=False)
class Work:
    """What several clients do while the server is killed again and again."""

    alice: User
    bob: User
    over: threading.Event = field(factory=threading.Event)
    claimed: list[str] = field(factory=list)
    sent: list[int] = field(factory=list)
    received: list[int] = field(factory=list)
    _lock: threading.Lock = field(factory=threading.Lock)

    def claim(self) -> None:
        """Claim until nothing is left; an answer that was lost may have held a key."""
        wanted = {"one_time_keys": {self.alice.user_id: {self.alice.device_id: ALGORITHM}}}
        while not self.over.is_set():
            found = self.bob.sure("POST", "/keys/claim", wanted)["one_time_keys"]
            if not found:
                return
            with self._lock:
                self.claimed += found[self.alice.user_id][self.alice.device_id]

    def send(self) -> None:
        """Send numbers, each once, however often the request has to be repeated."""
        for number in range(400):
            if self.over.is_set():
                return
            body = {"messages": {self.alice.user_id: {"*": {"n": number}}}}
            self.bob.sure("PUT", f"/sendToDevice/m.test/t{number}", body)
            self.sent.append(number)

    def receive(self) -> None:
        """Sync; what an answer brings counts once it has arrived."""
        since = ""
        while True:
            last = self.over.is_set()
            answer = self.alice.sure("GET", f"/sync?timeout=100{since}")
            events = answer.get("to_device", {}).get("events", [])
            self.received += [event["content"]["n"] for event in events]
            since = f"&since={answer['next_batch']}"
            if last and not events:
                return


def test_keys_and_messages_survive_kills(tmp_path: Path) -> None:
    rng = random.Random(7)
    with running_server(tmp_path) as server:
        alice, bob = User.register(server, "alice"), User.register(server, "bob")
        keys = Keys(alice.user_id, alice.device_id)
        body = {"device_keys": keys.identity(), "one_time_keys": keys.prekeys(KEYS)}
        assert alice.ask("POST", "/keys/upload", body)["one_time_key_counts"] == {ALGORITHM: KEYS}
        work = Work(alice, bob)
        working = [work.claim, work.claim, work.claim, work.send]
        threads = [threading.Thread(target=target, daemon=True) for target in working]
        reading = threading.Thread(target=work.receive, daemon=True)
        for thread in (*threads, reading):
            thread.start()
        for _ in range(4):
            work.over.wait(rng.uniform(0.05, 0.4))
            server.kill()
            server.start()
        work.over.wait(0.5)
        work.over.set()
        for thread in (*threads, reading):
            thread.join(60)
            assert not thread.is_alive()
        assert len(work.claimed) > 10
        assert len(set(work.claimed)) == len(work.claimed), "handed out twice"
        assert work.received[: len(work.sent)] == work.sent, "lost, doubled or out of order"
        assert len(work.received) - len(work.sent) in (0, 1), "one may have been under way"
        # A repeated upload revives nothing.
        counts = alice.ask("POST", "/keys/upload", body)["one_time_key_counts"]
        assert counts.get(ALGORITHM, 0) <= KEYS - len(work.claimed)
