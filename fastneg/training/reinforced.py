"""Reinforced negative sampling: a small model learns which candidates are worth training on.

Ding et al. 2019 (Reinforced negative sampling for recommendation with exposure data). A generator
of its own embeddings picks a row's negatives from some candidates by a softmax of its scores. It is
rewarded where the recommender scores the pick high (it is hard), and where the picks look like what
users were really shown and did not take (it is a real negative), and learns by policy gradient
(REINFORCE). Some of the candidates are of what the user was shown (one of 30 in the authors'
program). The forms, as that program has them:

* the policy over candidates c: pi(c | u) = softmax_c(p_u . q_c / temperature);
* the adversarial reward: r(u, j) = -sigmoid(-s(u, j)), s the recommender's score;
* the exposure reward, by feature matching: minus how much a pick adds to the maximum mean
  discrepancy between the features of picks y and of shown items x, which are the recommender's
  products of vectors: -(2 mean_b' k(y_b, y_b') - 2 mean_b' k(x_b', y_b)), k Gaussian;
* the gradient: sum of d log pi(j | u) (r + exposure times the exposure reward - baseline).

The baseline is the batch's mean reward, which changes no expectation (theirs: the last epoch's
mean). Their widths of the kernels are absolute (19 to 23), ours in units of the features' distance.
Left out: their share (1 - beta) of the exposure reward that is 1 for a pick that was itself shown.

Shapes: B rows, N candidates of a row, K picked, D width of the recommender, E of the generator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastneg.checks import as_integer
from fastneg.samplers.results import Negatives
from fastneg.streams import key_of, stream_of
from fastneg.training.loss_checks import check_matrix, check_temperature
from fastneg.training.towers import TwoTower

_WIDTHS = (0.5, 1.0, 2.0)  # of the kernels, in the root mean square distance
_START = 0.1  # standard deviation of the embeddings
_SMALL = 1e-8
_MOST = 1024  # features that a mean is taken over


class Generator:
    """Embeddings of users and items whose products decide, and Adagrad over them.

    Args:
        num_users, num_items: of the catalog.
        dim: E.
        learning_rate: of Adagrad.
        temperature: of the softmax.
        seed, name: decide the start.
        device: where all of it is.

    Attributes:
        state: all of it, changed in place: float32 ``users`` [U, E], ``items`` [N, E], and the sums
            of their squared gradients, ``users_squares`` and ``items_squares``.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        *,
        dim: int,
        learning_rate: float = 0.05,
        temperature: float = 1.0,
        seed: int = 0,
        name: str = "generator",
        device: torch.device | str = "cpu",
    ) -> None:
        width = as_integer(dim, call="Generator", name="dim", minimum=1)
        self.learning_rate = float(learning_rate)
        self.temperature = check_temperature("Generator", temperature)
        words = torch.Generator().manual_seed(key_of(seed, stream_of(name, "start")) >> 1)
        self.state: dict[str, Tensor] = {}
        for side, size in (("users", num_users), ("items", num_items)):
            self.state[side] = (torch.randn(size, width, generator=words) * _START).to(device)
            self.state[f"{side}_squares"] = torch.zeros(size, width, device=device)

    def _log_policy(self, users_BE: Tensor, candidates_BNE: Tensor) -> Tensor:
        products_BN = torch.einsum("be,bne->bn", users_BE, candidates_BNE)
        return (products_BN / self.temperature).log_softmax(1)

    def probabilities(self, users_B: Tensor, candidates_BN: Tensor) -> Tensor:
        """The policy: float32 [B, N]; a candidate that stands there twice counts twice."""
        users_BE, candidates_BNE = self.state["users"][users_B], self.state["items"][candidates_BN]
        return self._log_policy(users_BE, candidates_BNE).exp()

    @classmethod
    def of_source(
        cls, source: Any, num_users: int, num_items: int, *, seed: int, name: str, device: Any
    ) -> Generator:
        """The generator of a source ``"reinforced"`` with its options."""
        options = {key: source[key] for key in ("dim", "learning_rate", "temperature")}
        return cls(num_users, num_items, seed=seed, name=name, device=device, **options)

    def pick(self, users_B: Tensor, candidates_BN: Tensor, uniforms_BK: Tensor) -> Tensor:
        """int64 [B, K], places among the candidates, each by the policy, with replacement.

        Args:
            users_B: int64 [B].
            candidates_BN: int64 [B, N].
            uniforms_BK: in (0, 1) (``dynamic_sampling.choice_uniforms``).
        """
        ends_BN = self.probabilities(users_B, candidates_BN).double().cumsum(1)
        wanted_BK = uniforms_BK.to(ends_BN) * ends_BN[:, -1:]
        places_BK = torch.searchsorted(ends_BN, wanted_BK, right=True)
        return places_BK.clamp(max=candidates_BN.shape[1] - 1)

    def learn(
        self, users_B: Tensor, candidates_BN: Tensor, places_BK: Tensor, rewards_BK: Tensor
    ) -> None:
        """One step of policy gradient on what was picked.

        Args:
            users_B, candidates_BN, places_BK: as picked.
            rewards_BK: float [B, K].
        """
        check_matrix("Generator.learn", "rewards_BK", rewards_BK)
        ids = {"users": users_B, "items": candidates_BN.flatten()}
        users_BE = self.state["users"][users_B].requires_grad_()
        candidates_BNE = self.state["items"][candidates_BN].requires_grad_()
        with torch.enable_grad():
            log_pi_BN = self._log_policy(users_BE, candidates_BNE)
            advantage_BK = rewards_BK - rewards_BK.mean()
            loss = -(log_pi_BN.gather(1, places_BK) * advantage_BK).sum() / len(users_B)
            gradients = torch.autograd.grad(loss, (users_BE, candidates_BNE))
        for (side, rows), gradient in zip(ids.items(), gradients, strict=True):
            self._step(side, rows, gradient.flatten(0, -2))

    def _step(self, side: str, rows_X: Tensor, gradient_XE: Tensor) -> None:
        """Adagrad on some rows of a table; a row that stands there twice has the sum."""
        table, squares = self.state[side], self.state[f"{side}_squares"]
        rows_R, place_X = torch.unique(rows_X, return_inverse=True)
        gradient_RE = torch.zeros(len(rows_R), table.shape[1], device=table.device)
        gradient_RE.index_add_(0, place_X, gradient_XE)
        squares[rows_R] += gradient_RE.square()
        table[rows_R] -= self.learning_rate * gradient_RE / (squares[rows_R].sqrt() + _SMALL)


