"""What the server writes to people.

The texts name the server and nobody: who reads a message may not be who asked for it (T094).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from attrs import frozen

from matrixbox.store.addresses import Purpose

PATH = "/_matrix/client/unstable/org.matrixbox/email"
"""Where links in messages lead, below the base URL; reverse proxies pass it on."""

WANTED: Mapping[Purpose, str] = {
    Purpose.REGISTER: "make an account on {name} with this address",
    Purpose.ADD: "add this address to an account on {name}",
    Purpose.PASSWORD: "set a new password for the account on {name} that has this address",
}
IN_VAIN: Mapping[Purpose, str] = {
    Purpose.REGISTER: "This address has an account there already: sign in with that.",
    Purpose.ADD: "This address belongs to an account there already.",
    Purpose.PASSWORD: "But no account there has this address. Perhaps you gave another one.",
}
SUBJECT: Mapping[Purpose, str] = {
    Purpose.REGISTER: "Your account on {name}",
    Purpose.ADD: "Your address on {name}",
    Purpose.PASSWORD: "Your password on {name}",
}


@frozen
class Site:
    """The server as people know it."""

    name: str
    base_url: str


def link(site: Site, sid: str, token: str) -> str:
    """Where a message sends its reader."""
    return f"{site.base_url.rstrip('/')}{PATH}/{quote(sid, safe='')}?token={quote(token, safe='')}"


def about(purpose: Purpose, site: Site, url: str | None) -> tuple[str, str]:
    """Subject and text of a message; with a link, where there is something to confirm."""
    begin = f"Hello,\n\nsomebody, perhaps you, wants to {WANTED[purpose].format(name=site.name)}.\n"
    if url is None:
        rest = f"{IN_VAIN[purpose]}\n"
    else:
        rest = (
            "If it was you, open this page and confirm it there:\n\n"
            f"{url}\n\nThe link is good for an hour, and for one use.\n"
        )
    end = "If it was not you, there is nothing that you have to do.\n"
    return SUBJECT[purpose].format(name=site.name), f"{begin}\n{rest}\n{end}"
