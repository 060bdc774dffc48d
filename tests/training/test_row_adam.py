"""Adam by rows against torch's AdamW over the whole table, step by step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fastneg.errors import FastnegError
from fastneg.training import row_adam
from fastneg.training.checkpoints import flatten_optimizer, restore_optimizer
from fastneg.training.row_adam import Clock, RowAdam, make_optimizer
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower
from tests.training.inputs import on_threads

N, D, RATE = 40, 6, 0.01


class Table(nn.Module):
    """An embedding whose rows are pulled to targets, and a dense parameter beside it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding(N, D)
        self.bias = nn.Parameter(torch.zeros(D))
        with torch.no_grad():
            self.embedding.weight.normal_(generator=generator)
        self.targets = torch.randn(N, D, generator=generator)

    def vectors(self, codes: torch.Tensor) -> torch.Tensor:
        table = getattr(self.embedding, "rows", None)
        if table is None:
            return functional.embedding(codes, self.embedding.weight)
        return table.lookup(codes) if self.training else table.read(codes)

    def loss(self, codes: torch.Tensor, scale: float) -> torch.Tensor:
        off = self.vectors(codes) + self.bias - self.targets[codes]
        return scale * off.square().sum()


def codes_of(step: int) -> torch.Tensor:
    """Few of the rows, some twice; 30 and up once in a long while, 38 once, 39 never."""
    generator = torch.Generator().manual_seed(step)
    often = torch.randint(0, 30, (8,), generator=generator)
    rare = torch.randint(30, 38, (1,), generator=generator)
    if step == 1:
        return torch.cat([often, torch.tensor([38])])
    return torch.cat([often, rare]) if step % 25 == 3 else often


def train(model: Table, optimizer: torch.optim.Optimizer, steps: range, scale: float) -> None:
    for step in steps:
        loss = model.loss(codes_of(step), scale * (1 + step % 3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def by_rows(model: Table, weight_decay: float = 0.0) -> RowAdam:
    return RowAdam(model, [model.embedding], lr=RATE, weight_decay=weight_decay)


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-9])
def test_every_row_is_where_adamw_puts_it(weight_decay: float, scale: float) -> None:
    """Gradients far above epsilon, near it, and below it."""
    dense, rows = Table(), Table()
    adamw = torch.optim.AdamW(dense.parameters(), lr=RATE, weight_decay=weight_decay)
    ours = by_rows(rows, weight_decay)
    start = dense.embedding.weight.detach().clone()
    for part in (range(1), range(1, 9), range(9, 700), range(700, 900)):
        train(dense, adamw, part, scale)
        train(rows, ours, part, scale)
        copies = rows.eval().vectors(torch.arange(N))
        rows.train()
        error = (copies - dense.embedding.weight).abs().max()
        moved = (dense.embedding.weight - start).abs().max()
        # in the first steps r_j changes much, which counts where epsilon does
        near = 0.01 if part.stop < 10 else 1e-3
        assert error < (1e-5 if scale == 1.0 else near) * moved + 1e-7
        assert torch.allclose(rows.bias, dense.bias, atol=2e-5)
    ours.settle()
    assert torch.equal(rows.embedding.weight, copies)
    if weight_decay == 0.0:
        assert torch.equal(rows.embedding.weight[39], start[39])


def test_rows_that_wait_go_on_moving() -> None:
    """The check of the check above: without what is made up for, the weights are others."""
    dense, rows = Table(), Table()
    adamw, ours = torch.optim.AdamW(dense.parameters(), lr=RATE), by_rows(rows)
    ours._tables[0]._bring = lambda *arguments: None  # type: ignore[method-assign]
    train(dense, adamw, range(60), 1.0)
    train(rows, ours, range(60), 1.0)
    error = (rows.embedding.weight - dense.embedding.weight).abs().max()
    assert error > 1e-2


