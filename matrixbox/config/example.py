"""Write a configuration file: every setting with its default and meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from matrixbox.config.settings import Setting, sections, settings_of

_INTRODUCTION = """\
# Configuration of matrixbox: every setting with its default and meaning.
#
# `matrixbox serve --config FILE` reads it once, at the start. Keys that it does not know, and
# values of the wrong type, are errors. Relative paths are relative to the folder of this file.
"""

_NOT_YET = "(Accepted, but without effect so far.)"


def example() -> str:
    """The whole text of `matrixbox.toml`."""
    parts = [_INTRODUCTION]
    for name, section in sections().items():
        parts.append(f"\n[{name}]\n")
        parts.extend(_entry(setting) for _, setting in settings_of(section).values())
    return "".join(parts)


def minimal(values: Mapping[str, Mapping[str, object]]) -> str:
    """A short file with only `values`, by section and key, each with its meaning."""
    parts: list[str] = []
    known = sections()
    for name, section in values.items():
        settings = settings_of(known[name])
        parts.append(f"\n[{name}]\n" if parts else f"[{name}]\n")
        parts.extend(_entry(settings[key][1], value) for key, value in section.items())
    return "".join(parts)


def _entry(setting: Setting, *value: object) -> str:
    text = setting.help if setting.in_effect else f"{setting.help} {_NOT_YET}"
    comment = textwrap.fill(text, 98, initial_indent="# ", subsequent_indent="# ")
    shown = setting.kind.show(value[0] if value else setting.default)
    return f"{comment}\n{setting.key} = {shown}\n"