def adversarial_rewards(scores_BK: Tensor) -> Tensor:
    """-sigmoid(-s) [B, K]: the higher the recommender scores a pick, the better."""
    return -torch.sigmoid(-scores_BK)


def exposure_rewards(picked_XD: Tensor, shown_YD: Tensor) -> Tensor:
    """How much each pick looks like what was shown and unlike the other picks: float [X].

    Args:
        picked_XD: features of the picks; the means are over the first of them, a random part.
        shown_YD: features of items that were shown and not taken.
    """
    to_shown_XY = torch.cdist(picked_XD, shown_YD[:_MOST]).square()
    to_picked_XX = torch.cdist(picked_XD, picked_XD[:_MOST]).square()
    scale = to_shown_XY.mean().clamp_min(_SMALL)
    reward_X = torch.zeros(len(picked_XD), device=picked_XD.device, dtype=picked_XD.dtype)
    for width in _WIDTHS:
        among = torch.exp(-to_picked_XX / (2 * width * width * scale)).mean(1)
        across = torch.exp(-to_shown_XY / (2 * width * width * scale)).mean(1)
        reward_X += 2 * across - 2 * among
    return reward_X / len(_WIDTHS)


@torch.no_grad()
def rewards_of(
    source: Any,
    model: TwoTower,
    users_BD: Tensor,
    picked_BKD: Tensor,
    scores_BK: Tensor,
    shown: Negatives | None,
) -> Tensor:
    """The rewards [B, K] of a source's picks.

    Args:
        source: with its options.
        model: the recommender.
        users_BD, picked_BKD: its vectors of the rows' users and of the picks.
        scores_BK: of the picks, after the temperature.
        shown: an item [B, 1] that each row's user was shown; only those tagged 0 were.
    """
    rewards_BK = adversarial_rewards(scores_BK)
    if shown is None:
        return rewards_BK
    real_B = shown.source[:, 0] == 0
    if not bool(real_B.any()):
        return rewards_BK
    features_YD = users_BD[real_B] * item_vectors(model, shown.items[real_B, 0])
    features_XD = (users_BD[:, None] * picked_BKD).flatten(0, 1)
    exposed_X = exposure_rewards(features_XD, features_YD)
    return torch.add(rewards_BK, exposed_X.view_as(rewards_BK), alpha=float(source["exposure"]))


def item_vectors(model: TwoTower, items_Y: Tensor) -> Tensor:
    """The vectors of some items as the model is, in evaluation mode; the mode is restored."""
    was_training = model.training
    model.eval()
    try:
        return model.embed_items(items_Y)
    finally:
        model.train(was_training)
