"""The composition root: builds the server's parts and wires them together; nothing else does."""

from matrixbox.serve.base import open_users, rotate_key
from matrixbox.serve.running import main

__all__ = ["main", "open_users", "rotate_key"]
