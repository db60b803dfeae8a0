"""Messages on their way out: into whose hands they get, and what happens without any."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trustme

from matrixbox.accounts import mailing
from matrixbox.accounts.mailing import LONGEST_PAUSE_MS, Mailer, pause_ms
from matrixbox.clock import SystemClock
from matrixbox.net import smtp
from matrixbox.net.smtp import MailRefused, MailServer
from matrixbox.observe import log
from matrixbox.store import mail
from matrixbox.store.database import Store
from tests.mail.post_office import PostOffice

BOB = "bob@example.org"
SECRET = "the password of the mail server"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_files(authority: trustme.CA, tmp_path: Path) -> tuple[Path, ...]:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return (file,)


def context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(found)
    return found


@pytest.fixture
def office() -> Iterator[PostOffice]:
    found = PostOffice()
    yield found
    found.close()


def at(office: PostOffice, **more: object) -> MailServer:
    chosen = {"security": "none", "own_name": "home.test", **more}
    return MailServer("127.0.0.1", office.port, **chosen)  # type: ignore[arg-type]


def letter(text: str = "hello\n", subject: str = "A subject") -> smtp.EmailMessage:
    return smtp.message("matrixbox@home.test", BOB, subject, text, 1_700_000_000_000, "home.test")


async def test_a_message_arrives_as_it_was_written(office: PostOffice) -> None:
    text = ".\n..dots at the beginning\nfrom here\nümläute\n" + 300 * "long "
    await smtp.send(at(office), letter(text, "Grüße"))
    found = office.letter(BOB)
    assert found["From"] == "matrixbox@home.test"
    assert found["Subject"] == "Grüße"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Message-ID"].endswith("@home.test>")
    assert found.get_content().splitlines() == text.splitlines()
    assert office.greetings == ["home.test"]


def test_t101_nothing_gets_into_the_head_of_a_message() -> None:
    for recipient, subject in (
        ("bob@example.org\nBcc: eve@example.org", "x"),
        (BOB, "x\r\nBcc: eve@example.org"),
    ):
        with pytest.raises(MailRefused) as caught:
            smtp.message("a@home.test", recipient, subject, "text", 0, "home.test")
        assert caught.value.is_final


@pytest.mark.parametrize("kind", ["tls", "starttls"])
async def test_credentials_go_only_through_tls(
    kind: str, authority: trustme.CA, ca_files: tuple[Path, ...]
) -> None:
    office = PostOffice(context(authority), implicit_tls=kind == "tls", users={"matrixbox": SECRET})
    server = at(office, security=kind, user="matrixbox", password=SECRET, ca_files=ca_files)
    await smtp.send(server, letter())
    assert office.letter(BOB)["To"] == BOB
    assert not {"AUTH", "MAIL", "DATA"} & set(office.seen_plain)
    assert SECRET not in repr(server)
    office.close()


@pytest.mark.parametrize("kind", ["tls", "starttls"])
@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_stranger_gets_nothing(
    kind: str, wrong: str, authority: trustme.CA, ca_files: tuple[Path, ...]
) -> None:
    names = wrong == "name"
    shown = context(authority, "elsewhere.test") if names else context(trustme.CA())
    office = PostOffice(shown, implicit_tls=kind == "tls")
    with pytest.raises(MailRefused) as caught:
        await smtp.send(at(office, security=kind, ca_files=ca_files), letter())
    assert not caught.value.is_final
    assert not {"MAIL", "DATA"} & set(office.seen_plain)
    assert office.letters == []
    office.close()


async def test_without_an_offer_of_tls_nothing_is_sent(office: PostOffice) -> None:
    """Somebody in between may have taken the offer out."""
    with pytest.raises(MailRefused) as caught:
        await smtp.send(at(office, security="starttls"), letter())
    assert not caught.value.is_final
    assert "MAIL" not in office.seen_plain


@pytest.mark.parametrize(
    ("command", "answer", "is_final"),
    [
        ("connect", "554 not today", False),
        ("EHLO", "500 what", False),
        ("MAIL", "451 later", False),
        ("MAIL", "550 never from you", False),
        ("RCPT", "450 later", False),
        ("RCPT", "550 nobody is called so", True),
        ("DATA", "452 full", False),
        ("DATA", "554 no", True),
    ],
)
async def test_refusals_are_for_now_or_for_ever(
    office: PostOffice, command: str, answer: str, is_final: bool
) -> None:
    office.refusals[command] = answer
    if command == "EHLO":
        office.refusals["HELO"] = answer
    with pytest.raises(MailRefused) as caught:
        await smtp.send(at(office), letter())
    assert caught.value.is_final is is_final
    assert answer[4:] not in str(caught.value)
    assert BOB not in str(caught.value)


async def test_a_wrong_password_is_no_reason_to_give_up(
    authority: trustme.CA, ca_files: tuple[Path, ...]
) -> None:
    office = PostOffice(context(authority), users={"matrixbox": "another"})
    server = at(office, security="starttls", user="matrixbox", password=SECRET, ca_files=ca_files)
    with pytest.raises(MailRefused) as caught:
        await smtp.send(server, letter())
    assert not caught.value.is_final
    assert SECRET not in str(caught.value)
    office.close()


@pytest.mark.parametrize("command", ["connect", "EHLO", "RCPT", "DATA"])
async def test_a_silent_server_costs_no_more_than_the_deadline(
    office: PostOffice, command: str
) -> None:
    office.silent_at = command
    began = trio.current_time()
    with pytest.raises(MailRefused):
        await smtp.send(at(office), letter(), total_s=0.3)
    assert trio.current_time() - began < 2


async def test_nobody_listens() -> None:
    office = PostOffice()
    server = at(office)
    office.close()
    with pytest.raises(MailRefused) as caught:
        await smtp.send(server, letter())
    assert not caught.value.is_final


# --- the mail that waits


def test_pauses_grow_up_to_a_bound() -> None:
    pauses = [pause_ms(attempts) for attempts in range(40)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (15_000, LONGEST_PAUSE_MS)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "matrixbox.db") as found:
        yield found


async def put(store: Store, recipient: str, until_ms: int | None = None) -> None:
    now_ms = SystemClock().now_ms()
    until_ms = now_ms + 60_000 if until_ms is None else until_ms
    await store.write(mail.put, recipient, "A subject", "text\n", now_ms, until_ms)


def mailer(store: Store, office: PostOffice) -> Mailer:
    return Mailer(store, SystemClock(), at(office), "matrixbox@home.test", "home.test")


async def until(look: Callable[[], bool], within_s: float = 10) -> None:
    with trio.fail_after(within_s):
        while not look():
            await trio.sleep(0.02)


async def test_what_waits_is_sent_and_forgotten(store: Store, office: PostOffice) -> None:
    await put(store, "before@example.org")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailer(store, office).run)
        await until(lambda: len(office.letters) == 1)
        for number in range(3):
            await put(store, f"later{number}@example.org")
        await until(lambda: len(office.letters) == 4)
        await until(lambda: store.read(mail.count) == 0)
        nursery.cancel_scope.cancel()
    assert {one["To"] for one in office.letters} == {
        "before@example.org",
        *(f"later{number}@example.org" for number in range(3)),
    }


async def test_what_cannot_be_sent_now_waits_and_survives_a_restart(
    tmp_path: Path, office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailing, "FIRST_PAUSE_MS", 100)
    office.refusals["RCPT"] = "450 later"
    for _ in range(2):
        async with Store.open(tmp_path / "matrixbox.db") as store:
            if not store.read(mail.count):
                await put(store, BOB)
            before = office.connections
            with trio.move_on_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(mailer(store, office).run)
                    await until(lambda before=before: office.connections >= before + 2)
                    nursery.cancel_scope.cancel()
            assert store.read(mail.count) == 1
            assert office.letters == []
    del office.refusals["RCPT"]
    async with Store.open(tmp_path / "matrixbox.db") as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mailer(store, office).run)
            await until(lambda: store.read(mail.count) == 0)
            nursery.cancel_scope.cancel()
    assert [one["To"] for one in office.letters] == [BOB]


async def test_what_is_refused_for_ever_or_too_old_does_not_hold_up_the_rest(
    store: Store, office: PostOffice
) -> None:
    await put(store, "old@example.org", until_ms=1)
    await put(store, "broken@example.org\nX: y")
    office.refusals["RCPT"] = "550 nobody"
    await put(store, "nobody@example.org")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailer(store, office).run)
        await until(lambda: store.read(mail.count) == 0)
        del office.refusals["RCPT"]
        await put(store, BOB)
        await until(lambda: len(office.letters) == 1)
        nursery.cancel_scope.cancel()
    assert office.letters[0]["To"] == BOB


async def test_t109_logs_name_nobody(
    store: Store, office: PostOffice, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log.configure("debug", tmp_path / "log")
    try:
        for refusal in ("450 later, bob@example.org", "550 never, bob@example.org"):
            office.refusals["RCPT"] = refusal
            await put(store, BOB)
            before = office.connections
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mailer(store, office).run)
                await until(lambda before=before: office.connections > before)
                await trio.sleep(0.2)
                nursery.cancel_scope.cancel()
    finally:
        log.configure("info", None)
    written = (tmp_path / "log").read_text() + capfd.readouterr().err
    assert "SMTPRecipientsRefused 450" in written
    assert "example.org" not in written
