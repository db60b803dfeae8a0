"""Worlds that are not drawn from the seed: those in which certain mistakes show."""

from __future__ import annotations

from tests.sim.network import Weather
from tests.sim.world import Plan

QUARREL = Plan(
    servers=3,
    people=1,
    actions=3,
    pause_s=2.0,
    versions=("12",),
    weather=Weather.calm(),
    partitions=0,
    restarts=0,
    liar=False,
    strangers=False,
    quarrel=True,
)


SIEGE = Plan(
    servers=4,
    people=2,
    actions=10,
    pause_s=10.0,
    versions=("12", "6"),
    weather=Weather.calm(),
    partitions=3,
    restarts=0,
    liar=True,
    strangers=False,
    quarrel=False,
)

PLANS = {"quarrel": QUARREL, "siege": SIEGE}
