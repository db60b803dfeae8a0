"""Tokens with which a second device signs in (C2.06)."""

from __future__ import annotations

import trio

from matrixbox.accounts import login_tokens
from matrixbox.accounts.login_tokens import LoginTokens
from matrixbox.clock import SimulatedClock
from matrixbox.store.nids import UserNid

ANN, BO = UserNid(1), UserNid(2)


async def test_a_token_signs_in_one_user_once(autojump_clock):
    tokens = LoginTokens(SimulatedClock())
    ann, bo = tokens.make(ANN), tokens.make(BO)
    assert tokens.take("mbl_x") is None
    assert (tokens.take(bo), tokens.take(ann)) == (BO, ANN)
    assert (tokens.take(bo), tokens.take(ann)) == (None, None)


async def test_a_token_lives_for_two_minutes(autojump_clock):
    tokens = LoginTokens(SimulatedClock())
    early, late = tokens.make(ANN), tokens.make(ANN)
    await trio.sleep(119)
    assert tokens.take(early) == ANN
    await trio.sleep(2)
    assert tokens.take(late) is None


async def test_the_oldest_gives_way_when_there_are_many(monkeypatch, autojump_clock):
    monkeypatch.setattr(login_tokens, "MAX_TOKENS", 3)
    tokens = LoginTokens(SimulatedClock())
    made = [tokens.make(ANN) for _ in range(5)]
    assert [tokens.take(one) for one in made] == [None, None, ANN, ANN, ANN]
    assert all(one not in repr(tokens) for one in made)
