"""The twelve room versions, each with its rules and its state resolution."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference import auth, auth_v1, resolution


@dataclass(frozen=True)
class RoomVersion:
    name: str
    rules: auth_v1.RulesV1
    resolution: resolution.ResolutionV1 | resolution.ResolutionV2


def room_version(
    name: str,
    rules: type[auth_v1.RulesV1],
    resolving: type[resolution.ResolutionV1] | type[resolution.ResolutionV2],
) -> RoomVersion:
    of_version = rules()
    return RoomVersion(name, of_version, resolving(of_version))


ROOM_VERSIONS = {
    version.name: version
    for version in (
        room_version("1", auth_v1.RulesV1, resolution.ResolutionV1),
        room_version("2", auth_v1.RulesV1, resolution.ResolutionV2),
        room_version("3", auth.RulesV3, resolution.ResolutionV2),
        room_version("4", auth.RulesV3, resolution.ResolutionV2),
        room_version("5", auth.RulesV3, resolution.ResolutionV2),
        room_version("6", auth.RulesV6, resolution.ResolutionV2),
        room_version("7", auth.RulesV7, resolution.ResolutionV2),
        room_version("8", auth.RulesV8, resolution.ResolutionV2),
        room_version("9", auth.RulesV8, resolution.ResolutionV2),
        room_version("10", auth.RulesV10, resolution.ResolutionV2),
        room_version("11", auth.RulesV11, resolution.ResolutionV2),
        room_version("12", auth.RulesV12, resolution.ResolutionV21),
    )
}
