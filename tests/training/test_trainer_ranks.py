"""Training on several ranks: the loss, the gradients and the weights of one process."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

from fastneg.data.splits import hold_out_validation
from fastneg.data.synthetic import generate_dataset
from fastneg.errors import CheckpointError, FastnegError
from fastneg.interactions import Interactions
from fastneg.training import hard_negatives
from fastneg.training import trainer as trainer_module
from fastneg.training.checkpoints import load_checkpoint
from fastneg.training.distributed import ALONE, Ranks
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.negatives import Objective
from fastneg.training.progress import Interruption
from fastneg.training.rounds import build_model, train_rounds
from tests.training.ranks import here, on_ranks
from tests.training.test_trainer import (
    BASE,
    LOSSES,
    NOT_MINED,
    assert_same_weights,
    trained,
    weights,
)

IN_BATCH, MIXED, SHARED = LOSSES["in_batch"], LOSSES["mixed"], LOSSES["shared"]
HARD = {"num_hard": 2, "easy_to_hard": 5.0}
QUEUE = {"source": "queue", "size": 100, "warm_up": 1}
LISTED = {"loss": "sampled_softmax"}
CASES = {
    **LOSSES,
    **NOT_MINED,
    **{f"in_batch {c}": {**IN_BATCH, "correction": c} for c in ("both", "revised", "as_printed")},
    **{f"mixed {c}": {**MIXED, "correction": c} for c in ("both", "revised", "none")},
    **{f"shared {c}": {**SHARED, "correction": c} for c in ("both", "revised")},
    "in_batch l2": {**IN_BATCH, "l2": 0.1, "rewards": True},
    "mixed l2": {**MIXED, "l2": 0.1, "rewards": True},
    "full_softmax l2": {"loss": "full_softmax", "l2": 0.1, "rewards": True},
    "bsl_shared l2": {**LOSSES["bsl_shared"], "l2": 0.1, "rewards": True},
    "in_batch hard": {**IN_BATCH, **HARD, "l2": 0.1},
    "mixed hard": {**MIXED, **HARD},
    "shared hard": {**SHARED, **HARD},
    "bpr hard": {**LOSSES["bpr"], **HARD},
    "streaming": {**IN_BATCH, "item_frequency": "streaming", "frequency_prior": "none"},
    "subsampled": {**IN_BATCH, "subsample_positives": 0.01, "subsample_weights": True},
    "mlp": {**MIXED, "hidden_layers": 1},
    "list queue": {**LISTED, "negatives": ({"source": "in-batch"}, QUEUE)},
    "list dns": {"loss": "bpr", "l2": 0.1, "negatives": ({"source": "dns", "candidates": 4},)},
    "list hard": {**LISTED, "negatives": ({"source": "in-batch"}, {"source": "in-batch-hard"})},
}


def make_data():
    return hold_out_validation(generate_dataset(60, 80, positives_per_user=16, seed=1).interactions)


@pytest.fixture(scope="module")
def data():
    return make_data()


def with_weights(train: Interactions) -> Interactions:
    rewards = 0.5 + np.arange(train.num_rows) % 7
    return Interactions.from_codes(
        train.row_users, train.row_items, weights=rewards,
        num_users=train.num_users, num_items=train.num_items,
    )  # fmt: skip


def objective_of(data, name: str, ranks: Ranks, **changes) -> tuple[torch.nn.Module, Objective]:
    """A case of ``CASES``; the last batch has one row."""
    # vectors of length 1 or so: gradients of cosines of tiny ones, and their errors, are large
    settings = BASE.replace(**{"init_std": BASE.dim**-0.5, **CASES[name], **changes})
    train = with_weights(data[0]) if settings.rewards else data[0]
    rows = len(train.positive_rows)
    size = next(size for size in range(120, rows) if rows % size == 1)
    settings = settings.replace(batch_size=size)
    hard = None
    if name.endswith(" hard") and not settings.negatives:
        hard = HardNegatives((np.arange(60)[:, None] + np.arange(6)) % 80)
    model = build_model(train, settings)
    return model, Objective(train, settings, hard=hard, ranks=ranks)


def losses_and_gradients(data, name: str, ranks: Ranks, *, double: bool = False, **changes):
    """Of every batch of an epoch: the loss, and the gradient of every parameter."""
    model, objective = objective_of(data, name, ranks, **changes)
    if double:
        model = model.double()
    found = []
    for batch in objective.batches:
        model.zero_grad(set_to_none=True)
        loss = objective.loss(model, batch)
        loss.backward()
        ranks.sum_gradients(model.parameters())
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        found.append((ranks.sum(loss.detach()).clone(), gradients))
    return found


def assert_close(left, right, tolerance: float) -> None:
    assert len(left) == len(right) > 2
    for (loss, gradients), (expected, others) in zip(left, right, strict=True):
        assert abs(float(loss) - float(expected)) <= tolerance * max(1.0, abs(float(expected)))
        for one, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_one_process(data, name):
    double = "list" not in name  # a queue keeps its vectors in float32
    expected = losses_and_gradients(data, name, ALONE, double=double)
    tolerance = 1e-9 if double else 1e-6
    for found in on_ranks(3, lambda ranks: losses_and_gradients(data, name, ranks, double=double)):
        assert_close(found, expected, tolerance)


@pytest.mark.parametrize("name", ["in_batch l2", "mixed", "mixed both", "per_row", "list dns"])
def test_without_gathering_the_loss_is_that_of_the_slices(data, name):
    def slices(ranks):
        model, objective = objective_of(data, name, ranks, gather_negatives=False)
        return [(batch, float(ranks.sum(objective.loss(model, batch).detach())))
                for batch in objective.batches]  # fmt: skip

    model, alone = objective_of(data, name, ALONE)
    batches = list(zip(*on_ranks(3, slices), strict=True))
    for parts in batches:
        expected = 0.0
        for batch, _ in parts:
            if len(batch.users):
                own = batch._replace(every=None, share=1.0)
                expected += batch.share * float(alone.loss(model, own).detach())
        assert parts[0][1] == pytest.approx(expected, abs=1e-5)
    together = float(losses_and_gradients(data, name, ALONE)[0][0])
    own = name in ("per_row", "list dns")  # columns of each row's own: slices change nothing
    assert (abs(batches[0][0][1] - together) < 1e-5) == own


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("name", ["mixed hard", "per_row", "subsampled", "mixed l2"])
def test_rows_and_negatives_do_not_depend_on_the_number_of_ranks(data, name, size):
    _, alone = objective_of(data, name, ALONE)
    ranks = [objective_of(data, name, Ranks(rank, size))[1] for rank in range(size)]
    for batch, *parts in zip(alone.batches, *(one.batches for one in ranks), strict=True):
        for part in parts:
            assert torch.equal(part.every, batch.items)
            if batch.shared is not None:
                assert torch.equal(part.shared.items, batch.shared.items)
        for field in ("users", "items", "rows", "weights"):
            if getattr(batch, field) is not None:
                joined = torch.cat([getattr(part, field) for part in parts])
                assert torch.equal(joined, getattr(batch, field))
        if batch.negatives is not None:
            for number, whole in enumerate(batch.negatives):
                cut = [part.negatives[number] for part in parts]
                if whole is None:  # log Q, where the loss has no use for it
                    assert cut == [None] * size
                else:
                    assert torch.equal(torch.cat(cut), whole)
        assert sum(part.share for part in parts) == pytest.approx(1.0)
        assert min(len(part.users) for part in parts) >= len(batch.users) // size


# Whole runs --------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch):
    """Trainers find the ranks of their thread; Ctrl-C can be pressed on one of them."""
    local = threading.local()

    class Pressed(Interruption):
        def __init__(self) -> None:
            super().__init__()
            local.stop = self

    monkeypatch.setattr(trainer_module, "Interruption", Pressed)
    monkeypatch.setattr(Ranks, "here", here)
    return local


RUN = BASE.replace(checkpoint_every=3, **LOSSES["mixed"])


def run(data, settings, *, resume=False, **arguments):
    model, trainer = trained(data, settings, **arguments)
    return weights(model), trainer.fit(resume=resume), trainer


def test_a_run_has_the_weights_and_the_metrics_of_one_process(data, threads, tmp_path):
    expected, alone, _ = run(data, RUN)
    path, log = tmp_path / "state.safetensors", tmp_path / "metrics.jsonl"
    (first, one, _), (second, other, _) = on_ranks(
        2, lambda _: run(data, RUN, checkpoint=path, log=log)
    )
    assert_same_weights(first, second)
    for name, tensor in expected.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-5, atol=1e-6)
    assert one.metrics == other.metrics
    assert one.epoch == other.epoch == alone.epoch
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line, own in zip(lines, alone.history, strict=True):
        assert line["loss"] == pytest.approx(own["loss"], abs=1e-6)
        assert line["validation"] == pytest.approx(own["validation"], abs=1e-6)


@pytest.mark.parametrize("name", ["streaming", "bpr hard", "list queue"])
def test_the_number_of_ranks_may_change_at_a_resumption(data, threads, name, tmp_path):
    settings = BASE.replace(epochs=2, checkpoint_every=3, **CASES[name])
    hard = None
    if name.endswith("hard"):
        hard = HardNegatives((np.arange(60)[:, None] + np.arange(6)) % 80)

    class Stopped(Exception):
        pass

    def stop(step: int) -> None:
        if step == 20:
            raise Stopped

    expected = run(data, settings, hard=hard)
    undisturbed = on_ranks(2, lambda _: run(data, settings, hard=hard))[0]
    for size in (1, 2, 3):
        path = tmp_path / f"{size}.safetensors"
        arguments = {"hard": hard, "checkpoint": path}
        with pytest.raises(Stopped):
            on_ranks(2, lambda _: run(data, settings, on_step=stop, **arguments))  # noqa: B023
        assert load_checkpoint(path).facts["step"] == 18
        resumed = on_ranks(size, lambda _: run(data, settings, resume=True, **arguments))[0]  # noqa: B023
        if size == 2:
            assert_same_weights(resumed[0], undisturbed[0])
            assert [{**line, "seconds": 0} for line in resumed[1].history] == [
                {**line, "seconds": 0} for line in undisturbed[1].history
            ]
        for key, tensor in expected[0].items():
            torch.testing.assert_close(resumed[0][key], tensor, rtol=1e-4, atol=1e-5)
        if name == "bpr hard":
            counts = [line["negatives"] for line in expected[1].history]
            assert [line["negatives"] for line in resumed[1].history] == counts


def test_ranks_stop_early_together(data, threads):
    settings = BASE.replace(epochs=40, patience=1, learning_rate=0.1, **LOSSES["bpr"])
    _, alone, _ = run(data, settings)
    results = on_ranks(3, lambda _: run(data, settings)[1])
    assert {one.epochs_run for one in results} == {alone.epochs_run}
    assert {one.epoch for one in results} == {alone.epoch}
    assert alone.epochs_run < 40


def test_ctrl_c_on_one_rank_stops_all_at_the_same_step(data, threads, tmp_path):
    steps: dict[int, int] = {}
    path = tmp_path / "state.safetensors"

    def work(ranks):
        def press(step: int) -> None:
            steps[ranks.rank] = step
            if step == 7 and ranks.rank == 1:
                threads.stop.asked = True

        with pytest.raises(KeyboardInterrupt):
            run(data, RUN.replace(checkpoint_every=0), checkpoint=path, on_step=press)

    on_ranks(2, work)
    assert steps == {0: 7, 1: 7}
    assert load_checkpoint(path).facts["step"] == 7


@pytest.mark.parametrize("changes", [{}, {"refresh_every": 9, "refresh_lag": 4},
                                     {"refresh_every": 9, "refresh_background": True}])  # fmt: skip
def test_rounds_mine_once_and_train_on_the_same_lists(
    data, threads, changes, tmp_path, monkeypatch
):
    mined = []
    original = hard_negatives.mine_to_folder
    monkeypatch.setattr(
        hard_negatives, "mine_to_folder", lambda *a, **k: (mined.append(1), original(*a, **k))[1]
    )
    settings = BASE.replace(
        epochs=2, rounds=2, window=(3, 12), num_mined=5, easy_to_hard=1.0, keep_round="last",
        checkpoint_every=5, **LOSSES["bpr"], **changes,
    )  # fmt: skip

    def rounds(folder):
        result = train_rounds(data[0], settings, validation=data[1], folder=folder)
        return weights(result.model), result.rounds[1]

    expected, alone = rounds(tmp_path / "one")
    once = len(mined)
    (first, one), (second, other) = on_ranks(2, lambda _: rounds(tmp_path / "two"))
    assert_same_weights(first, second)
    for name, tensor in expected.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-5)
    assert len(mined) == 2 * once
    assert one.mined["num_queries"] == other.mined["num_queries"] == alone.mined["num_queries"]
    assert one.fit.refresh.get("refreshes") == alone.fit.refresh.get("refreshes")
    left = [path.name for path in (tmp_path / "two").iterdir()]
    assert sorted(left) == sorted(path.name for path in (tmp_path / "one").iterdir())


def test_dropout_resumes_bit_for_bit_on_as_many_ranks(data, threads, tmp_path):
    """Threads share torch's random state, so that one of two is looked at: whole batches of one."""
    _, trainer = trained(data, BASE.replace(hidden_layers=1, dropout=0.3))
    trainer.ranks = Ranks(1, 2)
    words = []
    for step in (4, 5, 4):
        trainer.state.step = step
        trainer._seed_dropout()
        words.append(torch.rand(3))
    assert torch.equal(words[0], words[2])
    assert not torch.equal(words[0], words[1])
    trainer.ranks = Ranks(0, 2)
    trainer._seed_dropout()
    assert not torch.equal(torch.rand(3), words[0])


# Bad inputs --------------------------------------------------------------------------------


def test_what_several_ranks_cannot_do(data, threads, tmp_path):
    settings = BASE.replace(gather_negatives=False, **CASES["list queue"])
    with pytest.raises(FastnegError, match="a source 'queue' goes with gather_negatives = true"):
        on_ranks(2, lambda _: trained(data, settings))
    refreshed = BASE.replace(
        refresh_every=9, refresh_background=True, swap="when_ready", window=(3, 30),
        **LOSSES["bpr"],
    )  # fmt: skip
    lists = HardNegatives((np.arange(60)[:, None] + np.arange(6)) % 80)
    with pytest.raises(FastnegError, match="2 ranks change their lists at the same step"):
        on_ranks(2, lambda _: trained(data, refreshed, hard=lists))
    path = tmp_path / "state.safetensors"
    settings = BASE.replace(epochs=1, gather_negatives=False, **LOSSES["mixed"])
    on_ranks(2, lambda _: run(data, settings, checkpoint=path))
    with pytest.raises(CheckpointError, match="other numbers of ranks, which gather_negatives"):
        run(data, settings, checkpoint=path, resume=True)
