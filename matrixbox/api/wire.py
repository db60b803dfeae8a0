"""One accepted socket: bytes in and out, counted, and cut off at any moment.

Trio's own socket stream does not tell how far a long send has come, and a send that is shielded
from cancellation can only be ended by closing the socket under it. Both are needed to hold the
deadlines of a peer that reads slowly or not at all.
"""

from __future__ import annotations

import errno
import socket as stdlib_socket
import struct
from contextlib import suppress

import trio

RECEIVE_BYTES = 64 * 1024
# What the kernel may hold unsent for one connection; without it a peer that does not read costs
# megabytes of kernel memory, and progress looks better than it is.
_UNSENT_BYTES = 128 * 1024
# struct linger: on, for no time.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# Linux; elsewhere the kernel's own default holds.
_NOTSENT_LOWAT = getattr(stdlib_socket, "TCP_NOTSENT_LOWAT", None)


class Wire(trio.abc.HalfCloseableStream):
    """A connected TCP socket as a stream for the guard, or for TLS on top of it."""

    __slots__ = ("_socket", "received", "sent")

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self.received = 0
        self.sent = 0

    def prepare(self) -> None:
        """Set the socket's options."""
        try:
            self._socket.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
            if _NOTSENT_LOWAT is not None:
                self._socket.setsockopt(stdlib_socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)
        except OSError as error:
            raise _translated(error) from error

    def fileno(self) -> int:
        """The descriptor, or -1 once closed."""
        return self._socket.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; b"" when the peer has closed its sending side."""
        try:
            data = await self._socket.recv(max_bytes or RECEIVE_BYTES)
        except OSError as error:
            raise _translated(error) from error
        self.received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; `sent` grows as the kernel takes it."""
        try:
            count = await self._socket.send(data)
            self.sent += count
            if count < len(data):
                with memoryview(data) as view:
                    await self._send_rest(view, count)
        except OSError as error:
            raise _translated(error) from error

    async def _send_rest(self, view: memoryview, count: int) -> None:
        while count < len(view):
            step = await self._socket.send(view[count:])
            self.sent += step
            count += step

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes bytes again."""
        try:
            await self._socket.wait_writable()
        except OSError as error:
            raise _translated(error) from error

    async def send_eof(self) -> None:
        """Close the sending side only; what the peer still sends can be read."""
        self.shut_sending()
        await trio.lowlevel.checkpoint()

    def shut_sending(self) -> None:
        """The same, without a checkpoint."""
        try:
            self._socket.shutdown(stdlib_socket.SHUT_WR)
        except OSError as error:
            raise _translated(error) from error

    def close(self, *, reset: bool = False) -> None:
        """Close at once; whoever waits on the socket, shielded or not, gets ClosedResourceError.

        With `reset`, what has not been sent is thrown away.
        """
        if reset:
            with suppress(OSError):
                # The socket may be closed or broken already, which is what is wanted.
                self._socket.setsockopt(
                    stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, _RESET_ON_CLOSE
                )
        self._socket.close()

    async def aclose(self) -> None:
        """Close at once."""
        self._socket.close()
        await trio.lowlevel.checkpoint()


def _translated(error: OSError) -> trio.ClosedResourceError | trio.BrokenResourceError:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("this connection was cut")
    return trio.BrokenResourceError(f"socket failed: {error}")
