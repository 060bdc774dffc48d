"""The interval tree: nodes, and guides into running sums."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels import intervals as kernels
from fastneg.samplers.available import AvailableSampler, highest_nodes
from tests.naive import available as naive


def test_the_highest_node() -> None:
    pairs = [(a, b) for a in range(1, 40) for b in range(a, 40)]
    wanted = [naive.node_of(a, b) for a, b in pairs]
    first, last = np.array(pairs).T
    assert highest_nodes(first, last).tolist() == wanted
    assert [kernels.highest_node(a, b) for a, b in pairs] == wanted
    wide = highest_nodes(np.array([1, 2**30 + 1, 2**31 - 1]), np.array([2**31 - 1] * 3))
    assert wide.tolist() == [2**30, 3 * 2**29, 2**31 - 1]


@pytest.mark.parametrize("weights", [[1.0] * 500, [2.0**-i for i in range(60)], [1, 1e12, 1, 3]])
def test_guides_point_at_the_last_entry_before_a_cell(weights: list[float]) -> None:
    rng = np.random.default_rng(3)
    first = rng.integers(0, 20, len(weights))
    sampler = AvailableSampler(weights, first, first + rng.integers(0, 9, len(weights)))
    nodes, _, _, sums, guides, shifts = sampler._tree
    for side in (0, 1):
        for node in range(1, len(nodes) - 1):
            begin, end = int(nodes[node]), int(nodes[node + 1])
            base = [int(s) - int(sums[side, begin]) for s in sums[side, begin : end + 1]]
            shift = int(shifts[side, node])
            for cell in range(end - begin):
                wanted = max(j for j in range(end - begin) if base[j] <= cell << shift)
                assert guides[side, begin + cell] == begin + wanted
            if end > begin:
                assert (base[-1] - 1) >> shift < end - begin
