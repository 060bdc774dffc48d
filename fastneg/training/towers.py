"""Query and item towers: codes in, vectors out; a score is the product of two vectors.

Shape suffixes: D the width of the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastneg import checks
from fastneg.errors import said_by
from fastneg.training.batch import Batch
from fastneg.training.feature_encoders import FeatureEncoder, FeatureRows
from fastneg.training.history import HistoryMean, UserHistory
from fastneg.training.tower import Tower
from fastneg.training.unit_rows import unit_rows

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable

__all__ = ["HISTORIES", "SIMILARITIES", "Tower", "TwoTower"]

SIMILARITIES = ("dot", "cosine")
HISTORIES = ("none", "shared", "own")


class TwoTower(nn.Module):
    """A query tower, an item tower, and the score between them.

    The score is ``embed_users(u) @ embed_items(i)``, divided by ``temperature`` in the losses
    (never in the vectors). Tables and the history are no part of the saved weights: rebuild with
    ``TwoTower(**model.config(), user_features=..., item_features=..., ...)``, then
    ``load_state_dict``.

        >>> import torch
        >>> from fastneg.training.towers import TwoTower
        >>> model = TwoTower(1000, 500, dim=16, similarity="cosine", temperature=0.1, seed=7)
        >>> model.embed_users(torch.tensor([3, 999, -1])).shape
        torch.Size([3, 16])
        >>> model.item_vectors().shape
        torch.Size([500, 16])

    Args:
        num_users, num_items: numbers of codes.
        dim: width of the vectors.
        user_features, item_features: ``FeatureTable`` with one row a code, or None.
        context_features: a ``FeatureTable`` with the columns of an event's context, or None.
        user_history: what ``history`` averages.
        hidden_layers: 0 for matrix factorisation (or a sum of feature embeddings), else the
            number of hidden layers, each half as wide as the one before: see ``Tower``.
        item_hidden_layers: those of the item tower; None: as many.
        history: ``"none"``, or the mean of the user's history is a part of the query tower, taken
            over the item tower's id embeddings (``"shared"``) or a table of its own (``"own"``).
        similarity: ``"dot"``, or ``"cosine"`` (vectors are scaled to length 1).
        temperature: more than 0; what the losses divide scores by.
        temperature_bounds: with them the temperature is learnt, between them: its logarithm is a
            parameter that starts at ``temperature``; None keeps it fixed.
        use_user_ids, use_item_ids: whether a tower has an id embedding.
        dropout: after each hidden layer.
        init_std: standard deviation of the embeddings of ids at the start: see ``Tower``.
        seed: of the initial weights.

    Raises:
        FastnegError: for arguments out of range; see ``Tower``.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        *,
        dim: int = 64,
        user_features: FeatureTable | None = None,
        item_features: FeatureTable | None = None,
        context_features: FeatureTable | None = None,
        user_history: UserHistory | None = None,
        hidden_layers: int = 0,
        item_hidden_layers: int | None = None,
        history: str = "none",
        similarity: str = "dot",
        temperature: float = 1.0,
        temperature_bounds: Sequence[float] | None = None,
        use_user_ids: bool = True,
        use_item_ids: bool = True,
        dropout: float = 0.0,
        init_std: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.similarity = checks.as_choice(
            similarity, SIMILARITIES, call="TwoTower", name="similarity"
        )
        checks.as_choice(history, HISTORIES, call="TwoTower", name="history")
        if (history == "none") != (user_history is None):
            checks.fail(
                "TwoTower",
                f"history = {history!r} goes "
                + ("with a user_history" if user_history is None else "without a user_history"),
            )
        for name, value in (
            ("num_users", num_users), ("num_items", num_items), ("dim", dim),
        ):  # fmt: skip
            checks.as_integer(value, call="TwoTower", name=name, minimum=1, maximum=2**40)
        for name, layers in (
            ("hidden_layers", hidden_layers),
            ("item_hidden_layers", 0 if item_hidden_layers is None else item_hidden_layers),
        ):
            checks.as_integer(layers, call="TwoTower", name=name, minimum=0, maximum=16)
        checks.as_number(dropout, call="TwoTower", name="dropout", minimum=0.0, maximum=1.0)
        checks.as_number(init_std, call="TwoTower", name="init_std", minimum=0.0)
        checks.as_integer(seed, call="TwoTower", name="seed")
        use_user_ids = checks.as_flag(use_user_ids, call="TwoTower", name="use_user_ids")
        use_item_ids = checks.as_flag(use_item_ids, call="TwoTower", name="use_item_ids")
        from fastneg.data.features import FeatureTable

        self.tables = {"user_features": user_features, "item_features": item_features}
        for name, features in (*self.tables.items(), ("context_features", context_features)):
            if features is not None:
                checks.check_kind("TwoTower", FeatureTable, "a FeatureTable", **{name: features})
        self._temperature, self._log_bounds = _temperatures(temperature, temperature_bounds)
        self.log_temperature: nn.Parameter | None = None
        if self._log_bounds is not None:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(self._temperature)))
        item_layers = hidden_layers if item_hidden_layers is None else item_hidden_layers
        common: dict[str, Any] = {"dim": dim, "init_std": init_std, "seed": seed}
        with said_by("TwoTower"):  # memory may lack
            item_tower = Tower(
                num_items, features=item_features, use_ids=use_item_ids, name="items",
                hidden_layers=item_layers, dropout=dropout if item_layers else 0.0, **common,
            )  # fmt: skip
            table = item_tower.id_embedding if history == "shared" else None
            if history == "shared" and table is None:
                checks.fail(
                    "TwoTower",
                    "history = 'shared' shares the embedding of item ids; there is none "
                    "(use_item_ids = false); give history = 'own'",
                )
            mean: HistoryMean | None = None
            if user_history is not None:
                mean = HistoryMean(
                    user_history, num_users=num_users, num_items=num_items, dim=dim, table=table,
                    call="TwoTower",
                )  # fmt: skip
            self.user_tower = Tower(
                num_users, features=user_features, use_ids=use_user_ids, name="users", history=mean,
                context=context_features, hidden_layers=hidden_layers, dropout=dropout, **common,
            )  # fmt: skip
        self.item_tower = item_tower
        self._config: dict[str, Any] = {
            "num_users": int(num_users),
            "num_items": int(num_items),
            "dim": int(dim),
            "hidden_layers": int(hidden_layers),
            "item_hidden_layers": None if item_hidden_layers is None else int(item_hidden_layers),
            "history": history,
            "similarity": self.similarity,
            "temperature": self._temperature,
            "temperature_bounds": None if temperature_bounds is None else list(temperature_bounds),
            "use_user_ids": bool(use_user_ids),
            "use_item_ids": bool(use_item_ids),
            "dropout": float(dropout),
            "init_std": float(init_std),
            "seed": int(seed),
        }

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores, float [...], of each pair of codes, before the temperature."""
        return (self.embed_users(users) * self.embed_items(items)).sum(-1)

    def embed_users(
        self,
        codes: Tensor | None = None,
        *,
        targets: Tensor | None = None,
        features: FeatureTable | FeatureRows | None = None,
        context: FeatureTable | FeatureRows | None = None,
    ) -> Tensor:
        """Float [..., D] for int64 user codes [...], -1 unknown; of length 1 when cosine.

        Args:
            codes: None: all unknown, one for each row of ``features`` or ``context``.
            targets: int64 [...], items to leave out of each one's history (in training).
            features: rows instead of those of the tower's table, for users that it has not seen.
            context: of each event; None: all missing.
        """
        tower = self.user_tower
        call = "TwoTower.embed_users"
        features = self._rows(tower.features, features, "user_features", call)
        context = self._rows(tower.context, context, "context_features", call)
        codes = self._codes(codes, features or context, "context", call)
        if targets is not None:
            checks.check_kind(call, Tensor, "a torch tensor", targets=targets)
            if targets.shape != codes.shape:
                shapes = f"targets has shape {tuple(targets.shape)}, codes {tuple(codes.shape)}"
                checks.fail(call, f"{shapes}; give a target for each code")
        return self._scaled(tower(codes, targets=targets, features=features, context=context))

    def embed_queries(self, batch: Batch, *, scaled: bool = True) -> Tensor:
        """Float [B, D] for the examples of a training batch, each without its target's share.

        The target is left out of the user's history. A user beyond the codes of the tower is an
        event's without a user.

        Args:
            batch: on the model's device.
            scaled: False leaves the vectors as the tower gives them.
        """
        checks.check_kind("TwoTower.embed_queries", Batch, "a Batch", batch=batch)
        scaled = checks.as_flag(scaled, call="TwoTower.embed_queries", name="scaled")
        users = batch.users
        if batch.context is not None:
            users = torch.where(users < self.user_tower.num_codes, users, -1)
        vectors: Tensor = self.user_tower(users, targets=batch.items, context=batch.context)
        return self._scaled(vectors) if scaled else vectors

    def embed_items(
        self, codes: Tensor | None = None, *, features: FeatureTable | FeatureRows | None = None
    ) -> Tensor:
        """Float [..., D] for int64 item codes [...], -1 unknown; of length 1 when cosine.

        Args:
            codes: None: all unknown, one for each row of ``features``.
            features: rows instead of those of the tower's table, for items that it has not seen.
        """
        call = "TwoTower.embed_items"
        features = self._rows(self.item_tower.features, features, "item_features", call)
        codes = self._codes(codes, features, "features", call)
        return self._scaled(self.item_tower(codes, features=features))

    def user_vectors(self, block: int = 65536) -> Tensor:
        """float32 [num_users, D], every user's vector on the model's device, without gradient.

        Computed in evaluation mode (no dropout), ``block`` users at a time; the mode is restored.
        """
        return self._all_vectors(self.user_tower, block, "TwoTower.user_vectors")

    def item_vectors(self, block: int = 65536) -> Tensor:
        """float32 [num_items, D], every item's vector; see ``user_vectors``."""
        return self._all_vectors(self.item_tower, block, "TwoTower.item_vectors")

    @property
    def scores_cold_users(self) -> bool:
        """Whether the query tower can tell users without training rows apart: by features."""
        return self.user_tower.features is not None

    @property
    def temperature(self) -> float:
        """What the losses divide scores by, as it is now."""
        if self.log_temperature is None or self._log_bounds is None:
            return self._temperature
        low, high = self._log_bounds
        return math.exp(min(max(float(self.log_temperature.detach()), low), high))

    @property
    def not_decayed(self) -> list[nn.Parameter]:
        """Parameters for which 0 means nothing, so that weight decay leaves them alone."""
        return [] if self.log_temperature is None else [self.log_temperature]

    def over_temperature(self, vectors: Tensor) -> Tensor:
        """Query vectors over a learnt temperature, so that scores are; as they are if it is fixed.

        A parameter that a step has carried over a bound is put back on it first.
        """
        if self.log_temperature is None or self._log_bounds is None:
            return vectors
        with torch.no_grad():
            self.log_temperature.clamp_(*self._log_bounds)
        return vectors * torch.exp(-self.log_temperature)

    def config(self) -> dict[str, Any]:
        """The arguments but for tables and the history, as plain JSON values."""
        return dict(self._config)

    def _scaled(self, vectors: Tensor) -> Tensor:
        return unit_rows(vectors) if self.similarity == "cosine" else vectors

    def _rows(
        self,
        encoder: FeatureEncoder | None,
        features: FeatureTable | FeatureRows | None,
        name: str,
        call: str,
    ) -> FeatureRows | None:
        """Rows of a table, on the model's device."""
        if features is None or isinstance(features, FeatureRows):
            return features
        if encoder is None:
            checks.fail(call, f"the model has no {name}; it takes no rows of them")
        device = next(self.parameters()).device
        return encoder.rows_of(features, call=call).to(device)

    def _codes(
        self, codes: Tensor | None, rows: FeatureRows | None, name: str, call: str
    ) -> Tensor:
        if codes is not None:
            return codes
        if rows is None:
            checks.fail(call, f"neither codes nor {name}; give at least one of them")
        device = next(self.parameters()).device
        return torch.full((rows.num_rows,), -1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def _all_vectors(self, tower: Tower, block: int, call: str) -> Tensor:
        block = checks.as_integer(block, call=call, name="block", minimum=1)
        device = next(self.parameters()).device
        vectors = torch.empty((tower.num_codes, tower.dim), dtype=torch.float32, device=device)
        was_training = tower.training
        tower.eval()
        try:
            for start in range(0, tower.num_codes, block):
                stop = min(start + block, tower.num_codes)
                codes = torch.arange(start, stop, device=device)
                vectors[start:stop] = self._scaled(tower(codes))
        finally:
            tower.train(was_training)
        return vectors


def _temperatures(
    temperature: float, bounds: Sequence[float] | None
) -> tuple[float, tuple[float, float] | None]:
    """The checked start, and the logarithms of the bounds."""
    start = checks.as_number(temperature, call="TwoTower", name="temperature")
    if start <= 0:
        checks.fail("TwoTower", f"temperature = {start} is not above 0")
    if bounds is None:
        return start, None
    hint = "two bounds above 0 around the temperature"
    checks.check_kind("TwoTower", (tuple, list), hint, temperature_bounds=bounds)
    if len(bounds) != 2:
        checks.fail("TwoTower", f"temperature_bounds has {len(bounds)} entries; give {hint}")
    low, high = (
        checks.as_number(bound, call="TwoTower", name="temperature_bounds") for bound in bounds
    )
    if not 0 < low <= start <= high < math.inf:
        checks.fail(
            "TwoTower",
            f"temperature = {start} is not within temperature_bounds = {tuple(bounds)}; give two "
            "bounds above 0 around it",
        )
    return start, (math.log(low), math.log(high))
