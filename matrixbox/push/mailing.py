"""Telling people by e-mail what they have not read.

Matrix v1.19, Client-Server API, `POST /pushers/set`, pushers of the kind `email` ([E.06]; T105,
T108).  A mail is written some time after the first event that nobody has read meanwhile, with all
that is unread by then; while that stays unread, the next mails come ever later.  What may be told
is asked just before, as for push gateways.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

import trio
from attrs import define, evolve, field, frozen

from matrixbox.core.json import Json, decode_stored
from matrixbox.observe import log
from matrixbox.push.content import News, body_for
from matrixbox.rooms import counts
from matrixbox.rooms.env import Env
from matrixbox.store import addresses, mail, members, pushers
from matrixbox.store.changes import StreamPos, user_key
from matrixbox.store.database import Store
from matrixbox.store.memberships import Membership
from matrixbox.store.nids import UserNid
from matrixbox.store.pushers import CHANGED, TOPIC, Progress, Pusher, PusherNid
from matrixbox.store.transaction import Tx

DELAY_S = 600
"""From the first event to the mail: who is at a client reads meanwhile."""
PAUSES_MS = (3_600_000, 3 * 3_600_000, 23 * 3_600_000)
"""From one mail to the next, while nothing is read; what is a day old is news to nobody."""
MAX_SCANNED = 2_000
"""Notifying events looked at for one mail, the newest."""
MAX_ROOMS = 10
MAX_LINES = 5  # of one room
MAX_TEXT = 200  # characters of a message, or of a name
GOOD_FOR_S = 12 * 3_600  # a mail that could not be sent for so long is of no use
_ANY_NEWS = frozenset({TOPIC, CHANGED, members.CHANGES})

Told = Mapping[str, Json]


@define(eq=False)
class MailPusher:
    """Writes the mails, which wait in the database for `accounts.mailing`; `run` does the work."""

    store: Store
    env: Env
    _due_ms: dict[PusherNid, int] = field(factory=dict)  # for whom there may be something to tell
    _position: int = 0  # up to here was looked for news

    async def run(self) -> None:
        """Write until cancelled."""
        self._due_ms, self._position = {}, -1
        while True:
            position = self.store.doorbell.position
            known = self.store.read(_mail_pushers)
            if known:
                self.store.read(self._look, known, position)
            self._position = position
            for pusher, progress in known:
                if self._due_ms.get(pusher.nid, math.inf) <= self.env.clock.now_ms():
                    del self._due_ms[pusher.nid]
                    await self.store.write(self._write, pusher, progress, position)
            next_ms = min(self._due_ms.values(), default=math.inf)
            with trio.move_on_after(max(0.0, (next_ms - self.env.clock.now_ms()) / 1000)):
                keys = _ANY_NEWS if known else frozenset({CHANGED})
                await self.store.doorbell.beyond(StreamPos(position), keys)

    def _look(self, tx: Tx, known: list[tuple[Pusher, Progress]], position: int) -> None:
        """See for whom there is something new, and when that is to be told."""
        self._due_ms = {
            one.nid: self._due_ms[one.nid] for one, _ in known if one.nid in self._due_ms
        }
        rung = None
        if self._position >= 0:
            rung = self.store.doorbell.rung_since(StreamPos(self._position))
        for pusher, progress in known:
            since = max(progress.cursor, self._position)
            if pusher.nid in self._due_ms or since >= position:
                continue
            is_moved = rung is None or user_key(pusher.user) in rung
            if not (
                _is_notified(tx, pusher.user, since, position)
                or (is_moved and _invitations(tx, pusher.user, since, position))
            ):
                continue
            now_ms = self.env.clock.now_ms()
            is_patient = progress.failures and not _was_read(tx, pusher, progress.cursor, now_ms)
            first_ms = min(progress.retry_ms, now_ms + PAUSES_MS[-1]) if is_patient else 0
            self._due_ms[pusher.nid] = max(now_ms + DELAY_S * 1000, first_ms)

    def _write(self, tx: Tx, pusher: Pusher, progress: Progress, position: int) -> None:
        """Write the mail, if there is still anything to tell."""
        if pusher not in pushers.of_user(tx, pusher.user):
            return  # removed or changed meanwhile
        if addresses.owner(tx, pusher.pushkey) != pusher.user:
            pushers.remove(tx, pusher.nid)
            log.info("mail pusher removed: its address is gone", pusher=pusher.nid)
            return
        now_ms = self.env.clock.now_ms()
        found = [
            body_for(tx, pusher, one, 0, now_ms)
            for one in _news(tx, pusher, progress.cursor, position)
        ]
        told = [_notification(body) for body in found if body is not None]
        following = Progress(position, None)
        if told:
            subject, text = letter(told, self.env.server_name)
            mail.put(tx, pusher.pushkey, subject, text, now_ms, now_ms + GOOD_FOR_S * 1000)
            before = 0 if _was_read(tx, pusher, progress.cursor, now_ms) else progress.failures
            pause_ms = PAUSES_MS[min(before, len(PAUSES_MS) - 1)]
            following = evolve(following, failures=before + 1, retry_ms=now_ms + pause_ms)
        pushers.note(tx, [(pusher.nid, following)])


def _mail_pushers(tx: Tx) -> list[tuple[Pusher, Progress]]:
    return [one for one in pushers.everything(tx) if one[0].is_mail]


def _news(tx: Tx, pusher: Pusher, after: int, until: int) -> list[News]:
    """What has happened to a user at positions in (after, until], oldest first."""
    found = [
        News(one.point[0], one.room, one.nid)
        for one in pushers.notifying_before(tx, (until, 2**31), MAX_SCANNED)
        if one.point[0] > after and pusher.user in counts.notified(one.notify)
    ]
    found += _invitations(tx, pusher.user, after, until)
    return sorted(found, key=lambda news: news.pos)


def _is_notified(tx: Tx, user: UserNid, after: int, until: int) -> bool:
    """Whether an event at a position in (after, until] notifies a user."""
    found = pushers.notifying(tx, after, until, MAX_SCANNED)
    return any(user in counts.notified(one.notify) for one in found)


def _invitations(tx: Tx, user: UserNid, after: int, until: int) -> list[News]:
    """Invitations of that time to rooms that this server is not in."""
    return [
        News(one.pos, one.room)
        for one in members.rooms_of(tx, user)
        if one.membership is Membership.INVITE and not one.event and after < one.pos <= until
    ]


def _was_read(tx: Tx, pusher: Pusher, cursor: int, now_ms: int) -> bool:
    """Whether the user has read the newest of what the last mail told."""
    found = _news(tx, pusher, 0, cursor)
    return not found or body_for(tx, pusher, found[-1], 0, now_ms) is None


# --- what is written


def _notification(body: bytes) -> Told:
    decoded = decode_stored(body)
    assert isinstance(decoded, Mapping)
    found = decoded["notification"]
    assert isinstance(found, Mapping)
    return found


@frozen
class _Room:
    """What is told of one room."""

    name: str
    lines: list[str] = field(factory=list)


def letter(told: list[Told], server: str) -> tuple[str, str]:
    """Subject and text of a mail about some notifications, oldest first ([E.06])."""
    rooms: dict[str, _Room] = {}
    for one in told:
        room = rooms.setdefault(str(one["room_id"]), _Room(_room_name(one)))
        room.lines.append(_line(one))
    number = len(told)
    messages = "one notification" if number == 1 else f"{number} notifications"
    parts = [f"Hello,\n\nyou have {messages} on {server} that you have not read.\n"]
    for room in [*rooms.values()][:MAX_ROOMS]:
        parts.append(f"\n{room.name}\n")
        more = len(room.lines) - MAX_LINES
        parts += [f"... and {more} before that\n"] if more > 0 else []
        parts += [f"  {line}\n" for line in room.lines[-MAX_LINES:]]
    if len(rooms) > MAX_ROOMS:
        parts.append(f"\n... and {len(rooms) - MAX_ROOMS} more rooms\n")
    parts.append(
        "\nTo read and to answer, open your Matrix client.  If you do not want such mails, turn\n"
        "notifications by e-mail off in its settings, or take this address from your account.\n"
    )
    is_mention = any(_is_highlight(one) for one in told)
    subject = f"You were mentioned on {server}" if is_mention else f"{messages} on {server}"
    return subject[0].upper() + subject[1:], "".join(parts)


def _is_highlight(one: Told) -> bool:
    devices = one.get("devices")
    device = devices[0] if isinstance(devices, list) and devices else None
    tweaks = device.get("tweaks") if isinstance(device, Mapping) else None
    return isinstance(tweaks, Mapping) and tweaks.get("highlight") is True


def _room_name(one: Told) -> str:
    for key in ("room_name", "room_alias"):
        if one.get(key):
            return _plain(one[key])
    return f"With {_sender(one)}"


def _sender(one: Told) -> str:
    return _plain(one.get("sender_display_name") or one["sender"])


def _line(one: Told) -> str:
    """One notification in words; what is encrypted stays so."""
    content, kind = one.get("content"), one.get("type")
    known = content if isinstance(content, Mapping) else {}
    if kind == "m.room.member" and known.get("membership") == "invite":
        return f"{_sender(one)} invites you"
    if kind == "m.room.encrypted":
        return f"{_sender(one)} has sent an encrypted message"
    body = known.get("body")
    if kind != "m.room.message" or not isinstance(body, str):
        return f"{_sender(one)} has done something there"
    return f"{_sender(one)}: {_plain(body)}"


def _plain(text: Json) -> str:
    """A piece of text for one line of a mail: nothing in it moves or hides what stands around."""
    shown = "".join(
        " " if unicodedata.category(letter)[0] in "CZ" else letter for letter in str(text)[:2_000]
    )
    folded = " ".join(shown.split())
    return folded if len(folded) <= MAX_TEXT else folded[: MAX_TEXT - 1] + "…"
