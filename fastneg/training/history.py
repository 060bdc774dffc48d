"""The mean of a user's history as a part of the query tower, the target left out of it.

While training, the positive that a row is to find must not stand in the mean that it is found
with. The sums over a batch's distinct users are taken once, whatever the number of their rows, and
each row's target is subtracted:

    mean(u, i) = (sum of e_j over u's history - [i in u's history] e_i) / (what is left of it)

The bag of Covington et al. 2016 ("Deep neural networks for YouTube recommendations", section 3.1),
and CBOW's mean of Mikolov et al. 2013.

Shapes: B rows, S distinct users among them, P pairs of all histories, D width, U users, N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastneg import checks
from fastneg.checks import IntArray
from fastneg.interactions import Interactions
from fastneg.positives import transpose
from fastneg.streams import key_of, permutation, stream_of
from fastneg.training.feature_encoders import unfilled


@dataclass(frozen=True)
class UserHistory:
    """The items of each user's history: ``items[indptr[u]:indptr[u + 1]]``, distinct, ascending.

    Attributes:
        indptr: int64 [U + 1].
        items: int64 [P].
    """

    indptr: IntArray
    items: IntArray

    @classmethod
    def of(cls, train: Interactions, *, length: int | None = None, seed: int = 0) -> UserHistory:
        """Each user's distinct positives; at most ``length`` of them.

        Those are the latest where there are times (of one time, higher codes first), else as many
        that the seed decides. It is taken of what a model is trained on, so a mean never knows
        a validation or test positive.

        Raises:
            FastnegError: a length below 1.
        """
        indptr, items = train.positive_indptr, train.positive_items
        if length is None:
            return cls(indptr, items)
        length = checks.as_integer(length, call="UserHistory.of", name="length", minimum=1)
        counts = np.diff(indptr)
        if counts.max(initial=0) <= length:
            return cls(indptr, items)
        owners = np.repeat(np.arange(counts.size), counts)
        times = train.positive_times
        if times is None:
            times = permutation(key_of(seed, stream_of("towers", "history")), items.size)
        order = np.lexsort((times, owners))  # stable: of one time the higher code comes last
        kept = np.zeros(items.size, dtype=np.bool_)
        kept[order] = indptr[owners + 1] - np.arange(items.size) <= length
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return cls(starts[indptr], items[kept])

    def first(self, num_users: int) -> UserHistory:
        """Of the first users alone."""
        indptr = self.indptr[: num_users + 1]
        return UserHistory(indptr, self.items[: indptr[-1]])


class HistoryMean(nn.Module):
    """The mean of the embeddings of a user's history; an embedding of its own for an empty one.

    The same as, for each row:

        left = [j for j in history[user] if j != target]
        vector = table[left].mean(0) if left else empty

    Args:
        history: of all users; a buffer that is not saved with the weights.
        num_users, num_items: U and N.
        dim: D.
        table: an embedding of the items that belongs to another module (the item tower's, which is
            then trained by both); None makes one.
        call: the function that was called, for errors.

    Raises:
        FastnegError: a history of another number of users, or of items that there are not.
    """

    indptr: Tensor
    items: Tensor
    pairs: Tensor

    def __init__(
        self,
        history: UserHistory,
        *,
        num_users: int,
        num_items: int,
        dim: int,
        table: nn.Embedding | None = None,
        call: str = "HistoryMean",
    ) -> None:
        super().__init__()
        indptr, items = checks.as_csr(
            history.indptr, history.items, num_items, call=call, name="history"
        )
        if indptr.size != num_users + 1:
            checks.fail(
                call, f"the history is of {indptr.size - 1} users; {num_users} expected, one a code"
            )
        owners = np.repeat(np.arange(num_users), np.diff(indptr))
        pairs = owners * num_items + items
        if (np.diff(pairs) <= 0).any():
            checks.fail(call, "the items of a history do not ascend; give each once, in order")
        for name, values in (("indptr", indptr), ("items", items), ("pairs", pairs)):
            self.register_buffer(name, torch.from_numpy(np.array(values)), persistent=False)
        self.num_items = num_items
        self.empty = nn.Parameter(torch.empty(dim))
        self.embedding = unfilled(nn.Embedding, num_items, dim) if table is None else None
        self._shared = (table,)  # in a tuple: it is no part of this module

    @property
    def table(self) -> Tensor:
        """Float [N, D]: what is averaged."""
        owner = self._shared[0] if self.embedding is None else self.embedding
        assert owner is not None
        return owner.weight

    def reads(self, embedding: nn.Embedding) -> bool:
        """Whether the mean is of this embedding, which belongs to another module."""
        return self._shared[0] is embedding

    def forward(self, users_B: Tensor, targets_B: Tensor | None = None) -> Tensor:
        """Float [B, D] for int64 codes [B], -1 unknown (an empty history).

        Args:
            users_B: the users.
            targets_B: the item that each row is to find, left out of its mean; None leaves out
                nothing.
        """
        users_S, places_B = torch.unique(users_B, return_inverse=True)
        known_S = users_S.clamp(min=0)
        starts_S = self.indptr[known_S]
        lengths_S = (self.indptr[known_S + 1] - starts_S).masked_fill(users_S < 0, 0)
        offsets_S = lengths_S.cumsum(0) - lengths_S
        shift = torch.repeat_interleave(starts_S - offsets_S, lengths_S)
        items = self.items[torch.arange(shift.numel(), device=shift.device) + shift]
        counts_B = lengths_S[places_B]
        if targets_B is None:
            sums_B = _sums(items, offsets_S, self.table)[places_B]
        else:
            # the targets are bags of one item behind the users': one lookup, one gradient
            own = items.numel() + torch.arange(len(targets_B), device=items.device)
            sums = _sums(
                torch.cat([items, targets_B.clamp(min=0)]),
                torch.cat([offsets_S, own]),
                self.table,
            )
            inside_B = self._holds(users_B, targets_B)
            own_B = sums[len(users_S) :]
            sums_B = sums[: len(users_S)][places_B] - own_B * inside_B[:, None]
            counts_B = counts_B - inside_B.long()
        means_B = sums_B / counts_B.clamp(min=1)[:, None]
        return torch.where((counts_B > 0)[:, None], means_B, self.empty)

    def _holds(self, users_B: Tensor, targets_B: Tensor) -> Tensor:
        """Bool [B]: whether the target stands in the user's history."""
        if self.pairs.numel() == 0:
            return torch.zeros_like(users_B, dtype=torch.bool)
        wanted_B = users_B * self.num_items + targets_B
        places_B = torch.searchsorted(self.pairs, wanted_B).clamp(max=self.pairs.numel() - 1)
        # an unknown user's are below 0; a target of -1 would be the former user's last item
        return (self.pairs[places_B] == wanted_B) & (targets_B >= 0)


class _BagSums(torch.autograd.Function):
    """``embedding_bag(items, table, offsets, mode="sum")`` with its gradient as another bag.

    The gradient of an item's row is the sum of the gradients of the bags that hold it: the same
    lists, transposed. torch sorts all places and adds them up one by one: 60 ms for what takes 10
    here (ml-1m, whole histories, batches of 2,048, one core).
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(items, offsets)
        ctx.num_items = len(table)
        return functional.embedding_bag(items, table, offsets, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        items, offsets = ctx.saved_tensors
        indptr = np.append(offsets.numpy(), items.numel())
        starts, bags = transpose(indptr, checks.frozen(items.numpy()), ctx.num_items)
        gradient = functional.embedding_bag(
            torch.from_numpy(bags),
            gradients[0].contiguous(),
            torch.from_numpy(starts[:-1]),
            mode="sum",
        )
        return gradient, None, None


def _sums(items: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    if table.device.type != "cpu":
        return functional.embedding_bag(items, table, offsets, mode="sum")
    sums: Tensor = _BagSums.apply(table, items, offsets)  # type: ignore[no-untyped-call]
    return sums
