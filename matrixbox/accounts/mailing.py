"""Sends the mail that waits.

What is to be sent stands in the database until the mail server has taken it, so a restart loses
nothing; a crash at the wrong moment may send something twice.
"""

from __future__ import annotations

import trio
from attrs import define

from matrixbox.clock import Clock
from matrixbox.net import smtp
from matrixbox.net.smtp import MailRefused, MailServer
from matrixbox.observe import log
from matrixbox.store import mail
from matrixbox.store.changes import StreamPos
from matrixbox.store.database import Store
from matrixbox.store.mail import Mail

FIRST_PAUSE_MS = 15_000  # before a message is tried again; then twice as long each time
LONGEST_PAUSE_MS = 900_000
LONGEST_WAIT_S = 3_600.0


def pause_ms(attempts: int) -> int:
    """How long to wait after so many attempts that failed before this one."""
    return min(FIRST_PAUSE_MS << min(attempts, 20), LONGEST_PAUSE_MS)


@define(eq=False)
class Mailer:
    """Hands waiting messages to the mail server, one after the other."""

    store: Store
    clock: Clock
    server: MailServer
    sender: str
    own_name: str

    async def run(self) -> None:
        """Send whatever is due, and wait for more."""
        while True:
            position = self.store.doorbell.position
            while (due := self.store.read(mail.due, self.clock.now_ms())) is not None:
                await self._send(due)
            next_ms = self.store.read(mail.next_due_ms)
            wait_s = LONGEST_WAIT_S
            if next_ms is not None:
                wait_s = min(max((next_ms - self.clock.now_ms()) / 1000, 0.05), LONGEST_WAIT_S)
            with trio.move_on_after(wait_s):
                await self.store.doorbell.beyond(StreamPos(position), mail.TOPIC)

    async def _send(self, waiting: Mail) -> None:
        now_ms = self.clock.now_ms()
        if waiting.until_ms <= now_ms:
            log.warning("mail was not sent in time", attempts=waiting.attempts)
            await self.store.write(mail.remove, waiting.mail_id)
            return
        try:
            letter = smtp.message(
                self.sender,
                waiting.recipient,
                waiting.subject,
                waiting.text,
                now_ms,
                self.own_name,
            )
            await smtp.send(self.server, letter)
        except MailRefused as error:
            attempts = waiting.attempts + 1
            about = {"attempts": attempts, "reason": str(error)}
            if error.is_final:
                log.warning("the mail server refuses a message", **about)
                await self.store.write(mail.remove, waiting.mail_id)
            else:
                log.warning("mail could not be sent yet", **about)
                due_ms = self.clock.now_ms() + pause_ms(waiting.attempts)
                await self.store.write(mail.postpone, waiting.mail_id, due_ms)
            return
        await self.store.write(mail.remove, waiting.mail_id)
        log.info("mail sent", attempts=waiting.attempts + 1)
