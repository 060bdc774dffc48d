"""Losses from vectors against the same losses over a matrix of scores."""

from __future__ import annotations

import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.training import exponentials, fused_softmax
from fastneg.training.corrections import CORRECTIONS, UnmaskedLogSumExp
from fastneg.training.exponentials import KnownCells
from fastneg.training.fused_softmax import Buffers, SharedLogSumExp, products_dtype
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from tests.training.inputs import on_threads

B, C, D = 37, 53, 9


def cells_of(mask_BC: torch.Tensor) -> KnownCells:
    counts_B = mask_BC.sum(1)
    starts = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
    return KnownCells(mask_BC.flatten().nonzero()[:, 0], starts)


def inputs(seed: int, dtype: torch.dtype, columns: int = C):
    generator = torch.Generator().manual_seed(seed)
    users_BD = torch.randn(B, D, generator=generator, dtype=dtype)
    items_CD = torch.randn(columns, D, generator=generator, dtype=dtype)
    mask_BC = torch.rand(B, columns, generator=generator) < 0.15
    mask_BC[4] = True  # a row with nothing left
    log_q_C = torch.randn(columns, generator=generator, dtype=dtype).log_softmax(0)
    weights_B = torch.rand(B, generator=generator, dtype=dtype)
    return users_BD.requires_grad_(), items_CD.requires_grad_(), mask_BC, log_q_C, weights_B


def both(users_BD, items_CD, mask_BC, log_q_C, weights_B, *, temperature, own, dtype):
    """((z, gradients) over the matrix, the same from the vectors)."""
    found = []
    for fused in (False, True):
        if fused:
            z_B = SharedLogSumExp.apply(
                users_BD, items_CD, log_q_C, cells_of(mask_BC), temperature, own, dtype, Buffers()
            )
        else:
            scores_BC = users_BD @ items_CD.T
            z_B = UnmaskedLogSumExp.apply(scores_BC, log_q_C, mask_BC, temperature, own)[0]
        some_B = z_B > -1e29  # a row with nothing left has no gradient in any loss
        gradients = torch.autograd.grad((z_B * weights_B)[some_B].sum(), (users_BD, items_CD))
        found.append((z_B.detach(), *gradients))
    return found


@pytest.mark.parametrize("block", [1, 1 << 30])
@pytest.mark.parametrize("temperature", [1.0, 0.02])  # the second asks for the rows' maxima
@pytest.mark.parametrize("log_q", ["none", "alike", "own"])
@pytest.mark.parametrize("own", [False, True])
def test_sums_and_gradients_are_those_of_the_matrix(monkeypatch, block, temperature, log_q, own):
    monkeypatch.setattr(fused_softmax, "_BLOCK", block)
    *vectors, mask_BC, log_q_C, weights_B = inputs(0, torch.float64, B + 11 if own else C)
    if log_q != "own":
        log_q_C = None if log_q == "none" else torch.full_like(log_q_C, -3.0)
    expected, found = both(
        *vectors, mask_BC, log_q_C, weights_B, temperature=temperature, own=own,
        dtype=torch.float64,
    )  # fmt: skip
    for left, right in zip(expected, found, strict=True):
        assert torch.allclose(left, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [1, 1 << 30])
def test_float32_agrees_to_six_digits(monkeypatch, block):
    monkeypatch.setattr(fused_softmax, "_BLOCK", block)
    *vectors, mask_BC, log_q_C, weights_B = inputs(1, torch.float32)
    expected, found = both(
        *vectors, mask_BC, log_q_C, weights_B, temperature=0.5, own=False, dtype=torch.float32
    )
    assert torch.allclose(expected[0], found[0], rtol=1e-6, atol=2e-6)
    for left, right in zip(expected[1:], found[1:], strict=True):
        assert (left - right).abs().max() < 2e-6 * left.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit_and_blocks_nothing_but_rounding(monkeypatch, dtype):
    *vectors, mask_BC, log_q_C, _ = inputs(6, torch.float32)
    found = []
    for threads, worth, block in ((1, 1, 1 << 30), (3, 1, 1 << 30), (3, 200, 1)):
        monkeypatch.setattr(exponentials, "_WORTH", worth)
        monkeypatch.setattr(fused_softmax, "_BLOCK", block)
        with on_threads(threads):
            found.append(
                SharedLogSumExp.apply(
                    *vectors, log_q_C, cells_of(mask_BC), 0.5, False, dtype, Buffers()
                )
            )
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], found[2], rtol=1e-6, atol=2e-6)  # other products


@pytest.mark.parametrize("block", [1, 1 << 30])
def test_bfloat16_agrees_to_its_rounding(monkeypatch, block):
    monkeypatch.setattr(fused_softmax, "_BLOCK", block)
    *vectors, mask_BC, log_q_C, weights_B = inputs(2, torch.float32)
    expected, found = both(
        *vectors, mask_BC, log_q_C, weights_B, temperature=1.0, own=False, dtype=torch.bfloat16
    )
    assert (expected[0] - found[0])[:4].abs().max() < 0.03
    for left, right in zip(expected[1:], found[1:], strict=True):
        assert right.dtype == torch.float32
        assert (left - right).abs().max() < 0.03 * left.abs().max()
        assert (left - right).abs().max() > 0.0  # 16-bit products were made


def test_scores_far_apart_do_not_overflow():
    *vectors, mask_BC, log_q_C, weights_B = inputs(3, torch.float32)
    expected, found = both(
        *vectors, mask_BC, log_q_C, weights_B, temperature=1e-3, own=False, dtype=torch.float32
    )
    for left, right in zip(expected, found, strict=True):
        assert right.isfinite().all()
        assert (left - right).abs().max() <= 1e-4 * left[left > -1e29].abs().max()


