"""Tokens of sessions: how they are made, and how they are stored."""

from __future__ import annotations

import hashlib
import secrets


def hash_token(token: str) -> bytes:
    """As tokens are stored and looked up (T052)."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_token() -> str:
    """256 random bits, in a form that scanners for leaked secrets can recognise."""
    return f"mbx_{secrets.token_urlsafe(32)}"
