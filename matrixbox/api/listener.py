"""The listeners: accept, limit, watch over deadlines, and stop in good order.

Nothing that a connection does reaches the accept loop or another connection. Stopping takes a
bounded time whatever peers do: no new connections, long polls answer at once, what is being handled
may finish, idle connections are closed, and at the deadline every socket is closed (threats
T069-T072).
"""

from __future__ import annotations

import errno
import os
import resource
import select
import ssl
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf

import trio
from attrs import frozen
from hypercorn.trio.worker_context import WorkerContext

from matrixbox.api.admission import Admission, Pool, plain_address
from matrixbox.api.bounds import Bounds
from matrixbox.api.exchange import AsgiApp
from matrixbox.api.guard import Connection, Surroundings
from matrixbox.api.protocol import DoorConfig
from matrixbox.api.wire import Wire
from matrixbox.observe import log
from matrixbox.observe.health import Parts

# Linux tells when the peer has closed its side, even with unread bytes before that; elsewhere
# only a fully closed connection is noticed early.
_HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_PAUSE_S = 0.1
_BIND_AGAIN_S = 10.0
_LOG_PAUSE_S = 60
_FEWEST_CONNECTIONS = 16


@frozen
class Bind:
    """Where to listen. `tls` gives the context for each new connection; None means plain HTTP.

    Swapping the context that `tls` returns, or loading a new certificate into it, changes what new
    connections are served with; those that are open go on.
    """

    host: str
    port: int
    tls: Callable[[], ssl.SSLContext] | None = None


