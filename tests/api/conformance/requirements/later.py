"""Requirements that no row asks for, and why; those of later work as well."""

from __future__ import annotations

# How many items each section of the checklist has.
SECTIONS = {
    "C1": 13,
    "C2": 12,
    "C3": 10,
    "C4": 11,
    "C7": 3,
    "C8": 32,
    "C9": 15,
    "C10": 7,
    "C11": 11,
    "C13": 8,
    "C15": 9,
    "C17": 18,
    "F1": 2,
    "F3": 6,
    "F4": 4,
}
APPSERVICES = "application services are not served yet"
THIRD_PARTY = "nobody is invited by an address: no identity server is trusted"
OAUTH = "OAuth and single sign-on are not served yet"
FEDERATION = "other servers are not spoken to yet"

LATER = {
    "C1.10": "the support page is part of the administration of a server",
    "C2.11": OAUTH,
    "C2.12": OAUTH,
    "C3.06": "no terms are asked to be agreed to, and there is no OAuth",
    "C4.03": APPSERVICES,
    "C8.28": "soft-failed and rejected events come from other servers; tests/rooms makes them",
    "C8.31": APPSERVICES,
    "C10.06": FEDERATION,
    "C11.10": THIRD_PARTY,
    "C11.11": "there is no room for notices of the server yet",
    "F1.02": FEDERATION,
    "F3.06": FEDERATION,
    "F4.03": FEDERATION,
}
