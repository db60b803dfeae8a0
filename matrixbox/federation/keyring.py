"""The keys of other servers: fetched when needed, kept, and used to check signatures.

Matrix v1.19, Server-Server API, "Retrieving server keys", "Validating hashes and signatures on
received events"; rooms/v5, "Signing key validity period" ([B3.03], [B3.04], [B3.07], [A4.04] to
[A4.06]; T044, T045, T047 to T049).

Unknown is not false: where keys could not be had the verdict is UNKNOWN.  It is INVALID where the
server itself has just said that there is no such key, or that it was not valid at that time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import trio
from attrs import define, field, frozen

from matrixbox.clock import Clock
from matrixbox.core.identifiers import (
    KeyId,
    ServerName,
)
from matrixbox.core.json import Json, JsonError
from matrixbox.core.room_versions import RoomRules
from matrixbox.core.signing import signed_bytes
from matrixbox.errors import RemoteError
from matrixbox.federation.client import KIB, FederationClient, key_target
from matrixbox.federation.key_answers import (
    BadKeyAnswer,
    merge_direct,
    merge_notarised,
    read_answer,
)
from matrixbox.federation.own_keys import OwnKeys
from matrixbox.federation.signed import (
    Part,
    Required,
    check,
    check_pdu,
    check_pdus,
    required,
    signatures_of,
)
from matrixbox.federation.transport import Limits
from matrixbox.observe import log
from matrixbox.rooms.remote import Pdu, Signed
from matrixbox.store import server_keys
from matrixbox.store.database import Store
from matrixbox.store.errors import StoreFull
from matrixbox.store.server_keys import KeyAnswer, Keys
from matrixbox.store.transaction import Tx
from matrixbox.tasks import Offload, Outliving, in_thread

KEY_LIMITS = Limits(total_s=10, idle_s=10, max_bytes=256 * KIB)
NOTARY_LIMITS = Limits(total_s=30, idle_s=20, max_bytes=4096 * KIB)
FETCHES_AT_ONCE = 8
ASK_AGAIN_S = 60.0
"""After this a server may be asked again, and after twice that when it was in vain, and so on."""
ASK_AGAIN_AT_MOST_S = 3600.0
ASK_CALLER_AGAIN_S = 10.0
"""A server that calls us with a new key, and whose keys were fetched well before."""
MAX_ABSENT = 1_000
"""Keys of one server that are remembered not to exist."""
ALL_FETCHES_S = 120.0
"""For one batch of PDUs; servers that have not answered by then are unknown for now."""
SERVERS_REMEMBERED = 5_000
NOTARY_FIRST_ABOVE = 4
"""Servers whose keys are missing: so many are asked themselves, more are looked up at a notary."""
SERVERS_PER_NOTARY_QUERY = 100
KEYS_PER_NOTARY_QUERY = 20
_CHECKED_INLINE = 8
_CHECKED_AT_ONCE = 64


@frozen
class Need:
    """Keys of one server that are looked for; one of them is enough.

    `at_ms` is when they must have been valid, None for any time; `for_request` asks for keys that
    are current now.
    """

    key_ids: frozenset[KeyId]
    at_ms: int | None = None
    for_request: bool = False


@define(eq=False)
class _Asked:
    """How asking a server for its keys has gone, in seconds of the monotonic clock."""

    last_s: float = float("-inf")
    answered_s: float = float("-inf")
    in_vain: int = 0
    notarised_s: float = float("-inf")  # when a notary was asked about it
    absent: frozenset[KeyId] = frozenset()  # looked for and not there when it last answered
    wanted: set[KeyId] = field(factory=set)  # looked for now
    running: trio.Event | None = None


@define(eq=False)
class Keyring:
    """Checks signatures of all servers, our own included."""

    store: Store
    clock: Clock
    client: FederationClient
    own: OwnKeys
    notaries: Sequence[ServerName] = ()
    offload: Offload = in_thread
    on_keys: list[Callable[[ServerName], None]] = field(factory=list, repr=False)
    _known: OrderedDict[ServerName, Keys] = field(factory=OrderedDict, repr=False)
    _asked: OrderedDict[ServerName, _Asked] = field(factory=OrderedDict, repr=False)
    _fetches: trio.CapacityLimiter = field(
        factory=lambda: trio.CapacityLimiter(FETCHES_AT_ONCE), repr=False
    )
    _tasks: Outliving = field(factory=Outliving, repr=False)

    async def run(self) -> None:
        """Own the questions to other servers; without it they belong to those who ask."""
        await self._tasks.run()

    # --- verdicts

    async def verify(self, rules: RoomRules, pdus: Sequence[Pdu]) -> Sequence[Signed]:
        """For each PDU whether all servers have signed it that must; see rooms.remote.Verifier."""
        began = self.clock.monotonic_s()
        wanted = [required(rules, pdu) for pdu in pdus]
        await self._find(_needs(wanted))
        jobs = [
            (rules, pdu, None if one is None else self._parts(one, began))
            for pdu, one in zip(pdus, wanted, strict=True)
        ]
        if len(jobs) <= _CHECKED_INLINE:
            return [check_pdu(*job) for job in jobs]
        verdicts: list[Signed] = []
        for at in range(0, len(jobs), _CHECKED_AT_ONCE):
            verdicts += await self.offload(check_pdus, jobs[at : at + _CHECKED_AT_ONCE])
        return verdicts

    async def verify_json(
        self, server: ServerName, obj: Mapping[str, Json], at_ms: int | None = None
    ) -> Signed:
        """Whether a server has signed an object, with a key valid at that time (None: any)."""
        signatures = signatures_of(obj, server)
        if not signatures:
            return Signed.INVALID
        try:
            message = signed_bytes(obj)
        except JsonError:
            return Signed.INVALID
        return await self._verify_message(
            server, message, signatures, Need(frozenset(signatures), at_ms)
        )

    async def verify_request(
        self, origin: ServerName, message: bytes, signatures: Mapping[KeyId, str]
    ) -> Signed:
        """Whether a request was signed with a key that is current now [B4.06]."""
        need = Need(frozenset(signatures), for_request=True)
        return await self._verify_message(origin, message, signatures, need)

    def knows_for_request(self, origin: ServerName, key_ids: Iterable[KeyId]) -> bool:
        """Whether a request with these keys can be checked without asking anybody."""
        return self._is_met(origin, Need(frozenset(key_ids), for_request=True))

    async def _verify_message(
        self, server: ServerName, message: bytes, signatures: Mapping[KeyId, str], need: Need
    ) -> Signed:
        began = self.clock.monotonic_s()
        await self._find({server: [need]})
        return check(message, [self._part(server, signatures, need, began)])

    def _parts(self, wanted: Required, began: float) -> list[Part]:
        return [
            self._part(server, signatures, Need(frozenset(signatures), wanted.at_ms), began)
            for server, signatures in wanted.servers.items()
        ]

    def _part(
        self, server: ServerName, signatures: Mapping[KeyId, str], need: Need, began: float
    ) -> Part:
        known = self.keys_of(server)
        usable = {
            key_id: known[key_id].public_key
            for key_id in signatures
            if key_id in known and self._is_usable(known[key_id], need)
        }
        return Part(signatures, usable, self._is_settled(server, need, known, began))

    def _is_settled(self, server: ServerName, need: Need, known: Keys, began: float) -> bool:
        """Whether the server itself has spoken about these keys: since `began`, or just before."""
        if server == self.own.server_name:
            return True
        asked = self._asked.get(server)
        if asked is None:
            return False
        if asked.answered_s >= began:
            return True
        is_recent = self.clock.monotonic_s() - asked.answered_s < self._pause(asked)
        return is_recent and all(
            key_id in known or key_id in asked.absent for key_id in need.key_ids
        )

    def _is_usable(self, key: server_keys.ServerKey, need: Need) -> bool:
        if need.for_request:
            return not key.is_old and key.valid_until_ms >= self.clock.now_ms()
        if need.at_ms is None:
            return True
        if key.is_old:
            return need.at_ms < key.valid_until_ms  # [B3.02]
        return need.at_ms <= key.valid_until_ms

    # --- what is known

    def keys_of(self, server: ServerName) -> Keys:
        """The keys that are known of a server, without asking anybody."""
        if server == self.own.server_name:
            return self.own.keys
        known = self._known.get(server)
        if known is None:
            known = self.store.read(server_keys.keys_of, server)
            self._remember(server, known)
        else:
            self._known.move_to_end(server)
        return known

    def _remember(self, server: ServerName, keys: Keys) -> None:
        self._known[server] = keys
        self._known.move_to_end(server)
        if len(self._known) > SERVERS_REMEMBERED:
            self._known.popitem(last=False)

    def _is_met(self, server: ServerName, need: Need) -> bool:
        known = self.keys_of(server)
        return any(
            key_id in known and self._is_usable(known[key_id], need) for key_id in need.key_ids
        )

    def _missing(self, needs: Mapping[ServerName, Sequence[Need]]) -> dict[ServerName, list[Need]]:
        missing: dict[ServerName, list[Need]] = {}
        for server, wanted in needs.items():
            unmet = [need for need in wanted if not self._is_met(server, need)]
            if unmet and server != self.own.server_name:
                missing[server] = unmet
        return missing

    # --- asking

    async def _find(self, needs: Mapping[ServerName, Sequence[Need]]) -> None:
        """Ask for what is missing: the servers themselves and notaries, each once."""
        missing = self._missing(needs)
        if not missing:
            return
        with trio.move_on_after(ALL_FETCHES_S):
            notary_first = len(missing) > NOTARY_FIRST_ABOVE
            if notary_first:
                missing = await self._ask_notaries(missing)
            await self._ask_all(missing)
            missing = self._missing(missing)
            if missing and not notary_first:
                await self._ask_notaries(missing)

    async def _ask_all(self, missing: Mapping[ServerName, Sequence[Need]]) -> None:
        if len(missing) == 1:
            [(server, needs)] = missing.items()
            return await self._ask(server, needs)
        async with trio.open_nursery() as nursery:
            for server, needs in missing.items():
                nursery.start_soon(self._ask, server, needs)
        return None

    async def refresh(self, server: ServerName) -> None:
        """Ask a server for its keys unless that was done just now; failures are not raised."""
        if server != self.own.server_name:
            await self._ask(server, [Need(frozenset(), for_request=True)])

    async def _ask(self, server: ServerName, needs: Sequence[Need]) -> None:
        """Ask a server, together with everybody who asks it at the same time.

        The question goes on when the one who asked first goes away: otherwise somebody who names
        another server as his own, and hangs up, would keep us from knowing that server's keys.
        """
        asked = self._record(server)
        if asked.running is None:
            pause = self._pause(asked)
            if any(need.for_request for need in needs):
                # It speaks to us, so it is there; and perhaps it has changed its key just now.
                pause = ASK_AGAIN_S if asked.in_vain else ASK_CALLER_AGAIN_S
            elif self._is_back(server, asked):
                pause = ASK_CALLER_AGAIN_S
            if self.clock.monotonic_s() - asked.last_s < pause:
                return
            running = asked.running = trio.Event()
            asked.wanted = {key_id for need in needs for key_id in need.key_ids}
            await self._tasks.start(self._finish, server, asked, name=f"federation.keys {server}")
        else:
            running = asked.running
            asked.wanted.update(*(need.key_ids for need in needs))
        await running.wait()

    async def _finish(self, server: ServerName, asked: _Asked) -> None:
        """Ask, and note how it went."""
        answered = False
        try:
            async with self._fetches:
                answered = await self._ask_now(server)
        finally:
            asked.last_s = self.clock.monotonic_s()
            running, asked.running = asked.running, None
            wanted, asked.wanted = asked.wanted, set()
            if answered:
                asked.answered_s = asked.last_s
                absent = wanted - self.keys_of(server).keys()
                asked.absent = frozenset(islice(absent, MAX_ABSENT))
            is_in_vain = not answered or bool(asked.absent)
            asked.in_vain = asked.in_vain + 1 if is_in_vain else 0
            assert running is not None
            running.set()

    def _is_back(self, server: ServerName, asked: _Asked) -> bool:
        """Whether a server that did not tell its keys gave a sign of life since then."""
        since_s = self.clock.monotonic_s() - asked.last_s
        has_failed = asked.answered_s < asked.last_s
        return has_failed and self.client.destinations.heard_within(server, since_s)

    @staticmethod
    def _pause(asked: _Asked) -> float:
        return min(ASK_AGAIN_AT_MOST_S, ASK_AGAIN_S * 2.0 ** min(max(asked.in_vain - 1, 0), 16))

    def _record(self, server: ServerName) -> _Asked:
        asked = self._asked.setdefault(server, _Asked())
        self._asked.move_to_end(server)
        if len(self._asked) > SERVERS_REMEMBERED:
            for name, old in self._asked.items():
                if old.running is None:
                    del self._asked[name]
                    break
        return asked

    async def _ask_now(self, server: ServerName) -> bool:
        """Whether the server answered well; then its keys are known."""
        try:
            value = await self.client.fetch_unsigned(
                server, key_target("v2", "server"), limits=KEY_LIMITS
            )
            read = read_answer(server, value, self.clock.now_ms())
        except (RemoteError, BadKeyAnswer) as error:
            log.info("keys could not be had", server=server, reason=str(error))
            return False
        known = self.keys_of(server)

        def on_other_bytes(key_id: KeyId) -> None:
            log.warning("a server has another key under a known name", server=server, key=key_id)

        merged = merge_direct(known, read.keys, self.clock.now_ms(), on_other_bytes)
        await self._keep([(server, merged, read.answer)])
        self.client.destinations.succeeded(server)
        return True

    async def _keep(self, found: Sequence[_Found]) -> None:
        for server, keys, _ in found:
            self._remember(server, keys)
        try:
            await self.store.write(_store, found)
        except StoreFull:
            log.warning("keys are not stored: there is no space", servers=len(found))
        for server, _, _ in found:
            for call in self.on_keys:
                call(server)

    # --- notaries

    async def _ask_notaries(
        self, missing: dict[ServerName, list[Need]]
    ) -> dict[ServerName, list[Need]]:
        """Ask the notaries that we trust; what is still missing afterwards."""
        now = self.clock.monotonic_s()
        asked = {server: self._record(server) for server in missing}
        due = {name for name, one in asked.items() if now - one.notarised_s >= self._pause(one)}
        for server in due:
            asked[server].notarised_s = now
        for notary in self.notaries:
            wanted = {
                server: needs
                for server, needs in missing.items()
                if server != notary and server in due
            }
            if not wanted or notary == self.own.server_name:
                continue
            servers = list(wanted)
            for at in range(0, len(servers), SERVERS_PER_NOTARY_QUERY):
                some = servers[at : at + SERVERS_PER_NOTARY_QUERY]
                if not await self._ask_notary(notary, {name: wanted[name] for name in some}):
                    break
            missing = self._missing(missing)
        return missing

    async def _ask_notary(
        self, notary: ServerName, wanted: Mapping[ServerName, Sequence[Need]]
    ) -> bool:
        """Whether the notary answered at all."""
        query: dict[str, Json] = {server: _criteria(needs) for server, needs in wanted.items()}
        try:
            async with self._fetches:
                value = await self.client.post_json(
                    notary, key_target("v2", "query"), {"server_keys": query}, limits=NOTARY_LIMITS
                )
        except RemoteError as error:
            log.info("a notary did not answer", notary=notary, reason=str(error))
            return False
        answers = value.get("server_keys")
        found = []
        for answer in answers[: len(wanted) * 2] if isinstance(answers, list) else ():
            server = answer.get("server_name") if isinstance(answer, dict) else None
            if isinstance(server, str) and server in wanted:
                try:
                    found.append(await self._read_notarised(notary, ServerName(server), answer))
                except (JsonError, BadKeyAnswer) as error:
                    text = str(error)
                    log.info("a notary's answer is no good", notary=notary, about=server, why=text)
        await self._keep(found)
        return True

    async def _read_notarised(
        self, notary: ServerName, server: ServerName, value: Mapping[str, Json]
    ) -> _Found:
        """Believe what a notary has signed, as far as it contradicts nothing that is known."""
        signatures = signatures_of(value, notary)
        need = Need(frozenset(signatures), for_request=True)
        if not self._is_met(notary, need):
            await self._ask(notary, [need])
        if (
            check(signed_bytes(value), [self._part(notary, signatures, need, 0)])
            is not Signed.VALID
        ):
            raise BadKeyAnswer("the notary has not signed it")
        read = read_answer(server, value, self.clock.now_ms())

        def on_other_bytes(key_id: KeyId) -> None:
            log.warning("a notary names another key", notary=notary, server=server, key=key_id)

        merged = merge_notarised(self.keys_of(server), read.keys, on_other_bytes)
        return server, merged, read.answer


_Found = tuple[ServerName, Keys, KeyAnswer]


def _store(tx: Tx, found: Sequence[_Found]) -> None:
    for server, keys, answer in found:
        server_keys.replace(tx, server, keys, answer)
    server_keys.forget_oldest(tx)


def _needs(pdus: Iterable[Required | None]) -> dict[ServerName, list[Need]]:
    """What to look for: thousands of PDUs come from few servers, and a key that is valid at the
    latest time is valid at all of them."""
    latest: dict[ServerName, dict[frozenset[KeyId], int | None]] = {}
    for wanted in pdus:
        for server, signatures in wanted.servers.items() if wanted is not None else ():
            times = latest.setdefault(server, {})
            key_ids = frozenset(signatures)
            if wanted is not None and wanted.at_ms is not None:
                times[key_ids] = max(wanted.at_ms, times.get(key_ids) or wanted.at_ms)
            else:
                times[key_ids] = None
    return {
        server: [Need(key_ids, at_ms) for key_ids, at_ms in times.items()]
        for server, times in latest.items()
    }


def _criteria(needs: Sequence[Need]) -> dict[str, Json]:
    """How a notary is asked for the keys of one server."""
    criteria: dict[str, Json] = {}
    for need in needs:
        for key_id in sorted(need.key_ids):
            if len(criteria) < KEYS_PER_NOTARY_QUERY:
                criteria[key_id] = (
                    {} if need.at_ms is None else {"minimum_valid_until_ts": need.at_ms}
                )
    return criteria
