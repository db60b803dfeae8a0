"""The specification's data files, with every `$ref` put in its place.

A reference is `FILE`, `FILE#/POINTER` or `#/POINTER`, relative to the file it stands in.  Members
beside a `$ref` replace those of its target; real composition is `allOf`.  No schema refers to
itself, so everything can be written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Place = tuple[Path, str]


class BadReference(Exception):
    """A `$ref` leads nowhere, out of the folder, or round in a circle."""


class Documents:
    """The files below one folder, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._files: dict[Path, Any] = {}
        self._expanded: dict[_Place, Any] = {}

    def read(self, name: str) -> Any:
        """A file, by its path below the folder, written out."""
        return self._target(self.root / name, "", ())

    def names(self, pattern: str) -> list[str]:
        """The files that match, in order, by their paths below the folder."""
        found = (path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))
        return sorted(found)

    def _target(self, file: Path, pointer: str, above: tuple[_Place, ...]) -> Any:
        place = (file, pointer)
        if place in above:
            raise BadReference(f"{file}#{pointer} refers to itself")
        if place not in self._expanded:
            node = _at(self._file(file), pointer, file)
            self._expanded[place] = self._expand(node, file, (*above, place))
        return self._expanded[place]

    def _file(self, file: Path) -> Any:
        if file not in self._files:
            if not file.is_relative_to(self.root) or not file.is_file():
                raise BadReference(f"there is no {file} in the data")
            self._files[file] = yaml.load(file.read_text(), Loader=_Loader)
        return self._files[file]

    def _expand(self, node: Any, file: Path, above: tuple[_Place, ...]) -> Any:
        if isinstance(node, list):
            return [self._expand(item, file, above) for item in node]
        if not isinstance(node, Mapping):
            return node
        members = {
            str(key): self._expand(value, file, above)
            for key, value in node.items()
            if key != "$ref"
        }
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return members if reference is None else {**members, "$ref": reference}
        name, _, pointer = reference.partition("#")
        target_file = (file.parent / name).resolve() if name else file
        target = self._target(target_file, pointer, above)
        return {**target, **members} if isinstance(target, Mapping) else target


def _at(node: Any, pointer: str, file: Path) -> Any:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            node = node[int(key)] if isinstance(node, list) else node[key]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise BadReference(f"{file} has no {pointer}") from error
    return node
