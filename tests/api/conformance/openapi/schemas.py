"""Values against schemas: what a schema forbids, and what it does not mention.

OpenAPI 3.1 schemas are JSON Schemas of 2020-12.  The `mx-` formats of the specification are checked
by their grammars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker

Schema = Mapping[str, Any]

FORMATS = FormatChecker(formats=())

_SERVER = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::[0-9]{1,5})?"
_PATTERNS = {
    "mx-user-id": rf"@[^:\0]*:{_SERVER}",
    "mx-room-id": rf"!(?:[^:\0]+:{_SERVER}|[A-Za-z0-9_-]{{43}})",
    "mx-event-id": rf"\$(?:[^:\0]+:{_SERVER}|[A-Za-z0-9_/+-]{{43}})",
    "mx-room-alias": rf"#[^:\0]*:{_SERVER}",
    "mx-server-name": _SERVER,
    "mx-mxc-uri": rf"mxc://{_SERVER}/[A-Za-z0-9_-]+",
    "mx-unpadded-base64": r"[A-Za-z0-9+/]*",
    "mx-urlsafe-unpadded-base64": r"[A-Za-z0-9_-]*",
}
_WITH_LENGTH = {"mx-user-id", "mx-room-id", "mx-event-id", "mx-room-alias"}


def _is_of(name: str, value: object) -> bool:
    if not isinstance(value, str):
        return True  # what is not a string is the business of `type`
    if name in _WITH_LENGTH and len(value.encode()) > 255:
        return False
    return re.fullmatch(_PATTERNS[name], value) is not None


for _name in _PATTERNS:
    FORMATS.checks(_name)(lambda value, name=_name: _is_of(name, value))


@FORMATS.checks("uri")
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme)


@FORMATS.checks("int64")
def _is_int64(value: object) -> bool:
    # Canonical JSON knows fewer integers than 64 bits hold.
    return not isinstance(value, int) or abs(value) < 2**53


class Checked:
    """A schema that values are held against."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._validator = Draft202012Validator(schema, format_checker=FORMATS)

    def problems(self, value: Any) -> Iterator[str]:
        """What the schema forbids."""
        for error in self._validator.iter_errors(value):
            where = "/".join(map(str, error.absolute_path))
            yield f"at /{where}: {error.message[:300]}"

    def unmentioned(self, value: Any) -> Iterator[str]:
        """The places of members that the schema does not mention."""
        return _unmentioned([self.schema], value, "")


def _unmentioned(schemas: list[Schema], value: Any, where: str) -> Iterator[str]:
    flat = [part for schema in schemas for part in _parts(schema)]
    if isinstance(value, list):
        items = [part["items"] for part in flat if isinstance(part.get("items"), Mapping)]
        if items:
            for number, item in enumerate(value):
                yield from _unmentioned(items, item, f"{where}/{number}")
    elif isinstance(value, Mapping) and any("properties" in part for part in flat):
        for key, member in value.items():
            below = list(_about(flat, key))
            if not below:
                yield f"{where}/{key}"
            else:
                yield from _unmentioned(
                    [schema for schema in below if isinstance(schema, Mapping)],
                    member,
                    f"{where}/{key}",
                )
    elif isinstance(value, Mapping):
        for key, member in value.items():
            below = [schema for schema in _about(flat, key) if isinstance(schema, Mapping)]
            if below:
                yield from _unmentioned(below, member, f"{where}/{key}")


def _parts(schema: Schema) -> Iterator[Schema]:
    """The schema and everything that it is composed of."""
    yield schema
    for word in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(word, ()):
            yield from _parts(part)


def _about(flat: list[Schema], key: str) -> Iterator[Any]:
    """What the schemas say of one member; true where they only allow it."""
    named = False
    for part in flat:
        if key in part.get("properties", {}):
            named = True
            yield part["properties"][key]
        for pattern, schema in part.get("patternProperties", {}).items():
            if re.search(pattern, key):
                named = True
                yield schema
    if not named:
        for part in flat:
            if part.get("additionalProperties"):
                yield part["additionalProperties"]
