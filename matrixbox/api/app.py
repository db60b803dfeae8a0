"""The Quart application, made only where a route is mounted on it.

Importing Quart takes 12 MiB of memory and a sixth of a second, a good part of what the whole server
takes; so it is not imported for nothing.
"""

from __future__ import annotations

from matrixbox.api.asgi import Application
from matrixbox.api.exchange import AsgiApp


def make_quart(application: Application) -> AsgiApp:
    """Quart around `application`'s handlers; this function is what Application takes."""
    from matrixbox.api.quart_mount import mount  # noqa: PLC0415 see above

    return mount(application)
