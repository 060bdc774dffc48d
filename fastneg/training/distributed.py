"""More than one process: a rank's place among those that train together, and what they exchange.

``torchrun`` starts R processes of one program. All hold the whole model and go through the same
batches; rank r takes its slice of each batch's rows, and the sum over ranks of losses and gradients
is the batch's. Gradients are summed here, in one place, and not by DistributedDataParallel: its
hooks wait for a call of the module, while the losses call the towers.

The first rank alone writes files, shows progress, evaluates and mines; the others get its results.

Shapes: X rows of all ranks, D width.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed

from fastneg.errors import FastnegError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# a rank that fails is seen at once; one that waits may wait for a long mining job
_TIMEOUT = timedelta(days=2)
_LARGE = 1 << 16  # numbers of a gradient that is exchanged by itself, not in one with others


class Ranks:
    """The processes that train together, seen from one of them; ``Ranks()`` is one alone.

    What is exchanged is exchanged by all ranks, in the same order.

    Args:
        rank: of this process, 0 to size - 1.
        size: R.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def here(cls) -> Ranks:
        """Those of torch's process group; torchrun's, which is joined, where there is none yet.

        Raises:
            FastnegError: torchrun's variables make no group.
        """
        if not distributed.is_available():
            return cls()
        if not distributed.is_initialized():
            if any(not os.environ.get(name) for name in _VARIABLES):
                return cls()
            if os.environ["WORLD_SIZE"] == "1":
                return cls()
            # The group that there is when this is imported becomes a default argument of its
            # functions. AdamW imports it: after the group was made, they would hold it for ever,
            # and gloo's threads outlive ``leave`` and meet an interpreter that is taken down.
            importlib.import_module("torch.distributed.nn.functional")
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            try:
                distributed.init_process_group(backend, timeout=_TIMEOUT)
            except (ValueError, RuntimeError) as error:
                given = ", ".join(f"{name}={os.environ[name]}" for name in _VARIABLES)
                raise FastnegError(f"no process group of {given}: {error}") from error
            global _joined
            _joined = True
            atexit.register(leave)  # of programs that do not call it
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes, evaluates and mines."""
        return self.rank == 0

    def bounds(self, total: int, rank: int | None = None) -> tuple[int, int]:
        """Where a rank's slice of ``total`` rows starts and ends; sizes differ by one at most."""
        rank = self.rank if rank is None else rank
        return total * rank // self.size, total * (rank + 1) // self.size

    # What is exchanged ------------------------------------------------------------------------

    def gather(self, part_XD: Tensor, total: int) -> Tensor:
        """The rows of all ranks in order, with gradient.

        The gradient of a rank's part is the sum over ranks of what each wants of it: right for a
        loss that is the sum of the ranks' losses.

        Args:
            part_XD: float [slice, D], this rank's ``bounds`` of the rows.
            total: rows of all ranks.

        Returns:
            float [total, D].
        """
        if self.size == 1:
            return part_XD
        whole_XD: Tensor = _Gather.apply(part_XD, self, total)  # type: ignore[no-untyped-call]
        return whole_XD

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, without gradient."""
        if self.size == 1:
            return tensor
        result = tensor.detach().clone()
        self._all_reduce(result)
        return result

    def any(self, flag: bool) -> bool:
        """Whether it is true on any rank; nobody goes on before all have asked."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(int(flag))))

    def from_first(self, value: Any) -> Any:
        """The first rank's value, JSON-able; the others' is not looked at."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_first else b""
        codes = self.array_from_first(np.frombuffer(text, dtype=np.uint8).astype(np.int64)[None])
        return json.loads(codes.astype(np.uint8).tobytes().decode())

    def array_from_first(self, array: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
        """The first rank's matrix of int64; the others' is not looked at."""
        mine = np.empty((0, 0), np.int64) if array is None else array
        if self.size == 1:
            return mine
        shape = torch.tensor(mine.shape)
        self._broadcast(shape)
        values = torch.from_numpy(mine.copy())
        if not self.is_first:
            values = torch.empty(shape.tolist(), dtype=torch.int64)
        if values.numel():
            self._broadcast(values)
        return values.numpy()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Make every parameter's gradient the sum over ranks, the same bits on all of them.

        None counts as 0, and stays None where it is None on all ranks. Sparse gradients stay
        sparse: the ranks' rows are joined, and equal ones added.
        """
        if self.size == 1:
            return
        wanted = [one for one in parameters if one.requires_grad]
        present = torch.tensor([[one.grad is not None, _is_sparse(one.grad)] for one in wanted])
        anywhere = self.sum(present.long()).tolist()
        small: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for one, (some, sparse) in zip(wanted, anywhere, strict=True):
            if not some:
                continue
            if sparse:
                one.grad = self._sum_of_rows(one)
                continue
            one.grad = torch.zeros_like(one) if one.grad is None else one.grad.contiguous()
            if one.grad.numel() >= _LARGE:
                self._all_reduce(one.grad)
            else:
                small.setdefault((one.dtype, one.device), []).append(one.grad)
        for gradients in small.values():
            together = torch.cat([gradient.flatten() for gradient in gradients])
            self._all_reduce(together)
            parts = torch.split(together, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def _sum_of_rows(self, parameter: Tensor) -> Tensor:
        """The sum of a parameter's sparse gradients over all ranks, sparse too."""
        width = parameter.shape[1]
        rows, values = parameter.new_empty(0, dtype=torch.int64), parameter.new_empty(0, width)
        if parameter.grad is not None:
            gradient = parameter.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        counts = [int(one) for one in self._all_gather(torch.tensor([len(rows)]))]
        padding = max(counts) - len(rows)
        rows = torch.cat([rows, rows.new_zeros(padding)])
        values = torch.cat([values, values.new_zeros(padding, width)])
        all_rows = zip(self._all_gather(rows), counts, strict=True)
        all_values = zip(self._all_gather(values), counts, strict=True)
        return torch.sparse_coo_tensor(
            torch.cat([one[:count] for one, count in all_rows])[None],
            torch.cat([one[:count] for one, count in all_values]),
            parameter.shape,
            check_invariants=False,
        ).coalesce()

    # The ways of torch, of tensors of one shape -------------------------------------------------

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(parts, tensor.contiguous())
        return parts

    def _all_reduce(self, tensor: Tensor) -> None:
        distributed.all_reduce(tensor)

    def _broadcast(self, tensor: Tensor) -> None:
        distributed.broadcast(tensor, 0)


ALONE = Ranks()
_joined = False  # whether the process group is one that ``Ranks.here`` joined


def leave() -> None:
    """Leave the process group that ``Ranks.here`` joined, if it did: the end of a program.

    All exchanges are over where this is called, and gloo's threads have ended when it returns: one
    that still drops the last tensors while the interpreter is taken down aborts the process. The
    command line calls it; a program of one's own does before it ends. Training afterwards in the
    same process is not possible under torchrun, whose store knows the group's old addresses.
    """
    global _joined
    if _joined and distributed.is_initialized():
        distributed.destroy_process_group()
    _joined = False


class _Gather(torch.autograd.Function):
    """All ranks' rows, in order; the way back sums what all ranks want of this rank's."""

    @staticmethod
    def forward(ctx: Any, part_XD: Tensor, ranks: Ranks, total: int) -> Tensor:
        """The rows of all ranks, float [total, D]."""
        bounds = [ranks.bounds(total, rank) for rank in range(ranks.size)]
        sizes = [last - first for first, last in bounds]
        ctx.ranks, ctx.bounds = ranks, bounds[ranks.rank]
        padded_XD = part_XD.new_zeros(max(sizes), *part_XD.shape[1:])
        padded_XD[: len(part_XD)] = part_XD
        parts = zip(ranks._all_gather(padded_XD), sizes, strict=True)
        return torch.cat([one[:size] for one, size in parts])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """This rank's rows of the sum over ranks."""
        first, last = ctx.bounds
        return ctx.ranks.sum(gradients[0].contiguous())[first:last], None, None


def _is_sparse(gradient: Tensor | None) -> bool:
    return gradient is not None and gradient.is_sparse


def pick_device(name: str) -> torch.device:
    """``"auto"`` is CUDA where there is one, else the CPU; CUDA is each rank's own.

    Raises:
        FastnegError: a device that this machine or build of torch does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and Ranks.here().size > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FastnegError(f"device = {name!r} cannot be used here: {reason}") from error
    return torch.device(name)
