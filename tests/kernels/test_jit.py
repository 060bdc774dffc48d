"""The cache of compiled kernels: of which it is, and what tells them apart."""

from __future__ import annotations

import pytest

from fastneg.kernels import exponentials, row_updates
from fastneg.kernels.jit import CACHE_FOLDER, kernel
from fastneg.kernels.team import team_kernel


@kernel
def double(values, start, stop):
    for row in range(start, stop):
        values[row] *= 2


@pytest.mark.skipif(CACHE_FOLDER is None, reason="no folder can be written to")
def test_only_what_the_folders_name_knows_of_is_cached() -> None:
    inside, outside = exponentials.exponentiate, double
    for one in (inside, team_kernel(inside)):
        assert one._cache.cache_path == str(CACHE_FOLDER)
    for one in (outside, team_kernel(outside)):
        assert one._cache.cache_path is None


def test_kernels_on_a_team_have_names_of_their_own() -> None:
    works = [
        exponentials.exponentiate, exponentials.exponentiate_16, row_updates.read_rows,
        row_updates.update_rows, double,
    ]  # fmt: skip
    names = [team_kernel(one).py_func.__qualname__ for one in works]
    assert len(set(names)) == len(works)
    assert names[0] == "fastneg_kernels_exponentials_exponentiate_on_team"
