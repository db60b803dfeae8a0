"""Answers against the descriptions of their endpoints."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from tests.api.conformance.errors import GENERAL, error_problems, header_problems
from tests.api.conformance.openapi.documents import Documents
from tests.api.conformance.openapi.events import EventSchemas, events_in
from tests.api.conformance.openapi.operations import Operation, Operations
from tests.api.conformance.wire import NO_BODY, Answer

# Members of answers that the descriptions do not mention, and why they are there.
ALSO_ANSWERED = {
    "m.relations": "only the text of aggregations has it",
    "sender": "of presence and of messages between devices; the text of both has it",
    "prev_sender": "of replaced state, beside `prev_content`; what servers show since ever",
    "redacts": "stands beside and inside the content, for clients of all room versions",
    "fallback": "a fallback key says that it is one; the text of one-time keys has it",
    "device_unused_fallback_key_types": "only the text of end-to-end encryption has it",
    "org.matrix.msc4140.delay_id": "of a delayed event, for its sender",
    "org.matrix.msc4222.state_after": "the unstable name of state_after",
}
# The answer is what some client stored: the description mentions only examples of it.
AS_STORED = frozenset({"GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}"})


class NotConforming(AssertionError):
    """An answer is not as it is described."""


@define(eq=False)
class Checker:
    """Holds answers against the official descriptions, and remembers what it has seen."""

    operations: Operations
    events: EventSchemas
    good: dict[str, int] = field(factory=lambda: defaultdict(int))
    errors: dict[str, set[int]] = field(factory=lambda: defaultdict(set))

    @classmethod
    def of(cls, root: Path) -> Checker:
        """The checker that uses the data of a folder."""
        documents = Documents(root)
        return cls(Operations(documents), EventSchemas(documents))

    def check(self, answer: Answer, *, request_too: bool = False) -> None:
        """Raise NotConforming unless the answer is right; with `request_too` also the request.

        Paths that no document describes must be answered with an error.
        """
        request = answer.request
        operation = self.operations.find(request.method, request.raw_path)
        problems = header_problems(answer)
        if answer.status >= 400:
            problems += error_problems(answer)
        if operation is None:
            if answer.status < 400:
                problems.append("nothing describes this endpoint")
        else:
            problems += self._problems(operation, answer)
            if request_too:
                problems += _request_problems(operation, answer)
        if problems:
            raise NotConforming("\n  ".join([str(answer), *problems[:20]]))
        if operation is not None and answer.status < 400:
            self.good[operation.name] += 1
        elif operation is not None:
            self.errors[operation.name].add(answer.status)

    def _problems(self, operation: Operation, answer: Answer) -> Iterator[str]:
        if answer.status not in operation.statuses:
            if answer.status not in GENERAL:
                yield f"the status {answer.status} is not documented"
            return
        try:
            body = answer.json
        except ValueError:
            yield "the body is no JSON"
            return
        if answer.status == 401 and "flows" not in body:
            return  # a token is missing: not what the description of 401 is about
        found = []
        for checked in operation.answers(answer.status):
            found = [*checked.problems(body)]
            if answer.status < 400 and operation.name not in AS_STORED:
                found += [
                    f"{place} is not in the description"
                    for place in checked.unmentioned(body)
                    if place.rpartition("/")[2] not in ALSO_ANSWERED
                ]
            if not found:
                break
        yield from found
        for event in events_in(body):
            yield from self.events.problems(event)


def _request_problems(operation: Operation, answer: Answer) -> Iterator[str]:
    """What is wrong with a request that is meant to be right."""
    request = answer.request
    bodies = operation.bodies()
    if bodies and request.body is NO_BODY:
        if all(variant["requestBody"].get("required") for variant in operation.variants):
            yield "the request needs a body"
    elif bodies:
        sent = json.loads(request.body) if isinstance(request.body, bytes) else request.body
        attempts = [[*checked.problems(sent)] for checked in bodies]
        if all(attempts):
            yield from (f"in the request: {problem}" for problem in attempts[0])
    given = {pair.partition("=")[0] for pair in request.raw_query.split("&")}
    missing = operation.required_query() - given
    if missing:
        yield f"the request lacks {sorted(missing)}"