def test_a_clock_set_forward_is_one_that_went_there() -> None:
    one, other = (Clock(0.01, (0.9, 0.999), 1e-8, 0.1) for _ in range(2))
    for _ in range(1_500):
        one.advance()
    other.restart(1_500)
    for name in ("distance", "spread", "kept", "powers"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_distances_are_the_sums_they_stand_for() -> None:
    clock = Clock(0.01, (0.9, 0.999), 1e-8, 0.05)
    clock.restart(1_300)
    for last in (0, 1, 7, 640, 701, 1_200, 1_299):
        t = np.arange(last + 1, 1_301, dtype=np.float64)
        left = (1 - 0.01 * 0.05) ** (1_300 - t)
        w = left * 0.01 * 0.9 ** (t - last) / (1 - 0.9**t)
        r = np.sqrt(0.999 ** (t - last) / (1 - 0.999**t))
        power = clock.powers[1_300 - last]
        assert clock.distance[last] * power == pytest.approx(w.sum(), rel=1e-9)
        assert clock.spread[last] == pytest.approx(w.sum() / (w / r).sum(), rel=1e-6)


def test_reading_changes_nothing_and_unknown_codes_are_zeros() -> None:
    model = Table()
    optimizer = by_rows(model)
    train(model, optimizer, range(20), 1.0)
    weight, state = model.embedding.weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
    codes = torch.tensor([[3, -1], [35, 3]])
    seen = model.eval().vectors(codes)
    assert seen.shape == (2, 2, D)
    assert torch.equal(seen[0, 1], torch.zeros(D))
    assert torch.equal(model.embedding.weight, weight)
    for key, entry in optimizer.state_dict()["state"][1].items():
        assert torch.equal(entry, state["state"][1][key])
    looked = model.train().vectors(codes)
    assert torch.equal(looked, seen)
    looked.sum().backward()
    optimizer.step()
    assert model.embedding.weight.grad is None


def test_the_same_bits_at_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_adam, "_ROWS", 64)
    found, seen = [], []
    for number in (1, 3):
        torch.manual_seed(0)
        embedding = nn.Embedding(5_000, 40)
        model = nn.Sequential(embedding)
        optimizer = RowAdam(model, [embedding], lr=RATE)
        with on_threads(number):
            for step in range(3):
                generator = torch.Generator().manual_seed(step)
                codes = torch.randint(0, 5_000, (4_000,), generator=generator)
                vectors = embedding.rows.lookup(codes)
                (vectors * torch.randn(vectors.shape, generator=generator)).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            rows = torch.arange(-1, 5_000)
            seen.append(embedding.rows.read(rows))
            optimizer.settle()
        found.append(embedding.weight.detach().clone())
        assert not seen[-1][0].any()
        assert torch.equal(seen[-1][1:], found[-1])
    assert torch.equal(*found)


@pytest.mark.parametrize("at", [1, 30])
def test_the_state_resumes_bit_for_bit(at: int) -> None:
    whole = Table()
    train(whole, by_rows(whole), range(60), 1.0)
    first = Table()
    optimizer = by_rows(first)
    train(first, optimizer, range(at), 1.0)
    tensors, facts = flatten_optimizer(optimizer)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    weights = copy.deepcopy(first.state_dict())
    train(first, optimizer, range(at, at + 3), 1.0)  # what a checkpoint holds stays as it was
    second = Table()
    optimizer = by_rows(second)
    second.load_state_dict(weights)
    restore_optimizer(optimizer, tensors, facts)
    assert optimizer._tables[0].reached.dtype == np.int64
    train(second, optimizer, range(at, 60), 1.0)
    assert torch.equal(second.embedding.weight, whole.embedding.weight)
    assert torch.equal(second.bias, whole.bias)


def test_gradients_are_dropped_by_zero_grad_and_used_once() -> None:
    model = Table()
    optimizer = by_rows(model)
    model.loss(codes_of(0), 1.0).backward()
    optimizer.zero_grad()
    before = model.embedding.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.embedding.weight, before)
    model.loss(codes_of(0), 1.0).backward()
    optimizer.step()
    assert not optimizer._tables[0]._read
    model.embedding.weight.sum().backward()
    with pytest.raises(FastnegError, match="read past its lookup"):
        optimizer.step()


def test_two_lookups_of_a_step_are_one_gradient() -> None:
    models = [Table(), Table()]
    optimizers = [by_rows(model) for model in models]
    codes = codes_of(4)
    for _ in range(3):
        for model, optimizer, parts in zip(models, optimizers, (1, 2), strict=True):
            optimizer.zero_grad()
            sum(model.loss(part, 1.0) for part in codes.chunk(parts)).backward()
            optimizer.step()
    assert torch.allclose(models[0].embedding.weight, models[1].embedding.weight, atol=1e-6)


