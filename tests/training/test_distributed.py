"""What ranks exchange: against the same in one process; real processes in the last test."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastneg.commands.flags import leaving_ranks
from fastneg.training import distributed
from fastneg.training.distributed import ALONE, Ranks
from tests.training.ranks import on_ranks
from tests.training.test_trainer_ranks import assert_close, losses_and_gradients, make_data


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 2, 6, 7, 100])
def test_slices_are_all_rows_in_order_and_of_like_sizes(size, total):
    bounds = [Ranks(rank, size).bounds(total) for rank in range(size)]
    assert [row for first, last in bounds for row in range(first, last)] == list(range(total))
    sizes = [last - first for first, last in bounds]
    assert max(sizes) - min(sizes) <= 1
    assert bounds == [Ranks(0, size).bounds(total, rank) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("total", [2, 7])
def test_gathering_has_the_gradient_of_the_sum_of_losses(size, total):
    whole = torch.randn(total, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.randn(size, total, 3, generator=torch.Generator().manual_seed(2)).double()

    def work(ranks):
        first, last = ranks.bounds(total)
        part = whole[first:last].clone().requires_grad_()
        gathered = ranks.gather(part, total)
        (gathered.square() * wanted[ranks.rank]).sum().backward()
        return gathered.detach(), part.grad

    results = on_ranks(size, work)
    one = whole.clone().requires_grad_()
    (one.square() * wanted.sum(0)).sum().backward()
    for gathered, _ in results:
        assert torch.equal(gathered, whole)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results]), one.grad)


def gradients(rank: int) -> list[torch.Tensor | None]:
    """Of a small, a large, a sparse parameter; one that the first rank lacks, one that all lack."""
    draw = torch.Generator().manual_seed(rank)
    rows = torch.tensor([[1, 3, 1], [4, 1, 0], [2, 2, 2]][rank][: 3 - rank])
    values = torch.randn(len(rows), 2, generator=draw)
    return [
        torch.randn(3, 2, generator=draw),
        torch.randn(400, 300, generator=draw),
        torch.sparse_coo_tensor(rows[None], values, (5, 2), check_invariants=True),
        None if rank == 0 else torch.randn(4, generator=draw),
        None,
        torch.randn(2, 3, generator=draw).T,
    ]


def parameters_of(rank: int) -> list[torch.nn.Parameter]:
    parameters = []
    for gradient, shape in zip(
        gradients(rank), [(3, 2), (400, 300), (5, 2), (4,), (4,), (3, 2)], strict=True
    ):
        parameter = torch.nn.Parameter(torch.zeros(shape))
        parameter.grad = gradient
        parameters.append(parameter)
    return [*parameters, torch.nn.Parameter(torch.zeros(2), requires_grad=False)]


def assert_summed(parameters, size: int) -> None:
    each = [gradients(rank) for rank in range(size)]
    for number, parameter in enumerate(parameters[:-1]):
        present = [one[number] for one in each if one[number] is not None]
        if not present:
            assert parameter.grad is None
            continue
        assert parameter.grad.is_sparse == present[0].is_sparse
        expected = sum(one.to_dense() for one in present)
        torch.testing.assert_close(parameter.grad.to_dense(), expected)
    assert parameters[-1].grad is None


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_are_summed(size):
    def work(ranks):
        parameters = parameters_of(ranks.rank)
        ranks.sum_gradients(parameters)
        return parameters

    results = on_ranks(size, work)
    for parameters in results:
        assert_summed(parameters, size)
    for one, other in zip(results[0], results[-1], strict=True):
        if one.grad is not None:  # the same bits, so that the ranks' weights stay alike
            assert torch.equal(one.grad.to_dense(), other.grad.to_dense())


def test_what_the_first_rank_says():
    facts = {"ndcg": 0.1 + 0.2, "name": "é", "none": None, "counts": [1, 2**60]}
    lists = np.arange(6).reshape(3, 2) * 2**40

    def work(ranks):
        mine = (facts, lists) if ranks.is_first else (None, None)
        flags = [ranks.any(ranks.rank == 1), ranks.any(False)]
        empty = ranks.array_from_first(lists[:, :0] if ranks.is_first else None)
        return ranks.from_first(mine[0]), ranks.array_from_first(mine[1]), empty, flags

    for said, array, empty, flags in on_ranks(3, work):
        assert said == facts
        np.testing.assert_array_equal(array, lists)
        assert empty.shape == (3, 0)
        assert flags == [True, False]


def test_one_alone_exchanges_nothing():
    tensor = torch.ones(2, 3, requires_grad=True)
    assert ALONE.gather(tensor, 2) is tensor
    assert ALONE.sum(tensor) is tensor
    assert ALONE.from_first(value := object()) is value
    assert ALONE.any(True)
    assert not ALONE.any(False)
    parameters = parameters_of(0)
    ALONE.sum_gradients(parameters)
    assert parameters[0].grad is not None
    assert parameters[3].grad is None


def test_without_torchrun_one_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (Ranks.here().rank, Ranks.here().size, Ranks.here().is_first) == (0, 1, True)
    monkeypatch.setenv("WORLD_SIZE", "2")  # a batch system's, without the rest
    assert Ranks.here().size == 1
    values = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert Ranks.here().size == 1


# Processes ---------------------------------------------------------------------------------


# of the cases of test_trainer_ranks, one of each way to gather
GLOO = ("in_batch", "mixed l2", "shared hard", "per_row", "bsl_shared l2", "full_softmax", "mlp",
        "streaming", "list queue")  # fmt: skip


def process(rank: int, folder: Path) -> None:
    """One of two ranks of a gloo group."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    ranks = Ranks.here()
    assert (ranks.rank, ranks.size) == (rank, 2)
    parameters = parameters_of(rank)
    ranks.sum_gradients(parameters)
    assert_summed(parameters, 2)
    array = ranks.array_from_first(np.arange(6).reshape(2, 3) if ranks.is_first else None)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert ranks.from_first({"a": [1.5]} if ranks.is_first else None) == {"a": [1.5]}
    assert ranks.any(rank == 1)
    data = make_data()
    torch.save({name: losses_and_gradients(data, name, ranks) for name in GLOO},
               folder / f"{rank}.pt")  # fmt: skip
    torch.distributed.destroy_process_group()


