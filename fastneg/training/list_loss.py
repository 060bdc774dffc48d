"""The loss of a batch whose negatives come from a declarative list (``training.negative_list``).

The columns of all sources (``training.list_columns``), in the order of the list, stand side by
side; ``BatchLoss`` has the losses. What a whole batch shares is masked by all known positives of
each row's user.

Shapes: B rows, C columns of a source or of all, K negatives of a row, D width, N items.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastneg.interactions import Interactions
from fastneg.training.batch_loss import BatchLoss, Scores
from fastneg.training.batches import Batch
from fastneg.training.dynamic_sampling import choice_uniforms, choose
from fastneg.training.in_batch_hard import repeated_columns
from fastneg.training.item_queue import ItemQueue
from fastneg.training.list_columns import (
    Columns,
    drawn_columns,
    hard_columns,
    joined_mask,
    queue_columns,
)
from fastneg.training.list_statistics import SourceStatistics
from fastneg.training.negative_list import (
    BATCH_CHOSEN,
    LISTED,
    UNCORRECTED,
    columns_in,
    source_names,
)
from fastneg.training.reinforced import Generator, rewards_of
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower


class _Embedded(NamedTuple):
    """A batch and its vectors.

    Attributes:
        batch, here: it on the CPU, and on the device.
        epoch: the one it was served in.
        users, own: vectors [B, D] of the rows' users and positives.
        scores: [B, B] of all users and all positives; None where no source takes them.
        items: codes [B, K] or [C] of what was drawn, by source.
        vectors: of these, [X, D].
        places: [B, K] among the candidates, of what generators picked, by source.
        masks: known positives [B, C] in shared columns, by source.
    """

    batch: Batch
    here: Batch
    epoch: int
    users: Tensor
    own: Tensor
    scores: Tensor | None
    items: dict[str, Tensor]
    vectors: dict[str, Tensor]
    places: dict[str, Tensor]
    masks: dict[str, Tensor]


class ListLoss(BatchLoss):
    """The loss of a batch by a list of negatives.

    Args:
        train: whose positives are masked.
        settings: with ``negatives``.
        drawn: the names of the sources that the loader draws, in the order of ``batch.drawn``.
        item_log_q_N: float [N], log of each item's frequency as the loader serves it.
        device: where the model is.
        stage: names the streams of words.

    Attributes:
        statistics: of the batches since its sums were last zeroed.
        queues: of the sources ``"queue"``, by name.
        generators: of the sources ``"reinforced"``, by name.
    """

    def __init__(
        self,
        train: Interactions,
        settings: Settings,
        *,
        drawn: tuple[str, ...],
        item_log_q_N: Tensor,
        device: torch.device,
        stage: str,
    ) -> None:
        kinds = [source["source"] for source in settings.negatives]
        super().__init__(
            settings,
            num_items=train.num_items,
            num_hard=0,
            item_log_q_N=None,
            user_mass_U=None,
            device=device,
        )
        self.train, self.stage, self.drawn = train, stage, drawn
        self._served_log_q_N = item_log_q_N.to(device)
        self.names = source_names(settings.negatives)
        self.sources = dict(zip(self.names, settings.negatives, strict=True))
        self._weights = _hard_weights(self.sources, settings.easy_to_hard)
        self._in_batch = "in-batch" in kinds
        self._batch_columns_used = self._in_batch or any(one in BATCH_CHOSEN for one in kinds)
        self.statistics = SourceStatistics(
            self.names,
            train.item_user_counts,
            margin=settings.margin,
            temperature=self.settings.temperature,
            device=device,
        )
        self.queues = {
            name: ItemQueue(source["size"], settings.dim, warm_up=source["warm_up"], device=device)
            for name, source in self.sources.items()
            if source["source"] == "queue"
        }

        self.generators = {
            name: Generator.of_source(
                source, train.num_users, train.num_items, seed=settings.seed,
                name=f"{stage}/{name}", device=device,
            )
            for name, source in self.sources.items()
            if source["source"] == "reinforced"
        }  # fmt: skip

    @property
    def memory(self) -> dict[str, Tensor]:
        """What outlives a batch, as tensors that are changed in place: queues, generators."""
        states = {name: queue.state for name, queue in self.queues.items()}
        states |= {name: generator.state for name, generator in self.generators.items()}
        return {
            f"{name}/{part}": tensor
            for name, state in states.items()
            for part, tensor in state.items()
        }

    def of_batch(self, model: TwoTower, batch: Batch, *, epoch: int) -> Tensor:
        """The loss, a scalar with gradient; queues take the batch's items.

        Args:
            model: on the device.
            batch: on the CPU, as served.
            epoch: the one it was served in.
        """
        embedded, penalty = self._embedded(model, batch, epoch)
        positive_B = (embedded.users * embedded.own).sum(-1)
        columns: dict[str, Columns] = {}
        for name in self.names:
            one = self._columns(name, embedded)
            if one is not None:
                columns[name] = one
                self.statistics.add(
                    name, positive_B, one.scores, one.items, one.mask, num_own=one.num_own
                )
        for queue in self.queues.values():
            queue.put(batch.items, embedded.own, self._served_log_q_N[embedded.here.items])
        for name in self.generators:
            self._teach(name, model, embedded, columns[name].scores)
        scores = Scores(
            positive_B,
            torch.cat([one.scores for one in columns.values()], 1),
            joined_mask(list(columns.values())),
            penalty,
            0,
        )
        if self.settings.loss == "sampled_softmax":
            return self._list_softmax(scores, embedded.here, columns)
        return self._plain_loss(scores, embedded.here)

    # Columns -------------------------------------------------------------------------------

    def _embedded(self, model: TwoTower, batch: Batch, epoch: int) -> tuple[_Embedded, Tensor]:
        """The batch with its vectors, and the penalty."""
        masks = self._masks(batch)
        here = batch.to(self.device)
        ids, places = self._drawn_ids(model, batch, here, epoch)
        items_X = torch.cat([here.items, *(one.flatten() for one in ids.values())])
        users_BD, items_XD, penalty = self._embed(model, here, items_X)
        sizes = [len(batch.users), *(one.numel() for one in ids.values())]
        own_BD, *parts = torch.split(items_XD, sizes)
        scores_BB = users_BD @ own_BD.T if self._batch_columns_used else None
        vectors = dict(zip(ids, parts, strict=True))
        return _Embedded(
            batch, here, epoch, users_BD, own_BD, scores_BB, ids, vectors, places, masks
        ), penalty

    def _columns(self, name: str, embedded: _Embedded) -> Columns | None:
        """The columns of a source; None where it has none now."""
        source, mask = self.sources[name], embedded.masks.get(name)
        kind, here, scores_BB = source["source"], embedded.here, embedded.scores
        if kind == "in-batch":
            assert scores_BB is not None
            return Columns(scores_BB, here.items, mask, self._served_log_q(here.items), 1)
        if kind in BATCH_CHOSEN:
            assert scores_BB is not None
            uniforms_BK = None
            if kind == "interpolated":
                uniforms_BK = self._uniforms(name, embedded.batch, embedded.epoch)
            return hard_columns(source, scores_BB, here.items, mask, uniforms_BK)
        if kind == "queue":
            return queue_columns(self.queues[name], embedded.users, mask)
        if name not in embedded.items:
            return None
        log_q = None
        if kind not in UNCORRECTED:
            log_q = here.drawn[self.drawn.index(name)].log_q
        return drawn_columns(
            embedded.users, embedded.vectors[name], embedded.items[name], mask, log_q
        )

    def _uniforms(self, name: str, batch: Batch, epoch: int) -> Tensor:
        """float64 [B, K] in (0, 1), of each row and column of a source."""
        return choice_uniforms(
            batch.rows, self.sources[name]["num_negatives"], seed=self.settings.seed, epoch=epoch,
            name=f"{self.stage}/{name}",
        ).to(self.device)  # fmt: skip

    def _drawn_ids(
        self, model: TwoTower, batch: Batch, here: Batch, epoch: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Items [B, K] or [C] of the sources that the loader draws; candidates are chosen from.

        And of those that generators pick, their places among the candidates.
        """
        ids: dict[str, Tensor] = {}
        places: dict[str, Tensor] = {}
        for name, drawn in zip(self.drawn, here.drawn, strict=True):
            if name not in self.sources:
                continue
            source, items = self.sources[name], drawn.items
            if name in self.generators:
                uniforms_BK = self._uniforms(name, batch, epoch)
                places[name] = self.generators[name].pick(here.users, items, uniforms_BK)
                items = items.gather(1, places[name])
            elif "candidates" in source:
                items = choose(
                    source, model, here.users, items, batch.rows, batch=here,
                    seed=self.settings.seed, epoch=epoch, name=f"{self.stage}/{name}",
                )  # fmt: skip
            elif source["source"] in LISTED:
                items = items[:, : columns_in(source, epoch)]
            if items.numel():
                ids[name] = items
        return ids, places

    def _teach(self, name: str, model: TwoTower, embedded: _Embedded, scores_BK: Tensor) -> None:
        """Reward a generator's picks as the model scores them before its own step."""
        here, source = embedded.here, self.sources[name]
        shown = None
        if f"{name}/shown" in self.drawn:
            shown = here.drawn[self.drawn.index(f"{name}/shown")]
        picked_BKD = embedded.vectors[name].view(*scores_BK.shape, -1)
        rewards_BK = rewards_of(
            source, model, embedded.users, picked_BKD, scores_BK / self.settings.temperature, shown
        )
        candidates_BN = here.drawn[self.drawn.index(name)].items
        self.generators[name].learn(here.users, candidates_BN, embedded.places[name], rewards_BK)

    def _masks(self, batch: Batch) -> dict[str, Tensor]:
        """Known positives [B, C] in the columns that the batch shares, looked up on the CPU."""
        shared: dict[str, Tensor] = {}
        for name, source in self.sources.items():
            if source["source"] in ("in-batch", *BATCH_CHOSEN):
                shared[name] = batch.items
            elif source["source"] == "queue":
                shared[name] = self.queues[name].items
            elif source.get("shared"):
                shared[name] = batch.drawn[self.drawn.index(name)].items
        if not shared:
            return {}
        mask_BC = self.train.positive_mask(batch.users, torch.cat(list(shared.values())))
        sizes = [len(items) for items in shared.values()]
        parts = torch.split(mask_BC.to(self.device), sizes, dim=1)
        masks = dict(zip(shared, parts, strict=True))
        for name, source in self.sources.items():
            if source["source"] in BATCH_CHOSEN:  # an item that is twice in the batch is one
                masks[name] = masks[name] | repeated_columns(batch.items).to(self.device)
        return masks

    # Log Q ---------------------------------------------------------------------------------

    def _served_log_q(self, items_C: Tensor) -> Tensor:
        """Log Q [C] of in-batch columns."""
        log_q_C = self._served_log_q_N[items_C]
        if self.settings.correction == "expected_count":
            # a row's own column is no negative: B - 1 of the B columns are draws
            rows = len(items_C)
            log_q_C = log_q_C + math.log(max(rows - 1, 1) / rows)
        return log_q_C

    def _list_softmax(self, scores: Scores, batch: Batch, columns: dict[str, Columns]) -> Tensor:
        log_q: Tensor | None = None
        positive_log_q_B: Tensor | None = None
        if self.settings.correction != "none":
            log_q = self._joined_log_q(len(batch.users), columns)
        if self.settings.correction == "both":
            positive_log_q_B = self._served_log_q_N[batch.items]
        return self._softmax(scores, batch, log_q=log_q, positive_log_q_B=positive_log_q_B)

    def _joined_log_q(self, rows: int, columns: dict[str, Columns]) -> Tensor:
        """Log Q of all columns, [C] where every source is shared, else [B, C]."""
        num_known = sum(one.scores.shape[1] for one in columns.values() if one.log_q is not None)
        parts = []
        for name, one in columns.items():
            if one.log_q is not None:
                parts.append(one.log_q)
            else:  # each column the same
                num_hard, ratio = self._weights[name]
                hard_H = self._hard_log_q(num_known - self._in_batch, num_hard, ratio)
                parts.append(hard_H[: one.scores.shape[1]])
        if any(part.ndim == 2 for part in parts):
            parts = [part if part.ndim == 2 else part.expand(rows, -1) for part in parts]
        return torch.cat(parts, -1)


def _hard_weights(sources: dict[str, Any], easy_to_hard: float) -> dict[str, tuple[int, float]]:
    """Of each source without log Q: how many columns share 1 / ratio of the catalog, and ratio."""
    uncorrected = {k: one for k, one in sources.items() if one["source"] in UNCORRECTED}
    own = {k: one["ratio"] for k, one in uncorrected.items() if one.get("ratio") is not None}
    together = sum(one["num_negatives"] for k, one in uncorrected.items() if k not in own)
    return {
        k: (one["num_negatives"], own[k]) if k in own else (together, easy_to_hard)
        for k, one in uncorrected.items()
    }
