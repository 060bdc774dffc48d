"""A queue of the item vectors of former batches: more negatives for no more item tower.

Wang et al. 2021 (Cross-batch negative sampling for training two-tower recommenders): vectors move
slowly once training is under way, so those of the last batches serve as negatives as they are,
without gradient, with the log Q that they were served under. The queue is used after a warm-up.

Shapes: B entries put in, S places, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastneg.checks import as_integer
from fastneg.training.loss_checks import check_matrix, check_vector


class ItemQueue:
    """The last S items that were put in: codes, vectors and log Q; first in, first out.

    Args:
        size: S.
        dim: D.
        warm_up: calls of ``put`` before ``ready``.
        device: of the vectors and log Q.

    Attributes:
        state: all of it as tensors, changed in place: ``items`` int64 [S] and ``counts`` int64 [3]
            (entries, next place, calls of ``put``) on the CPU, ``vectors`` float32 [S, D],
            ``log_q`` float32 [S].
    """

    def __init__(
        self, size: int, dim: int, *, warm_up: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        call = "ItemQueue"
        self.size = as_integer(size, call=call, name="size", minimum=1)
        self.warm_up = as_integer(warm_up, call=call, name="warm_up", minimum=0)
        width = as_integer(dim, call=call, name="dim", minimum=1)
        self.state: dict[str, Tensor] = {
            "items": torch.zeros(self.size, dtype=torch.int64),
            "vectors": torch.zeros(self.size, width, device=device),
            "log_q": torch.zeros(self.size, device=device),
            "counts": torch.zeros(3, dtype=torch.int64),
        }

    def __len__(self) -> int:
        """Entries, at most S."""
        return int(self.state["counts"][0])

    @property
    def ready(self) -> bool:
        """Whether the warm-up is over and there is an entry."""
        return len(self) > 0 and int(self.state["counts"][2]) >= self.warm_up

    @property
    def items(self) -> Tensor:
        """int64 [entries] on the CPU; entries stand by place, not by age."""
        return self.state["items"][: len(self)]

    @property
    def vectors(self) -> Tensor:
        """float32 [entries, D], without gradient."""
        return self.state["vectors"][: len(self)]

    @property
    def log_q(self) -> Tensor:
        """float32 [entries]."""
        return self.state["log_q"][: len(self)]

    def put(self, items_B: Tensor, vectors_BD: Tensor, log_q_B: Tensor) -> None:
        """Put a batch in; the oldest entries leave.

        Args:
            items_B: int64 [B], codes on the CPU.
            vectors_BD: float [B, D]; copied, without gradient.
            log_q_B: float [B].

        Raises:
            FastnegError: for shapes that do not fit.
        """
        rows, width = check_matrix("ItemQueue.put", "vectors_BD", vectors_BD)
        check_vector("ItemQueue.put", "items_B", items_B, rows)
        check_vector("ItemQueue.put", "log_q_B", log_q_B, rows)
        if width != self.state["vectors"].shape[1]:
            check_vector("ItemQueue.put", "a vector", vectors_BD[0], self.state["vectors"].shape[1])
        rows = min(rows, self.size)  # of a larger batch the last ones
        counts = self.state["counts"]
        places = (int(counts[1]) + torch.arange(rows)) % self.size
        self.state["items"][places] = items_B[-rows:]
        there = places.to(self.state["vectors"].device)
        self.state["vectors"][there] = vectors_BD[-rows:].detach().float()
        self.state["log_q"][there] = log_q_B[-rows:].detach().float()
        counts[0] = min(len(self) + rows, self.size)
        counts[1] = (int(counts[1]) + rows) % self.size
        counts[2] += 1