def test_a_buffer_is_used_again_only_after_backward():
    users_BD, items_CD, mask_BC, *_ = inputs(4, torch.float32)
    known, buffers = cells_of(mask_BC), Buffers()

    def sums(temperature):
        return SharedLogSumExp.apply(
            users_BD, items_CD, None, known, temperature, False, torch.float32, buffers
        )[:4].sum()

    expected = [torch.autograd.grad(sums(t), items_CD)[0] for t in (1.0, 2.0)]
    first, second = sums(1.0), sums(2.0)
    found = [torch.autograd.grad(one, items_CD)[0] for one in (first, second)]
    for left, right in zip(expected, found, strict=True):
        assert torch.equal(left, right)
    matrix = buffers.take(3, 5, torch.float32)
    buffers.give_back(matrix)
    again = buffers.take(B, C, torch.float32)
    assert again.data_ptr() == matrix.data_ptr()
    assert buffers.take(2, 2, torch.float32).data_ptr() != matrix.data_ptr()


@pytest.mark.parametrize("own", [False, True])
def test_columns_that_are_left(own):
    mask_BC = inputs(5, torch.float32)[2]
    mask_BC[4, 4] = False
    columns = mask_BC.shape[1] - own
    counted = ~mask_BC
    if own:
        counted.diagonal().fill_(False)
    left_B = cells_of(mask_BC).left(columns, own_column=own)
    assert left_B.tolist() == counted.sum(1).tolist()


def test_16_bit_products_are_for_large_batches(monkeypatch):
    for has_products, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(fused_softmax, "HAS_BFLOAT16", has_products)
        assert products_dtype("auto", 2048, 2048, torch.float32) == expected
        assert products_dtype("auto", 64, 2048, torch.float32) == torch.float32
        assert products_dtype("bfloat16", 2, 3, torch.float32) == torch.bfloat16
        assert products_dtype("float32", 2048, 2048, torch.float32) == torch.float32
        assert products_dtype("bfloat16", 2048, 2048, torch.float64) == torch.float64


LOSSES = {
    "shared": {"loss": "sampled_softmax", "shared": True, "num_negatives": 30},
    "popular": {
        "loss": "sampled_softmax", "shared": True, "num_negatives": 30, "sampler": "popularity",
    },
    "in_batch": {"loss": "in_batch"},
    "mixed": {"loss": "mixed", "num_uniform": 16},
    "bsl": {"loss": "bsl", "shared": True, "num_negatives": 30, "positive_temperature": 0.3},
}  # fmt: skip


@pytest.fixture(scope="module")
def train():
    return hold_out_validation(generate_dataset(60, 80, positives_per_user=16).interactions)[0]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_over_shared_columns_is_the_general_one(train, name, correction, similarity):
    # vectors of length 1 or so: the loss of tiny ones is a difference of equal numbers
    settings = Settings(
        dim=8, batch_size=64, device="cpu", init_std=8**-0.5, temperature=0.1, l2=1e-3,
        correction=correction, similarity=similarity, subsample_positives=0.02,
        subsample_weights=True,
        negative_weight=1.3 if similarity == "cosine" else 1.0, **LOSSES[name],
    )  # fmt: skip
    objective, model = Objective(train, settings), build_model(train, settings)
    assert objective._loss.fuses
    batch = next(iter(objective.batches))
    found = []
    for fuses in (True, False):
        objective._loss.fuses = fuses
        loss = objective.loss(model, batch)
        model.zero_grad()
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for ours, general in zip(*found, strict=True):
        assert (ours - general).abs().max() <= 2e-6 * general.abs().max()


def test_rows_with_mined_columns_take_the_general_path(train):
    settings = Settings(device="cpu", **LOSSES["shared"])
    lists = HardNegatives(torch.randint(0, 80, (60, 5)).numpy())
    assert not Objective(train, settings, hard=lists)._loss.fuses
    assert not Objective(train, settings.replace(shared=False))._loss.fuses
    assert not Objective(train, settings.replace(loss="hinge"))._loss.fuses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_is_seen(dtype):
    users_BD, items_CD, mask_BC, *_ = inputs(7, torch.float32)
    items_CD.data[3, 2] = torch.nan
    mask_BC[:, 3] = False
    mask_BC[5, 3] = True
    z_B = SharedLogSumExp.apply(
        users_BD, items_CD, None, cells_of(mask_BC), 0.5, False, dtype, Buffers()
    )
    assert z_B.isnan().tolist() == [b != 5 for b in range(B)]


def test_a_large_batch_is_worth_several_threads(monkeypatch):
    asked = []
    for name in ("_exponentiate", "_exponentiate_16"):
        monkeypatch.setattr(
            exponentials, name,
            lambda *arguments, start, stop, chunk: asked.append((stop - start) // chunk),
        )  # fmt: skip
    users_BD, items_CD = torch.randn(2048, 4), torch.randn(2048, 4)
    none = cells_of(torch.zeros(2048, 2048, dtype=torch.bool))
    for dtype in (torch.float32, torch.bfloat16):
        SharedLogSumExp.apply(users_BD, items_CD, None, none, 1.0, False, dtype, Buffers())
    assert min(asked) >= 16


def test_a_mask_that_is_another_batchs_is_refused():
    users_BD, items_CD, mask_BC, *_ = inputs(8, torch.float32)
    for known, own in ((cells_of(mask_BC[:-1]), False), (cells_of(mask_BC[:, :5]), True)):
        columns = items_CD[:5] if own else items_CD
        with pytest.raises(AssertionError):
            SharedLogSumExp.apply(
                users_BD, columns, None, known, 1.0, own, torch.float32, Buffers()
            )
