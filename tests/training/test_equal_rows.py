"""Equal rows, found and tied."""

from __future__ import annotations

import numpy as np
import torch

from fastneg.training import equal_rows as module
from fastneg.training.equal_rows import equal_rows


def test_copies_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    for rows, width, levels in ((1, 3, 2), (50, 1, 4), (300, 2, 7), (2000, 3, 11), (40, 5, 1)):
        vectors = rng.integers(0, levels, (rows, width)).astype(np.float32)
        vectors[rng.random(vectors.shape) < 0.2] *= -1.0  # some zeros are -0.0
        found = equal_rows(torch.from_numpy(vectors))
        first: dict[tuple[float, ...], int] = {}
        expected = []
        for row, vector in enumerate(vectors.tolist()):
            original = first.setdefault(tuple(vector), row)  # -0.0 == 0.0, and hashes alike
            if original != row:
                expected.append((row, original))
        pairs = zip(found.copies.tolist(), found.originals.tolist(), strict=True)
        assert list(pairs) == expected


def test_rows_of_one_key_alone_are_not_tied(monkeypatch) -> None:
    monkeypatch.setattr(module, "_PRIME", np.uint64(0))  # every key is 0
    found = equal_rows(torch.tensor([[1.0], [2.0], [1.0]]))
    assert found.copies.tolist() == [2]


def test_products_of_equal_rows_are_equal_at_every_edge() -> None:
    """One row by 7 or 1,683 columns is added up in another order at the edge."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((1, 7), (2, 1683), (37, 7)):
        items = torch.randn(1, 64, generator=generator).repeat(columns, 1)
        scores = torch.randn(rows, 64, generator=generator) @ items.T
        equal_rows(items).tie(scores)
        assert bool((scores == scores[:, :1]).all())
