"""Auth events selection and redaction: core beside the reference, on all events of random rooms."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from matrixbox.core.auth import select_auth_keys
from matrixbox.core.json import FEDERATION, decode
from matrixbox.core.redaction import redact
from matrixbox.core.room_versions import ROOM_VERSIONS
from tests.oracle.generate import VERSIONS, generate
from tests.reference.event_ids import redact as redact_by_the_text

SEED = 2
GRAPHS = 25


@pytest.mark.parametrize("version", VERSIONS)
def test_core_selects_what_the_text_selects(version: str) -> None:
    """Server-Server API, "Auth events selection" [A5.25]."""
    rules = ROOM_VERSIONS[version]
    for number in range(VERSIONS.index(version), GRAPHS * len(VERSIONS), len(VERSIONS)):
        graph = generate(SEED, number)
        for event in graph.events.values():
            keys = select_auth_keys(
                rules, event["type"], event["sender"], event.get("state_key"), event["content"]
            )
            assert set(keys) == graph.version.rules.selection(event)
            assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("version", VERSIONS)
def test_core_redacts_what_the_text_redacts(version: str) -> None:
    """rooms/v1 to v12, "Redactions" [A4.08]-[A4.11]."""
    rules = ROOM_VERSIONS[version]
    for number in range(VERSIONS.index(version), GRAPHS * len(VERSIONS), len(VERSIONS)):
        for text in generate(SEED, number).wire:
            pdu = decode(text.encode(), FEDERATION)
            assert isinstance(pdu, Mapping)
            assert redact(rules, pdu) == redact_by_the_text(version, pdu)
