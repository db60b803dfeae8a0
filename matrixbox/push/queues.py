"""What waits for each pusher, and when it may be sent.

Nothing here is durable: what waits is found again from the pusher's cursor.  Times are monotonic
(T153).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from attrs import define, field

from matrixbox.push.content import News
from matrixbox.store.pushers import Progress, Pusher
from matrixbox.tasks import jittered

AT_ONCE = 64
AT_ONCE_PER_GATEWAY = 6
MAX_WAITING = 100
"""For one pusher; beyond, and while its gateway fails, the newest of each room is kept (T132)."""
MAX_KEPT = 20
"""Of these, the newest."""
BADGE_PAUSE_S = 1.0
"""A count that changed waits so long for the next change: who reads, reads on."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 24 * 3600.0


def pause_after(failures: int) -> float:
    """How long a gateway is left alone after so many failures in a row, in seconds."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))


@define(eq=False)
class Queue:
    """One pusher: what waits for it, and how far it is."""

    pusher: Pusher
    cursor: int
    badge: int | None
    failures: int = 0
    failing_since_ms: int | None = None
    due_s: float = 0.0  # not before
    badge_due_s: float | None = None  # when to see whether the count is another
    waiting: deque[News] = field(factory=deque)
    is_busy: bool = False
    is_unanswered: bool = False  # the gateway was not reached, or did not answer in time

    @classmethod
    def of(cls, pusher: Pusher, progress: Progress, now_s: float, now_ms: int) -> Queue:
        """As it stands in the database."""
        left_s = min((progress.retry_ms - now_ms) / 1000, LONGEST_PAUSE_S)
        return cls(
            pusher,
            progress.cursor,
            progress.badge,
            progress.failures,
            progress.failing_since_ms,
            now_s + max(left_s, 0.0),
        )

    def progress(self, known: int, now_s: float, now_ms: int) -> Progress:
        """For the database; `known` is the position up to which news was looked for."""
        self.cursor = max(self.cursor, self.waiting[0].pos - 1 if self.waiting else known)
        left_ms = round(max(self.due_s - now_s, 0.0) * 1000) if self.failures else 0
        return Progress(
            self.cursor, self.badge, self.failures, self.failing_since_ms, now_ms + left_ms
        )

    def add(self, news: News) -> None:
        """Something happened that concerns the pusher's user."""
        self.waiting.append(news)
        if len(self.waiting) > MAX_WAITING or self.failures:
            self._thin_out()

    def _thin_out(self) -> None:
        """Keep what is at work now, and the newest of each room, in order."""
        first = [self.waiting.popleft()] if self.is_busy and self.waiting else []
        newest = {news.room: news for news in self.waiting}
        kept = sorted(newest.values(), key=lambda news: news.pos)[-MAX_KEPT:]
        self.waiting = deque([*first, *kept])

    def touched(self, now_s: float) -> None:
        """The user's count may be another one soon."""
        if self.badge_due_s is None:
            self.badge_due_s = now_s + BADGE_PAUSE_S

    def succeeded(self) -> None:
        """The gateway took something."""
        self.failures, self.failing_since_ms, self.due_s = 0, None, 0.0
        self.is_unanswered = False

    def failed(self, now_s: float, now_ms: int, *, answered: bool) -> None:
        """The gateway took nothing: it is left alone for a while."""
        self.failures += 1
        self.is_unanswered = not answered
        if self.failing_since_ms is None or self.failing_since_ms > now_ms:
            self.failing_since_ms = now_ms
        self.due_s = now_s + jittered(pause_after(self.failures))

    def is_badge_due(self, now_s: float) -> bool:
        """Whether to see now what the count is; gateways that know none are not told of it."""
        if self.badge is None:
            self.badge_due_s = None
        return self.badge_due_s is not None and self.badge_due_s <= now_s

    @property
    def next_s(self) -> float | None:
        """When there is something to do; None: nothing."""
        if self.is_busy:
            return None
        if self.waiting:
            return self.due_s
        return None if self.badge_due_s is None else max(self.due_s, self.badge_due_s)


@define(eq=False)
class Gateways:
    """Who may call which gateway now: one that does not answer holds up its own pushers alone."""

    _busy: dict[str, int] = field(factory=dict)
    _silent: set[str] = field(factory=set)

    def startable(self, queues: Iterable[Queue], now_s: float) -> Iterator[Queue]:
        """The queues whose time has come, the longest due first; each is to be `begin`ned."""
        due = [
            (due_s, number, queue)
            for number, queue in enumerate(queues)
            if (due_s := queue.next_s) is not None and due_s <= now_s
        ]
        for _, _, queue in sorted(due, key=lambda entry: entry[:2]):
            host = queue.pusher.gateway
            at_once = 1 if host in self._silent else AT_ONCE_PER_GATEWAY
            if sum(self._busy.values()) < AT_ONCE and self._busy.get(host, 0) < at_once:
                yield queue

    def begin(self, host: str) -> None:
        """A pusher calls its gateway."""
        self._busy[host] = self._busy.get(host, 0) + 1

    def end(self, host: str, *, answered: bool) -> None:
        """It did, and the gateway answered or not."""
        self._busy[host] -= 1
        if not self._busy[host]:
            del self._busy[host]
        if answered:
            self._silent.discard(host)
        else:
            self._silent.add(host)

    def is_silent(self, host: str) -> bool:
        """Whether the last call of a gateway failed."""
        return host in self._silent
