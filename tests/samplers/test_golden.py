"""Sixteen ids of each sampler, pinned, with torch and without it."""

from __future__ import annotations

import importlib.util

import pytest

from tests.samplers import golden
from tests.samplers.golden import GOLDEN, SAMPLERS


def test_every_sampler_has_its_sixteen() -> None:
    assert set(GOLDEN) == {*SAMPLERS, "alias table"}


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="samplers return tensors")
@pytest.mark.parametrize("name", GOLDEN)
def test_sixteen_ids_stand_still(name: str) -> None:
    assert golden.sixteen(name) == GOLDEN[name]


@pytest.mark.parametrize("name", SAMPLERS)
def test_they_are_drawn_without_torch(name: str) -> None:
    assert golden.sixteen_without_torch(name) == GOLDEN[name]