def test_released_the_model_is_as_before() -> None:
    model = TwoTower(20, 30, dim=4)
    optimizer = make_optimizer(model, Settings(), torch.device("cpu"))
    assert optimizer._tables
    codes = torch.arange(5)
    for _ in range(4):
        (model.embed_users(codes) * model.embed_items(codes + 9)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        codes = codes + 1
    seen = model.item_vectors()
    optimizer.release()
    assert torch.equal(model.item_tower.id_embedding.weight, seen)
    assert not hasattr(model.item_tower.id_embedding, "rows")
    model.embed_items(codes).sum().backward()
    assert model.item_tower.id_embedding.weight.grad is not None


@pytest.mark.parametrize(
    ("changes", "device"),
    [({"row_updates": False}, "cpu"), ({"loss": "full_softmax"}, "cpu"), ({}, "meta")],
)
def test_where_rows_save_nothing_or_cannot_be_had(changes: dict, device: str) -> None:
    model = TwoTower(20, 30, dim=4)
    optimizer = make_optimizer(model, Settings(**changes), torch.device(device))
    assert not optimizer._tables
    model.embed_users(torch.arange(3)).sum().backward()
    before = model.user_tower.id_embedding.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.user_tower.id_embedding.weight, before)


def test_dropped_gradients_are_gone_where_all_moves_by_rows() -> None:
    model = nn.Module()
    model.embedding = nn.Embedding(5, 3)
    optimizer = RowAdam(model, [model.embedding], lr=RATE)
    rows = model.embedding.rows
    before = model.embedding.weight.detach().clone()
    rows.lookup(torch.arange(3)).sum().backward()
    model.embedding.weight.square().sum().backward()
    optimizer.zero_grad()
    assert model.embedding.weight.grad is None
    optimizer.step()
    assert torch.equal(model.embedding.weight, before)
    model.embedding.weight.square().sum().backward()
    with pytest.raises(FastnegError, match="past its lookup"):
        optimizer.step()


@pytest.mark.parametrize("by_rows_too", [False, True])
def test_weight_decay_leaves_alone_what_the_model_names(by_rows_too: bool) -> None:
    class Named(Table):
        @property
        def not_decayed(self) -> list[nn.Parameter]:
            return [self.bias]

    model, plain = Named(), Table()
    optimizer = RowAdam(model, [model.embedding] if by_rows_too else [], lr=RATE, weight_decay=0.5)
    twin = torch.optim.AdamW(
        [{"params": [plain.embedding.weight]}, {"params": [plain.bias], "weight_decay": 0.0}],
        lr=RATE, weight_decay=0.5,
    )  # fmt: skip
    for other in (model, plain):
        other.bias.data.fill_(0.7)
    train(model, optimizer, range(30), 1.0)
    train(plain, twin, range(30), 1.0)
    optimizer.settle()
    assert torch.allclose(model.bias, plain.bias, atol=1e-5)
    assert torch.allclose(model.embedding.weight, plain.embedding.weight, atol=1e-4)
    again = RowAdam(model, [model.embedding] if by_rows_too else [], lr=RATE, weight_decay=0.5)
    again.load_state_dict(optimizer.state_dict())
    assert [group["weight_decay"] for group in again.param_groups] == [0.5, 0.0]


def test_the_learnt_temperature_is_not_decayed() -> None:
    """Only its gradient moves it: without one it stays, whatever the weight decay."""
    model = TwoTower(6, 5, dim=4, temperature=0.1, temperature_bounds=(0.01, 10.0))
    settings = Settings(learning_rate=0.1, weight_decay=1.0, device="cpu")
    optimizer = make_optimizer(model, settings, torch.device("cpu"))
    before = model.user_tower.id_embedding.weight.detach().clone()
    for _ in range(10):
        optimizer.zero_grad()
        (0.0 * model.over_temperature(model.embed_users(torch.arange(6)))).sum().backward()
        optimizer.step()
    assert model.temperature == pytest.approx(0.1, rel=1e-6)
    optimizer.settle()
    assert float((model.user_tower.id_embedding.weight.detach() / before).max()) < 0.5


@pytest.mark.parametrize("codes", [[N], [-2], [0, 10**9], [2**62], [-(2**63)]])
@pytest.mark.parametrize("training", [True, False])
def test_codes_beyond_the_table_are_refused(codes: list[int], training: bool) -> None:
    model = Table()
    RowAdam(model, [model.embedding], lr=RATE)
    model.train(training)
    with pytest.raises(IndexError, match=f"an embedding of {N} rows has no row of such a code"):
        model.vectors(torch.tensor(codes))
    assert model.vectors(torch.tensor([[0, -1]])).shape == (1, 2, D)
