"""Pages as answers: escaped, with headers that let nothing in from elsewhere (T102)."""

from __future__ import annotations

import secrets
from html import escape

from matrixbox.api.answers import Response

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:32em;margin:3em auto;padding:0 1em}"
    "input,button{font:inherit;padding:.4em;margin:.3em 0}"
)


def page(
    title: str, body: str, *, script: str = "", status: int = 200, asks_here: bool = False
) -> Response:
    """A whole page.  ``body`` is HTML, ``title`` is text, ``script`` is code of ours alone.

    With ``asks_here`` the script may make requests to this server.
    """
    nonce = secrets.token_urlsafe(16)
    code = f'<script nonce="{nonce}">{script}</script>' if script else ""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f'<style nonce="{nonce}">{STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{body}{code}</body></html>"
    )
    asking = "connect-src 'self'; " if asks_here else ""
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; {asking}"
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return Response(
        status,
        html.encode(),
        (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy.encode("ascii")),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ),
        cors=False,
    )
