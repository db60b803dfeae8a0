"""A TCP relay in front of a server, which can be shut, or slow: a network between two others."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

from attrs import define, field

CHUNK = 65_536


@define(eq=False)
class Gate:
    """Relays connections from one address to another while it is open."""

    front: tuple[str, int]
    back: tuple[str, int]
    connections: int = 0  # accepted and relayed so far
    breaks: int = 0  # how often it was shut, or dropped what there was
    delay_s: float = 0.0  # before each piece that is passed on, in either direction
    _open: bool = True
    _listener: socket.socket | None = None
    _lock: threading.Lock = field(factory=threading.Lock)
    _sockets: set[socket.socket] = field(factory=set)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(self.front)
        threading.Thread(target=self._accept, name="gate", daemon=True).start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):  # it may be gone already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.shut()

    def shut(self) -> None:
        """Break all connections, and every new one at once."""
        with self._lock:
            self._open = False
            self.breaks += 1
            for each in self._sockets:
                with contextlib.suppress(OSError):  # the peer may have closed it already
                    each.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Break the connections there are; new ones are let through."""
        self.shut()
        self.reopen()

    def reopen(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._open = True

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        with near:
            try:
                far = socket.create_connection(self.back, 5.0)
            except OSError:
                return
            far.settimeout(None)
            with far:
                with self._lock:
                    if not self._open:
                        return
                    self._sockets |= {near, far}
                    self.connections += 1
                there = threading.Thread(target=self._pump, args=(near, far), daemon=True)
                there.start()
                self._pump(far, near)
                there.join()
                with self._lock:
                    self._sockets -= {near, far}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either end may go at any time
            while data := source.recv(CHUNK):
                if self.delay_s:
                    time.sleep(self.delay_s)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
