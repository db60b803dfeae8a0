"""What is installed with the server is known, little, and locked for the tests (threats T168)."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

TOP = Path(__file__).resolve().parents[1]
MOST_PACKAGES = 40


def named(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def direct() -> list[Requirement]:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


def installed_with_the_server() -> set[str]:
    """The requirements of requirements, on this Python."""
    found: set[str] = set()
    waiting = [requirement.name for requirement in direct()]
    while waiting:
        name = named(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for text in requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def test_t168_every_package_is_on_the_list_with_its_reason():
    text = (TOP / "matrixbox" / "docs" / "packages.md").read_text()
    listed = re.findall(r"^\| ([a-z0-9-]+) \| \w.{5,} \|$", text, re.M)
    assert sorted(installed_with_the_server()) == listed
    assert len(listed) <= MOST_PACKAGES


def test_t168_the_test_environment_is_locked_by_hash():
    text = (TOP / "tests" / "requirements.lock").read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[\w.]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_lock_fits_the_project_s_requirements():
    text = (TOP / "tests" / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", text, re.M))
    for requirement in direct():
        assert requirement.specifier.contains(locked[named(requirement.name)]), requirement


def test_every_direct_requirement_has_an_upper_bound_or_is_known_to_be_careful():
    unbounded = {r.name for r in direct() if not any(s.operator == "<" for s in r.specifier)}
    assert unbounded <= {"attrs"}  # versions by date, and never a break without long notice
