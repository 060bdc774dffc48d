"""Scores with vectors of a row's own, and their gradients, beside torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastneg.training import own_scores as module
from fastneg.training.own_scores import own_scores, takes
from tests.training.inputs import on_threads


def gradients(scores: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    given = torch.linspace(-1.0, 2.0, scores.numel(), dtype=scores.dtype).view_as(scores)
    return torch.autograd.grad((scores * given).sum(), leaves)


def leaves(*shapes: tuple[int, ...], kind: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(s, generator=generator, dtype=kind).requires_grad_() for s in shapes]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7, 5, 24), (1, 1, 1), (300, 3, 64), (0, 4, 8), (6, 0, 8)])
def test_as_einsum(shape, kind, monkeypatch):
    monkeypatch.setattr(module, "_WORTH", 4)  # two threads for most
    queries, vectors = leaves((shape[0], shape[2]), shape, kind=kind)
    assert takes(queries, vectors) == (kind == torch.float32)
    with on_threads(2):
        found = own_scores(queries, vectors)
        of = gradients(found, queries, vectors)
    wanted = torch.einsum("bd,bcd->bc", queries, vectors)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(of, gradients(wanted, queries, vectors), strict=True):
        torch.testing.assert_close(one, other)


def test_views_that_are_no_rows_of_memory():
    queries, vectors = leaves((24, 7), (5, 24, 7))
    views = queries.T, vectors.permute(2, 0, 1)
    of = gradients(own_scores(*views), queries, vectors)
    wanted = gradients(torch.einsum("bd,bcd->bc", *views), queries, vectors)
    for one, other in zip(of, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_gradient_that_is_one_number_everywhere():
    queries, vectors = leaves((4, 8), (4, 3, 8))
    own_scores(queries, vectors).sum().backward()
    torch.testing.assert_close(queries.grad, vectors.detach().sum(1))
    torch.testing.assert_close(vectors.grad, queries.detach()[:, None].expand(4, 3, 8))


@pytest.mark.parametrize("shapes", [((3, 8), (7, 5, 8)), ((7, 8), (7, 5, 9)), ((7, 8), (7, 8))])
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises((RuntimeError, IndexError)):
        own_scores(*leaves(*shapes))
