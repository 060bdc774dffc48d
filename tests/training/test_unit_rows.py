from __future__ import annotations

import torch
from torch.nn.functional import normalize

from fastneg.training.unit_rows import unit_rows


def test_units_and_their_gradient_are_those_of_normalize() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((5, 7), (2, 3, 4), (0, 3)):
        vectors = torch.randn(shape, generator=generator).requires_grad_()
        pull = torch.randn(shape, generator=generator)
        assert torch.equal(unit_rows(vectors), normalize(vectors, dim=-1))
        ours, theirs = (
            torch.autograd.grad((scaled(vectors) * pull).sum(), vectors)[0]
            for scaled in (unit_rows, lambda x: normalize(x, dim=-1))
        )
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences_and_of_zeros() -> None:
    vectors = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_rows, vectors)
    nothing = torch.zeros(2, 3, requires_grad=True)
    assert torch.equal(unit_rows(nothing), nothing)
    ours, theirs = (
        torch.autograd.grad(scaled(nothing).sum(), nothing)[0]
        for scaled in (unit_rows, lambda x: normalize(x, dim=-1))
    )
    assert torch.equal(ours, theirs)
