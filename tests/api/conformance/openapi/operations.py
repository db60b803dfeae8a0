"""The operations that the documents describe, and which of them a request asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field

from tests.api.conformance.openapi.documents import Documents
from tests.api.conformance.openapi.schemas import Checked

METHODS = ("get", "put", "post", "delete", "patch")
JSON = "application/json"
_ENDS = "\0"  # no segment of a path: where the operations of a path are in the tree


@define(eq=False)
class Operation:
    """One endpoint with one method, as one or more documents describe it."""

    method: str
    path: str
    variants: list[Mapping[str, Any]] = field(factory=list)  # written out; often one
    _checked: dict[tuple[str, int], list[Checked]] = field(factory=dict)

    @property
    def name(self) -> str:
        """What the operation is called in lists."""
        return f"{self.method} {self.path}"

    @property
    def statuses(self) -> set[int]:
        """The statuses that are documented."""
        return {int(status) for variant in self.variants for status in variant["responses"]}

    @property
    def security(self) -> str:
        """Whether a token is `required`, `optional`, or not asked for (`none`)."""
        found = [variant.get("security") or [] for variant in self.variants]
        if not any(found):
            return "none"
        return "optional" if any({} in entries for entries in found) else "required"

    def answers(self, status: int) -> list[Checked]:
        """The schemas of the bodies that are documented for a status; empty for any body."""
        return self._schemas("answer", status, self._answer_schemas(status))

    def bodies(self) -> list[Checked]:
        """The schemas of the bodies that a request may have."""
        return self._schemas("request", 0, self._body_schemas())

    def required_query(self) -> set[str]:
        """The names of the query parameters that every request must have."""
        parameters = (p for variant in self.variants for p in variant.get("parameters", ()))
        return {p["name"] for p in parameters if p["in"] == "query" and p.get("required")}

    def _schemas(
        self, kind: str, status: int, schemas: Iterator[Mapping[str, Any]]
    ) -> list[Checked]:
        key = (kind, status)
        if key not in self._checked:
            self._checked[key] = [Checked(schema) for schema in schemas]
        return self._checked[key]

    def _answer_schemas(self, status: int) -> Iterator[Mapping[str, Any]]:
        for variant in self.variants:
            for documented, response in variant["responses"].items():
                schema = response.get("content", {}).get(JSON, {}).get("schema")
                if int(documented) == status and schema is not None:
                    yield _loosened(schema)

    def _body_schemas(self) -> Iterator[Mapping[str, Any]]:
        for variant in self.variants:
            schema = variant.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema")
            if schema is not None:
                yield schema


def _loosened(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body that may be one thing or another is right also where the two overlap.

    An event is an object too, which `GET .../state/{eventType}/{stateKey}` forgets.
    """
    if "oneOf" not in schema:
        return schema
    return {
        **{key: value for key, value in schema.items() if key != "oneOf"},
        "anyOf": schema["oneOf"],
    }


class Operations:
    """All operations of one API."""

    def __init__(self, documents: Documents, api: str = "client-server") -> None:
        self._by_name: dict[str, Operation] = {}
        self._tree: dict[str, Any] = {}
        for name in documents.names(f"api/{api}/*.yaml"):
            self._read(documents.read(name))

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, method: str, raw_path: str) -> Operation | None:
        """The operation that a path as it came asks for; literal segments go before parameters.

        Where the last parameter is empty, the slash before it may be missing.
        """
        segments = raw_path.split("/")[1:]
        return _find(self._tree, segments, method) or _find(self._tree, [*segments, ""], method)

    def _read(self, document: Mapping[str, Any]) -> None:
        for server in document.get("servers", ())[:1]:
            base = server["variables"]["basePath"]["default"]
            for path, methods in document.get("paths", {}).items():
                for method in METHODS:
                    if method in methods:
                        self._add(method.upper(), base + path.strip(), methods[method])

    def _add(self, method: str, path: str, described: Mapping[str, Any]) -> None:
        operation = self._by_name.setdefault(f"{method} {path}", Operation(method, path))
        operation.variants.append(described)
        node = self._tree
        for segment in path.split("/")[1:]:
            node = node.setdefault("{}" if segment.startswith("{") else segment, {})
        node.setdefault(_ENDS, {})[method] = operation


def _find(node: Mapping[str, Any], segments: list[str], method: str) -> Operation | None:
    if not segments:
        found: Operation | None = node.get(_ENDS, {}).get(method)
        return found
    first, *rest = segments
    for key in dict.fromkeys((first, "{}")):
        if key in node:
            found = _find(node[key], rest, method)
            if found is not None:
                return found
    return None
