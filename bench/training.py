"""One model trained in two ways: by fastneg's trainer, and in plain torch as one writes it."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.worlds import Known
from fastneg import Interactions
from fastneg.recipes import recipe
from fastneg.training.ahead import ahead
from fastneg.training.batch import Batch
from fastneg.training.negatives import Objective
from fastneg.training.rounds import build_model
from fastneg.training.row_adam import make_optimizer

BATCH, WIDTH, NEGATIVES = 2_048, 64, 2_048
TUNED = {"learning_rate": 1e-2, "temperature": 0.1}  # for sampled-softmax on gowalla


class Ours:
    """A recipe's steps, one after the other and epoch after epoch, as the trainer takes them."""

    def __init__(self, pairs: Interactions, name: str, changes: Mapping[str, Any]) -> None:
        self.settings = recipe(name).settings({"device": "cpu", **changes})
        self.pairs = pairs
        self.model = build_model(pairs, self.settings)
        self.objective = Objective(pairs, self.settings)
        self.optimizer = make_optimizer(self.model, self.settings, torch.device("cpu"))
        self.loss = math.nan
        self.batches = self.endless()
        self._steps = self._train()

    def endless(self) -> Generator[Any, None, None]:
        """The batches of all epochs."""
        epoch = 0
        while True:
            self.objective.batches.set_epoch(epoch)
            yield from ahead(self.objective.batches, self.objective.prepare, Batch.num_bytes)
            epoch += 1

    def _train(self) -> Iterator[None]:
        self.model.train()
        total = torch.zeros((), dtype=torch.float64)
        for batch in self.batches:
            loss = self.objective.loss(self.model, batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach()
            self.loss = float(loss.detach())
            yield

    def run(self, steps: int) -> None:
        for _ in range(steps):
            next(self._steps)

    def close(self) -> None:
        """End the thread that makes batches."""
        self.batches.close()


class Plain(nn.Module):
    """Matrix factorisation with cosines and a sampled softmax over shared uniform negatives.

    Args:
        pairs: the training pairs; each is an example.
        masked: leave known positives out of a row's negatives.
        fused: ask torch for its fused Adam.
    """

    def __init__(self, pairs: Interactions, *, masked: bool, fused: bool = False) -> None:
        super().__init__()
        import scipy.sparse

        torch.manual_seed(0)
        self.users = nn.Embedding(pairs.num_users, WIDTH)
        self.items = nn.Embedding(pairs.num_items, WIDTH)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=WIDTH**-0.5)
        self.temperature, self.masked = 0.2, masked
        self.log_weight = math.log(pairs.num_items / NEGATIVES)
        self.optimizer = torch.optim.Adam(
            self.parameters(), lr=5e-3, **({"fused": True} if fused else {})
        )
        self.known = scipy.sparse.csr_matrix(
            (np.ones(len(pairs.positive_items), bool), pairs.positive_items, pairs.positive_indptr),
            shape=(pairs.num_users, pairs.num_items),
        )
        rows = (pairs.row_users, pairs.row_items)
        self._examples = tuple(torch.from_numpy(codes.copy()) for codes in rows)
        self._steps, self.last = self._train(), math.nan

    def loss(self, users: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
        queries = functional.normalize(self.users(users), dim=-1)
        positives = functional.normalize(self.items(items), dim=-1)
        others = functional.normalize(self.items(negatives), dim=-1)
        positive = (queries * positives).sum(-1, keepdim=True) / self.temperature
        scores = queries @ others.T / self.temperature + self.log_weight
        if self.masked:
            known = self.known[users.numpy()][:, negatives.numpy()].toarray()
            scores = scores.masked_fill(torch.from_numpy(known), float("-inf"))
        logits = torch.cat([positive, scores], dim=1)
        return functional.cross_entropy(logits, torch.zeros(len(users), dtype=torch.int64))

    def _train(self) -> Iterator[None]:
        all_users, all_items = self._examples
        while True:
            for rows in torch.randperm(len(all_users)).split(BATCH):
                negatives = torch.randint(self.items.num_embeddings, (NEGATIVES,))
                loss = self.loss(all_users[rows], all_items[rows], negatives)
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                self.last = float(loss.detach())
                yield

    def run(self, steps: int) -> None:
        for _ in range(steps):
            next(self._steps)


def steps_of_an_epoch(known: Known) -> int:
    return -(-known.interactions.num_rows // BATCH)
