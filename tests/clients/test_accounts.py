"""Accounts: registering, signing in and out, the devices of one person."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.clients.conversation import (
    Company,
    Kind,
    Program,
    Refused,
    connected,
    secret,
)
from tests.server import running_server

KINDS: list[Kind] = ["nio", "js"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_account_is_made_and_used_from_two_devices(house: Company, kind: Kind):
    laptop = await house.register(kind, "ann")
    assert laptop.user_id == f"@{house.local('ann')}:{house.server.name}"
    phone = await house.login(kind, "ann", "ann's phone")
    assert phone.user_id == laptop.user_id
    assert phone.device_id != laptop.device_id
    room = await laptop.create_room(name="Diary", preset="private_chat")
    await phone.until(lambda view: view["name"] == "Diary", room=room)
    entry = await phone.say(room, "Dear diary")
    assert (await laptop.sees(room, entry))["body"] == "Dear diary"

    # A message knows its transaction on the device that sent it, and nowhere else.
    assert (await phone.sees(room, entry))["txn"]
    assert (await laptop.sees(room, entry))["txn"] is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_password_is_refused(house: Company, kind: Kind):
    await house.register(kind, "ann")
    thief = await house.stranger(kind, "thief")
    for user in (house.local("ann"), house.local("nobody")):
        with pytest.raises(Refused) as refused:
            await thief.do("login", user=user, password="guessed")
        assert refused.value.errcode == "M_FORBIDDEN"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_is_given_once(house: Company, kind: Kind):
    await house.register(kind, "ann")
    other = await house.stranger(kind, "other")
    with pytest.raises(Refused) as refused:
        await other.do("register", user=house.local("ann"), password="another one")
    assert refused.value.errcode == "M_USER_IN_USE"


@pytest.mark.parametrize("kind", KINDS)
async def test_signing_out_ends_the_device_and_nothing_else(house: Company, kind: Kind):
    laptop = await house.register(kind, "ann")
    phone = await house.login(kind, "ann", "ann's phone")
    room = await laptop.create_room(preset="private_chat")
    await phone.do("logout")
    with pytest.raises(Refused) as refused:
        await phone.create_room(preset="private_chat")
    if kind == "js":
        assert refused.value.errcode == "M_UNKNOWN_TOKEN"
    await laptop.sees(room, await laptop.say(room, "still here"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_registration_token_opens_a_closed_server(
    kind: Kind, programs: dict[Kind, Program], nursery: trio.Nursery, tmp_path: Path
):
    settings = {"registration": {"open": False, "token": "sesame"}}
    with running_server(tmp_path, settings) as server:
        house = Company(server, await connected(programs, nursery), "t")
        guest = await house.stranger(kind, "guest")
        for more in ({}, {"token": "simsim"}):
            with pytest.raises(Refused):
                await guest.do("register", user="guest", password=secret("guest"), **more)
        answer = await guest.do("register", user="guest", password=secret("guest"), token="sesame")
        assert answer["user_id"] == f"@guest:{server.name}"
        await guest.do("start")
        room = await guest.create_room(name="Hall")
        await guest.until(lambda view: view["name"] == "Hall", room=room)
