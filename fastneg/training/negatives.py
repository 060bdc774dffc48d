"""From settings to negatives and a loss: which samplers feed a batch, which columns a row sees.

==================  ==========================================================================
``in_batch``        the other rows' positives; Q is their frequency as the loader serves them.
``mixed``           those and B' uniform items; Q* = (B Q + B' / N) / (B + B').
``sampled_softmax`` K negatives per row that exclude the user's positives, or K for the batch.
``bpr``, ``bce``    K negatives per row.
==================  ==========================================================================

What a whole batch shares is masked by all known positives of each row's user.

Mined hard negatives come in two ways. Where negatives are per row, a slot holds a hard one in
1 / (1 + easy_to_hard) of the draws (fixed quotas, ``MixedSampler``), and log_q is the mixture's, so
corrected softmax losses stay estimates of the full softmax. Where columns are shared by the batch,
each row gets ``num_hard`` columns of its own besides; under a correction the easy columns stand for
the N items of the catalog, and the hard ones together weigh ``1 / easy_to_hard`` of that, however
many they are. (Without correction every column counts once, so the ratio is that of the columns.)

Shapes: B rows, C columns shared by the batch, H hard columns and K negatives of a row, D width,
U users, N items.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fastneg.checks import as_codes, fail
from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.listed import ListedSampler
from fastneg.samplers.mixed import MixedSampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.subsampling import keep_probabilities
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.batches import Batch, NegativeBatches
from fastneg.training.hard_negatives import HardNegatives
from fastneg.training.log_q import mixed_log_q, positive_mass
from fastneg.training.losses import (
    bce_loss,
    bpr_loss,
    in_batch_softmax_loss,
    mixed_negative_loss,
    softmax_loss,
)
from fastneg.training.settings import Settings
from fastneg.training.towers import TwoTower


def make_sampler(train: Interactions, settings: Settings) -> Sampler:
    """The sampler of easy negatives that the settings name."""
    if settings.sampler == "uniform":
        return UniformSampler(train, seed=settings.seed, name="easy")
    return PopularitySampler(
        train,
        exponent=settings.exponent,
        smoothing=settings.smoothing,
        seed=settings.seed,
        name="easy",
    )


class Objective:
    """The batches of a stage, and the loss of one.

    Args:
        train: the interactions.
        settings: see ``Settings``.
        hard: mined lists, or None.
        device: where the model is.
        stage: names the streams of words: another stage, other negatives.

    Attributes:
        batches: the ``NegativeBatches`` that serve this loss.
        source_counts: int64 [sources], per-row negatives by source since it was last zeroed.
    """

    def __init__(
        self,
        train: Interactions,
        settings: Settings,
        *,
        hard: HardNegatives | None = None,
        device: torch.device | str = "cpu",
        stage: str = "train",
    ) -> None:
        self.train, self.settings = train, settings
        self.device = torch.device(device)
        self._stage = stage
        self._easy = easy = make_sampler(train, settings).spawn(stage)
        row_sampler: Sampler | None = None
        shared_sampler: Sampler | None = None
        num_negatives, num_shared = 1, 0
        self.num_hard = 0
        if settings.per_row_negatives:
            row_sampler, num_negatives = easy, settings.num_negatives
            if hard is not None:
                row_sampler = self.hard_sampler(hard)
        else:
            if settings.loss == "mixed":
                uniform = UniformSampler(train, seed=settings.seed, name="uniform")
                shared_sampler, num_shared = uniform.spawn(stage), settings.num_uniform
            elif settings.loss == "sampled_softmax":
                shared_sampler, num_shared = easy, settings.num_negatives
            if hard is not None:
                row_sampler = self.hard_sampler(hard)
                self.num_hard = num_negatives = settings.num_hard
        self.batches = NegativeBatches(
            train,
            batch_size=settings.batch_size,
            sampler=row_sampler,
            num_negatives=num_negatives,
            shared_sampler=shared_sampler,
            num_shared=num_shared,
            rewards=settings.rewards,
            seed=settings.seed,
            name=f"{stage}/batches",
            exhausted=settings.exhausted,
        )
        if settings.subsample_positives is not None:  # before the tables: Q is of what is served
            keep = keep_probabilities(
                train, settings.subsample_positives, formula=settings.subsample_formula
            )
            self.batches.subsample(keep, weights=settings.subsample_weights)
        self._item_log_q_N, self._user_mass_U = self._log_q_tables(easy)
        self._no_penalty = torch.zeros((), device=self.device)
        self._source_names = () if row_sampler is None else row_sampler.source_names
        self.source_counts = torch.zeros(len(self._source_names), dtype=torch.int64)
        self._loss: Callable[[TwoTower, Batch, Tensor | None], Tensor] = {
            "in_batch": self._batch_columns,
            "mixed": self._batch_columns,
            "sampled_softmax": self._sampled_softmax,
            "bpr": self._pairwise,
            "bce": self._pairwise,
        }[settings.loss]

    def hard_sampler(self, hard: HardNegatives) -> Sampler:
        """The sampler of a row's negatives for mined lists: the stage's streams, other lists.

        Raises:
            FastnegError: ids that are no items, or not one row per user.
        """
        train, settings = self.train, self.settings
        lists, call, name = hard.lists, "Objective", "hard.lists"
        as_codes(lists, train.num_items, call=call, name=name, ndim=2, unknown=True)
        if len(lists) != train.num_users:
            fail(
                call,
                f"{name} has {len(lists)} rows for {train.num_users} users; give one row per user",
            )
        if not settings.per_row_negatives:
            return ListedSampler(
                lists, fallback=self._easy, interactions=train, seed=settings.seed, name="hard"
            ).spawn(self._stage)
        # a user without a list draws easy ones only: the mixture sees to that
        listed = ListedSampler(lists, interactions=train, name="hard")
        return MixedSampler(
            [(self._easy, settings.easy_to_hard), (listed, 1.0)], mode="quota", seed=settings.seed
        ).spawn(self._stage)

    def use(self, sampler: Sampler) -> None:
        """Draw from other lists, from the next iteration of ``batches`` on.

        Args:
            sampler: from ``hard_sampler``, in an objective that has mined lists.
        """
        self.batches.sampler = sampler

    def _log_q_tables(self, easy: Sampler) -> tuple[Tensor | None, Tensor | None]:
        """Log Q [N] of one shared column, and the Q-mass [U] of each user's positives."""
        settings, train = self.settings, self.train
        if settings.correction == "none" or settings.loss in ("bpr", "bce"):
            return None, None
        if settings.loss in ("in_batch", "mixed"):
            log_q_N = self.batches.item_log_frequency()
        else:
            log_q_N = easy.log_q(np.arange(train.num_items))
        mass_U = None
        # Mixed columns are not alike, per-row ones exclude the positives already: no mass there.
        if settings.loss == "in_batch" or settings.shared:
            mass_U = positive_mass(train, log_q_N).to(self.device)
        return log_q_N.to(self.device), mass_U

    # One batch -----------------------------------------------------------------------------

    def loss(self, model: TwoTower, batch: Batch) -> Tensor:
        """The loss of a batch (on the CPU, as served), a scalar with gradient."""
        if batch.negatives is not None and len(self._source_names) > 1:
            tags = batch.negatives.source.flatten().long()
            self.source_counts += torch.bincount(tags, minlength=len(self._source_names))
        mask_BC = None
        if not self.settings.per_row_negatives:
            # before the batch moves: known positives are looked up on the CPU
            columns = [] if self.settings.loss == "sampled_softmax" else [batch.items]
            columns += [] if batch.shared is None else [batch.shared.items]
            mask_BC = self.train.positive_mask(batch.users, torch.cat(columns)).to(self.device)
        return self._loss(model, batch.to(self.device), mask_BC)

    def statistics(self) -> dict[str, Any]:
        """``source_counts`` by name; empty where there is one source."""
        if len(self._source_names) < 2:
            return {}
        return {
            "negatives": dict(zip(self._source_names, self.source_counts.tolist(), strict=True))
        }

    def _embed(
        self, model: TwoTower, users: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of users and items, and the l2 penalty of the batch."""
        if self.settings.l2 == 0.0:
            return model.embed_users(users), model.embed_items(items), self._no_penalty
        users_BD, items_XD = model.user_tower(users), model.item_tower(items)
        rows = len(users)
        penalty = (users_BD.square().sum() + items_XD.square().sum()) * (
            0.5 * self.settings.l2 / rows
        )
        if model.similarity == "cosine":
            users_BD = functional.normalize(users_BD, dim=-1)
            items_XD = functional.normalize(items_XD, dim=-1)
        return users_BD, items_XD, penalty

    @staticmethod
    def _with_hard(
        users_BD: Tensor, scores_BC: Tensor, mask_BC: Tensor | None, hard_BHD: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores and mask with the row's hard columns after the shared ones; they are negatives."""
        if hard_BHD is None or mask_BC is None:
            return scores_BC, mask_BC
        hard_BH = torch.einsum("bd,bhd->bh", users_BD, hard_BHD)
        none_BH = torch.zeros(hard_BH.shape, dtype=torch.bool, device=mask_BC.device)
        return torch.cat([scores_BC, hard_BH], 1), torch.cat([mask_BC, none_BH], 1)

    def _hard_log_q(self, num_easy: int) -> Tensor:
        """Log Q [H] under which H columns weigh 1 / easy_to_hard of ``num_easy`` corrected ones."""
        easy_mass = num_easy * self.train.num_items  # each easy column counts 1 / Q
        log_q = math.log(self.settings.easy_to_hard * self.num_hard / easy_mass)
        return torch.full((self.num_hard,), min(log_q, 0.0), device=self.device)

    def _batch_columns(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        """In-batch columns, then uniform ones if any, then the row's hard ones if any."""
        settings, items_C = self.settings, batch.items
        if batch.shared is not None:
            items_C = torch.cat([items_C, batch.shared.items])
        num_rows, num_shared = len(batch.users), len(items_C)
        every = items_C
        if batch.negatives is not None:
            every = torch.cat([items_C, batch.negatives.items.flatten()])
        users_BD, items_XD, penalty = self._embed(model, batch.users, every)
        hard_BHD = None
        if batch.negatives is not None:
            hard_BHD = items_XD[num_shared:].view(num_rows, -1, users_BD.shape[-1])
        scores_BC = users_BD @ items_XD[:num_shared].T
        scores_BC, mask_BC = self._with_hard(users_BD, scores_BC, mask_BC, hard_BHD)
        log_q_C: Tensor | None = None
        mass_B: Tensor | None = None
        if self._item_log_q_N is not None:
            log_q_C = self._item_log_q_N[items_C]
            if settings.loss == "mixed":
                # a row's own column is no negative: B - 1 of the first kind are expected
                num_batch = num_rows - (settings.correction == "expected_count")
                log_q_C = mixed_log_q(
                    log_q_C, num_batch, num_shared - num_rows, self.train.num_items
                )
            elif self._user_mass_U is not None and hard_BHD is None:
                mass_B = self._user_mass_U[batch.users]
            if hard_BHD is not None:
                log_q_C = torch.cat([log_q_C, self._hard_log_q(num_shared - 1)])
        common: dict[str, Any] = {
            "masked_mass_B": mass_B,
            "correction": settings.correction,
            "temperature": settings.temperature,
            "row_weights_B": batch.weights,
        }
        if scores_BC.shape[1] == num_rows:
            loss = in_batch_softmax_loss(scores_BC, log_q_B=log_q_C, mask_BB=mask_BC, **common)
        else:
            loss = mixed_negative_loss(scores_BC, log_q_C=log_q_C, mask_BC=mask_BC, **common)
        return loss + penalty

    def _sampled_softmax(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        settings = self.settings
        log_q_N = self._item_log_q_N
        positive_log_q_B = None
        if settings.correction in ("both", "revised") and log_q_N is not None:
            positive_log_q_B = log_q_N[batch.items]
        if batch.shared is None:
            positive_B, negative_BK, penalty = self._per_row_scores(model, batch)
            assert batch.negatives is not None
            if settings.correction == "revised":
                positive_log_q_B = None  # the draws exclude the positive: Q_p is 0
            return penalty + softmax_loss(
                positive_B,
                negative_BK,
                negative_log_q=batch.negatives.log_q,
                positive_log_q_B=positive_log_q_B,
                correction=settings.correction,
                temperature=settings.temperature,
                row_weights_B=batch.weights,
            )
        rows, shared = len(batch.users), batch.shared
        parts = [batch.items, shared.items]
        if batch.negatives is not None:
            parts.append(batch.negatives.items.flatten())
        users_BD, items_XD, penalty = self._embed(model, batch.users, torch.cat(parts))
        columns = rows + len(shared.items)
        hard_BHD = None
        if batch.negatives is not None:
            hard_BHD = items_XD[columns:].view(rows, -1, users_BD.shape[-1])
        scores_BC = users_BD @ items_XD[rows:columns].T
        scores_BC, mask_BC = self._with_hard(users_BD, scores_BC, mask_BC, hard_BHD)
        log_q_C, mass_B = shared.log_q, None
        if hard_BHD is not None and log_q_C is not None:
            log_q_C = torch.cat([log_q_C, self._hard_log_q(len(shared.items))])
        elif self._user_mass_U is not None:
            mass_B = self._user_mass_U[batch.users]
        return penalty + softmax_loss(
            (users_BD * items_XD[:rows]).sum(-1),
            scores_BC,
            negative_log_q=log_q_C,
            positive_log_q_B=positive_log_q_B,
            masked_mass_B=mass_B,
            mask_BC=mask_BC,
            correction=settings.correction,
            temperature=settings.temperature,
            row_weights_B=batch.weights,
        )

    def _per_row_scores(self, model: TwoTower, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [B] of the positives, [B, K] of each row's own negatives, and the penalty."""
        assert batch.negatives is not None
        rows = len(batch.users)
        items = torch.cat([batch.items, batch.negatives.items.flatten()])
        users_BD, items_XD, penalty = self._embed(model, batch.users, items)
        negatives_BKD = items_XD[rows:].view(rows, -1, users_BD.shape[-1])
        negative_BK = torch.einsum("bd,bkd->bk", users_BD, negatives_BKD)
        return (users_BD * items_XD[:rows]).sum(-1), negative_BK, penalty

    def _pairwise(self, model: TwoTower, batch: Batch, mask_BC: Tensor | None) -> Tensor:
        positive_B, negative_BK, penalty = self._per_row_scores(model, batch)
        loss = bpr_loss if self.settings.loss == "bpr" else bce_loss
        return penalty + loss(
            positive_B,
            negative_BK,
            temperature=self.settings.temperature,
            row_weights_B=batch.weights,
        )
