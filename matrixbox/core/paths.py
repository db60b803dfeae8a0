"""Dot-separated property paths.

Matrix v1.19, appendices, "Dot-separated property paths": `content.m\\.relates_to` is the property
`m.relates_to` of `content` [C8.11], [C14.09].
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from matrixbox.core.json import Json

Path = tuple[str, ...]

_TOKENS = re.compile(r"\\([.\\])|(\.)|(\\|[^.\\]+)")


def parse_path(text: str) -> Path:
    """Split a path at its unescaped dots; `\\.` and `\\\\` are escapes, other backslashes stay."""
    names = [""]
    for escaped, dot, plain in _TOKENS.findall(text):
        if dot:
            names.append("")
        else:
            names[-1] += escaped or plain
    return tuple(names)


def look_up(value: Json, path: Path, default: Json = None) -> Json:
    """The property at a path; `default` if there is none."""
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value