def new_server_context() -> ssl.SSLContext:
    """A TLS context for a Bind, still without certificate: TLS 1.2 and later, HTTP/1.1 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    return context


class Door:
    """All listeners of the server, and all connections that came through them."""

    def __init__(
        self,
        app: AsgiApp,
        binds: Sequence[Bind],
        *,
        bounds: Bounds | None = None,
        admission: Admission | None = None,
        tell_stopping: Callable[[], None] = lambda: None,
        parts: Parts | None = None,
    ) -> None:
        """`tell_stopping` is called when an orderly stop begins: long polls are to answer.

        `parts` is told of addresses that cannot be listened on.
        """
        self._binds = tuple(binds)
        self._bounds = bounds or Bounds()
        self._admission = admission or Admission(self._bounds, clock=trio.current_time)
        self._tell_stopping = tell_stopping
        self._parts = parts or Parts()
        self._connections: set[Connection] = set()
        self._changed = trio.lowlevel.ParkingLot()
        self._accepting = trio.CancelScope()
        self._stopping = False
        self._stopped = trio.Event()
        self._last_log = -inf
        self._spare: int | None = None
        self._most = self._bounds.connections
        self._shared = Surroundings(
            app, self._bounds, DoorConfig(self._bounds), WorkerContext(None), self._is_stopping
        )

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def admission(self) -> Admission:
        """Who may connect; to be told of sign-ins."""
        return self._admission

    async def run(
        self,
        *,
        task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen and serve until `stop` has finished; started with the addresses bound.

        An address that cannot be bound is tried again and again while others serve (T151); raises
        OSError when there is no other.
        """
        self._most = min(self._bounds.connections, _descriptors() - self._bounds.spare_descriptors)
        self._most = max(self._most, _FEWEST_CONNECTIONS)
        listeners: list[tuple[trio.SocketListener, Bind]] = []
        try:
            missing: list[Bind] = []
            failures: list[OSError] = []
            for bind in self._binds:
                try:
                    listeners.extend(await _listen(bind))
                except OSError as error:
                    failures.append(error)
                    missing.append(bind)
            if failures and not listeners:
                raise failures[0]
            for bind, failure in zip(missing, failures, strict=True):
                self._parts.broken(_part(bind), failure.strerror or str(failure))
            self._spare = os.open(os.devnull, os.O_RDONLY)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep, name="api.deadlines")
                name = "api.listeners"
                nursery.start_soon(self._accept_all, listeners, missing, nursery, name=name)
                task_status.started([address_of(listener) for listener, _ in listeners])
                try:
                    await self._stopped.wait()
                finally:
                    # Also when the server is cancelled: a shielded send ends with its socket only.
                    self._cut_all()
                    nursery.cancel_scope.cancel()
        finally:
            for listener, _ in listeners:
                listener.socket.close()
            if self._spare is not None:
                os.close(self._spare)

    async def stop(self) -> None:
        """Stop in good order; returns when every connection is closed, within `bounds.stop_s`."""
        deadline = trio.current_time() + self._bounds.stop_s
        self._stopping = True
        self._accepting.cancel()
        self._tell_stopping()
        with trio.move_on_at(deadline - self._bounds.stop_s / 4):
            await self._until_gone(lambda: (c for c in self._connections if c.is_answering))
        for connection in tuple(self._connections):
            if not connection.is_answering:
                connection.cut()
        with trio.move_on_at(deadline):
            await self._until_gone(lambda: self._connections)
        self._cut_all()
        self._stopped.set()

    def _cut_all(self) -> None:
        for connection in tuple(self._connections):
            connection.cut()

    def _is_stopping(self) -> bool:
        return self._stopping

    async def _until_gone(self, which: Callable[[], Iterable[Connection]]) -> None:
        while any(True for _ in which()):
            await self._changed.park()

    # Accepting.

    async def _accept_all(
        self,
        listeners: list[tuple[trio.SocketListener, Bind]],
        missing: Sequence[Bind],
        nursery: trio.Nursery,
    ) -> None:
        async def later(bind: Bind) -> None:
            opened = await self._listen_later(bind)
            listeners.extend(opened)
            for listener, _ in opened:
                accepting.start_soon(self._accept, listener, bind, nursery)

        with self._accepting:
            async with trio.open_nursery() as accepting:
                for listener, bind in listeners:
                    accepting.start_soon(self._accept, listener, bind, nursery)
                for bind in missing:
                    accepting.start_soon(later, bind)
        for listener, _ in listeners:
            listener.socket.close()

    async def _listen_later(self, bind: Bind) -> list[tuple[trio.SocketListener, Bind]]:
        """An address may come back: a network that was not up yet, a port that gets free."""
        while True:
            await trio.sleep(_BIND_AGAIN_S)
            try:
                opened = await _listen(bind)
            except OSError as error:
                self._parts.broken(_part(bind), error.strerror or str(error))
                continue
            self._parts.works(_part(bind))
            return opened

    async def _accept(
        self, listener: trio.SocketListener, bind: Bind, nursery: trio.Nursery
    ) -> None:
        while True:
            try:
                sock, address = await listener.socket.accept()
            except OSError as error:
                # Everything else is the trouble of the connection that was to be accepted.
                if error.errno in _OUT_OF_RESOURCES:
                    await self._turn_one_away(listener, error)
                await trio.sleep(_ACCEPT_PAUSE_S)
                continue
            self._welcome(sock, address, bind, nursery)

    async def _turn_one_away(self, listener: trio.SocketListener, error: OSError) -> None:
        """Refuse a caller with the spare descriptor, so that some learn that we are full."""
        self._log_seldom("no descriptors left for connections", error=error.strerror)
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with suppress(OSError), trio.move_on_after(_ACCEPT_PAUSE_S):
            # Another task may have taken the descriptor; then the pause is what helps.
            sock, _ = await listener.socket.accept()
            sock.close()
        with suppress(OSError):
            # Without a spare one, callers wait in the queue until descriptors are free again.
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _welcome(
        self,
        sock: trio.socket.SocketType,
        address: tuple[str, int],
        bind: Bind,
        nursery: trio.Nursery,
    ) -> None:
        host = plain_address(address[0])
        if len(self._connections) >= self._most or (pool := self._admission.admit(host)) is None:
            sock.close()
            self._log_seldom("connection refused", address=host, connections=self.connections)
            return
        try:
            server = sock.getsockname()[:2]
            context = None if bind.tls is None else bind.tls()
            connection = Connection(
                self._shared, Wire(sock), context, (host, address[1]), (server[0], server[1])
            )
        except Exception as error:  # noqa: BLE001 one connection fails alone
            sock.close()
            self._admission.release(host, pool)
            log.bug("connection failed", error, address=host)
            return
        if not self._connections:
            self._changed.unpark_all()
        self._connections.add(connection)
        nursery.start_soon(self._serve, connection, host, pool, name=f"api.connection {host}")

    async def _serve(self, connection: Connection, host: str, pool: Pool) -> None:
        """Run one connection; whatever goes wrong in it ends here."""
        try:
            await connection.run()
        except Exception as error:  # noqa: BLE001 one connection fails alone
            log.bug("connection failed", error, address=host)
        except BaseExceptionGroup as group:
            failures, rest = group.split(Exception)
            if failures is not None:
                log.bug("connection failed", failures, address=host)
            if rest is not None:
                raise rest from None
        finally:
            self._connections.discard(connection)
            self._admission.release(host, pool)
            self._changed.unpark_all()

    # Watching.

    async def _sweep(self) -> None:
        """Let time go by for all connections, and notice peers that have hung up."""
        while True:
            if not self._connections:
                await self._changed.park()
                continue
            before = trio.current_time()
            await trio.sleep(self._bounds.sweep_s)
            # After a pause of the whole machine nobody is late by more than a step.
            elapsed_s = min(trio.current_time() - before, 2 * self._bounds.sweep_s)
            for connection in tuple(self._connections):
                connection.tick(elapsed_s)
            self._notice_hang_ups()

    def _notice_hang_ups(self) -> None:
        waiting = {c.fileno(): c for c in self._connections if c.is_long_handled}
        if not waiting:
            return
        poll = select.poll()
        for descriptor in waiting:
            poll.register(descriptor, _HUNG_UP)
        for descriptor, happened in poll.poll(0):
            if happened & _HUNG_UP:
                waiting[descriptor].cut()

    def _log_seldom(self, event: str, **fields: object) -> None:
        now = trio.current_time()
        if now >= self._last_log + _LOG_PAUSE_S:
            self._last_log = now
            log.warning(event, **fields)


def address_of(listener: trio.SocketListener) -> tuple[str, int]:
    """The address that a listener is bound to."""
    host, port = listener.socket.getsockname()[:2]
    return (str(host), int(port))


async def _listen(bind: Bind) -> list[tuple[trio.SocketListener, Bind]]:
    opened = await trio.open_tcp_listeners(bind.port, host=bind.host)
    return [(listener, bind) for listener in opened]


def _part(bind: Bind) -> str:
    return f"{'http' if bind.tls is None else 'https'} {bind.host}:{bind.port}"


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