def test_two_gloo_processes_give_the_loss_and_gradients_of_one(tmp_path):
    data = make_data()
    # before the fork, so that the kernels are there
    expected = {name: losses_and_gradients(data, name, ALONE) for name in GLOO}
    # a fork is quick, but autograd cannot be forked where it has threads for GPUs
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    running = [context.Process(target=process, args=(rank, tmp_path)) for rank in range(2)]
    for one in running:
        one.start()
    for one in running:
        one.join(timeout=120)
        one.kill()
    assert [one.exitcode for one in running] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in GLOO:
        for one in found:
            assert_close(one[name], expected[name], 1e-6)
        for (_, one), (_, other) in zip(found[0][name], found[1][name], strict=True):
            assert all(map(torch.equal, one, other))


_LEAVES = """
import os, sys, torch
from fastneg.training.distributed import Ranks, leave

def gloo():
    names = (open(f"/proc/self/task/{one}/comm").read() for one in os.listdir("/proc/self/task"))
    return sum("gloo" in name for name in names)

ranks = Ranks.here()
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.AdamW([weight])  # imports what would hold the group
weight.sum().backward()
ranks.sum_gradients([weight])
optimizer.step()
during = gloo()
leave()
leave()  # nothing is left to leave
print("threads", during > 0, gloo())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads in /proc")
def test_no_thread_of_gloo_outlives_the_group(tmp_path):
    """One that drops the last tensors while the interpreter ends would abort the process."""
    script = tmp_path / "leaves.py"
    script.write_text(_LEAVES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr",
         "127.0.0.1", "--nproc-per-node", "2", str(script)],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("threads True 0") == 2, done.stdout


def test_the_command_line_leaves_the_group_before_it_ends(monkeypatch):
    left = []
    monkeypatch.setattr(distributed, "leave", lambda: left.append(True))
    assert leaving_ranks(lambda: 3) == 3

    def fails() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leaving_ranks(fails)
    assert left == [True, True]
