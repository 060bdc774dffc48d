"""Query and item towers: codes in, vectors out; a score is the product of two vectors.

Shape suffixes: D the width of the vectors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastneg import checks
from fastneg.errors import FastnegTypeError
from fastneg.streams import key_of, stream_of
from fastneg.training.feature_encoders import FeatureEncoder, unfilled
from fastneg.training.unit_rows import unit_rows

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable

SIMILARITIES = ("dot", "cosine")


class Tower(nn.Module):
    """Codes of one side (users or items) to vectors, from an id embedding and features.

    Every part is ``dim`` wide: an embedding of the id, of each categorical column, the mean of
    the embeddings of each multi-valued column, a linear map of the numeric columns. With
    ``hidden_layers=0`` the vector is the parts' sum (the id embedding alone: matrix
    factorisation). With n hidden layers the parts stand side by side and pass through linear
    layers of widths dim 2^n, ..., dim 4, dim 2, a ReLU and dropout after each, and a last linear
    layer of width dim.

    Args:
        num_codes: number of users or items.
        dim: width of the vectors.
        features: a ``FeatureTable`` with one row a code, or None.
        hidden_layers: 0 or more.
        use_ids: whether there is an id embedding.
        dropout: 0 to below 1, after each hidden layer.
        init_std: standard deviation of embeddings at the start; None: 1 / sqrt(dim).
        seed: of the initial weights; each is a function of the seed, ``name`` and its own name.
        name: what the tower is called in errors.

    Raises:
        FastnegError: for arguments out of range, features of another number of rows, a tower
            with neither ids nor features, dropout without hidden layers.
    """

    def __init__(
        self,
        num_codes: int,
        *,
        dim: int = 64,
        features: FeatureTable | None = None,
        hidden_layers: int = 0,
        use_ids: bool = True,
        dropout: float = 0.0,
        init_std: float | None = None,
        seed: int = 0,
        name: str = "tower",
    ) -> None:
        super().__init__()
        call = f"Tower ({name})"
        self.name = name
        self.num_codes = checks.as_integer(num_codes, call=call, name="num_codes", minimum=1)
        self.dim = checks.as_integer(dim, call=call, name="dim", minimum=1)
        layers = checks.as_integer(
            hidden_layers, call=call, name="hidden_layers", minimum=0, maximum=16
        )
        rate = checks.as_number(dropout, call=call, name="dropout", minimum=0.0, maximum=1.0)
        if rate == 1.0:
            checks.fail(call, "dropout = 1.0 drops everything; give less than 1")
        if rate > 0 and layers == 0:
            checks.fail(call, f"dropout = {rate} needs hidden layers; hidden_layers = 0")
        std = self.dim**-0.5
        if init_std is not None:
            std = checks.as_number(init_std, call=call, name="init_std", minimum=0.0)
        seed = checks.as_integer(seed, call=call, name="seed")
        self.id_embedding = unfilled(nn.Embedding, self.num_codes, self.dim) if use_ids else None
        self.features = None
        if features is not None:
            self.features = FeatureEncoder(
                features, num_rows=self.num_codes, dim=self.dim, call=call
            )
        num_parts = int(use_ids) + (self.features.num_parts if self.features else 0)
        if num_parts == 0:
            checks.fail(call, "neither ids nor features: give features, or use ids")
        self.hidden = _halving_layers(num_parts, self.dim, layers, rate) if layers else None
        _initialise(self, std, seed, name)

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors, float [..., D], for int64 codes [...].

        -1 is an unknown code: no id part, all features missing; zeros in plain matrix
        factorisation.
        """
        codes = _checked_codes(self.name, codes, self.num_codes)
        if self.id_embedding is not None and self.features is None and self.hidden is None:
            return _embed(self.id_embedding, codes)
        parts = [] if self.id_embedding is None else [_embed(self.id_embedding, codes)]
        if self.features is not None:
            flat = [part.unflatten(0, codes.shape) for part in self.features(codes.flatten())]
            parts += flat
        if self.hidden is None:
            return torch.stack(parts).sum(0)
        vectors: Tensor = self.hidden(torch.cat(parts, -1))
        return vectors

    def looked_up(self) -> list[nn.Embedding]:
        """Embeddings of which a batch reads some rows, all through ``_embed``."""
        return [] if self.id_embedding is None else [self.id_embedding]


class TwoTower(nn.Module):
    """A query tower, an item tower, and the score between them.

    The score is ``embed_users(u) @ embed_items(i)``, divided by ``temperature`` in the losses
    (never in the vectors). Feature tables are no part of the saved weights: rebuild with
    ``TwoTower(**model.config(), user_features=..., item_features=...)``, then
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
        hidden_layers: 0 for matrix factorisation (or a sum of feature embeddings), else the
            number of hidden layers, each half as wide as the one before: see ``Tower``.
        similarity: ``"dot"``, or ``"cosine"`` (vectors are scaled to length 1).
        temperature: more than 0; what the losses divide scores by.
        use_user_ids, use_item_ids: whether a tower has an id embedding.
        dropout: after each hidden layer.
        init_std: standard deviation of embeddings at the start; None: 1 / sqrt(dim).
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
        hidden_layers: int = 0,
        similarity: str = "dot",
        temperature: float = 1.0,
        use_user_ids: bool = True,
        use_item_ids: bool = True,
        dropout: float = 0.0,
        init_std: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.similarity = checks.as_choice(
            similarity, SIMILARITIES, call="TwoTower", name="similarity"
        )
        self.temperature = checks.as_number(temperature, call="TwoTower", name="temperature")
        if self.temperature <= 0:
            checks.fail("TwoTower", f"temperature = {self.temperature} is not above 0")
        common: dict[str, Any] = {
            "dim": dim,
            "hidden_layers": hidden_layers,
            "dropout": dropout,
            "init_std": init_std,
            "seed": seed,
        }
        self.user_tower = Tower(
            num_users, features=user_features, use_ids=use_user_ids, name="users", **common
        )
        self.item_tower = Tower(
            num_items, features=item_features, use_ids=use_item_ids, name="items", **common
        )
        self._config: dict[str, Any] = {
            "num_users": int(num_users),
            "num_items": int(num_items),
            "dim": int(dim),
            "hidden_layers": int(hidden_layers),
            "similarity": self.similarity,
            "temperature": self.temperature,
            "use_user_ids": bool(use_user_ids),
            "use_item_ids": bool(use_item_ids),
            "dropout": float(dropout),
            "init_std": None if init_std is None else float(init_std),
            "seed": int(seed),
        }

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores, float [...], of each pair of codes, before the temperature."""
        return (self.embed_users(users) * self.embed_items(items)).sum(-1)

    def embed_users(self, codes: Tensor) -> Tensor:
        """Float [..., D] for int64 user codes [...], -1 unknown; of length 1 when cosine."""
        return self._scaled(self.user_tower(codes))

    def embed_items(self, codes: Tensor) -> Tensor:
        """Float [..., D] for int64 item codes [...], -1 unknown; of length 1 when cosine."""
        return self._scaled(self.item_tower(codes))

    def user_vectors(self, block: int = 65536) -> Tensor:
        """float32 [num_users, D], every user's vector on the model's device, without gradient.

        Computed in evaluation mode (no dropout), ``block`` users at a time; the mode is restored.
        """
        return self._all_vectors(self.user_tower, block)

    def item_vectors(self, block: int = 65536) -> Tensor:
        """float32 [num_items, D], every item's vector; see ``user_vectors``."""
        return self._all_vectors(self.item_tower, block)

    @property
    def scores_cold_users(self) -> bool:
        """Whether the query tower can tell users without training rows apart: by features."""
        return self.user_tower.features is not None

    def config(self) -> dict[str, Any]:
        """The arguments but for the feature tables, as plain JSON values."""
        return dict(self._config)

    def _scaled(self, vectors: Tensor) -> Tensor:
        return unit_rows(vectors) if self.similarity == "cosine" else vectors

    @torch.no_grad()
    def _all_vectors(self, tower: Tower, block: int) -> Tensor:
        block = checks.as_integer(block, call="TwoTower", name="block", minimum=1)
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


def _halving_layers(num_parts: int, dim: int, hidden_layers: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = num_parts * dim
    for power in range(hidden_layers, 0, -1):
        layers += [unfilled(nn.Linear, width, dim << power), nn.ReLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        width = dim << power
    return nn.Sequential(*layers, unfilled(nn.Linear, width, dim))


def _checked_codes(name: str, codes: Tensor, num_codes: int) -> Tensor:
    """int64 codes in -1..num_codes-1; values are looked at on the CPU only."""
    if not isinstance(codes, Tensor) or codes.dtype.is_floating_point or codes.dtype == torch.bool:
        kind = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise FastnegTypeError(f"Tower ({name}): codes are {kind}; give an int64 tensor")
    codes = codes.long()
    if codes.device.type == "cpu" and codes.numel():
        low, high = torch.aminmax(codes)
        if int(low) < -1 or int(high) >= num_codes:
            checks.as_codes(
                codes, num_codes, call=f"Tower ({name})", name="codes", ndim=None, unknown=True
            )
    return codes


def _embed(embedding: nn.Embedding, codes: Tensor) -> Tensor:
    """A plain lookup; zeros for -1. Rows that an optimizer left behind are brought up to date."""
    table = getattr(embedding, "rows", None)
    if table is not None:
        vectors: Tensor = table.lookup(codes) if embedding.training else table.read(codes)
        return vectors
    unknown = codes < 0
    if codes.device.type == "cpu" and not bool(unknown.any()):
        return functional.embedding(codes, embedding.weight, sparse=embedding.sparse)
    rows = functional.embedding(codes.clamp(min=0), embedding.weight, sparse=embedding.sparse)
    return rows.masked_fill(unknown[..., None], 0.0)


@torch.no_grad()
def _initialise(tower: Tower, std: float, seed: int, name: str) -> None:
    """Each parameter from a generator of its own, so that adding one changes no other.

    ``unfilled`` left them empty, and torch's global random state as it was.

    Embeddings from N(0, std^2); linear layers from Kaiming's uniform distribution (gain 1 in the
    last layer, which has no ReLU), biases 0.
    """
    last = tower.hidden[-1].weight if tower.hidden is not None else None
    for path, parameter in sorted(tower.named_parameters()):
        generator = torch.Generator().manual_seed(key_of(seed, stream_of("towers", name, path)))
        if path.startswith("hidden."):
            if parameter.ndim == 1:
                parameter.zero_()
            else:
                gain = 1.0 if parameter is last else math.sqrt(2.0)
                bound = gain * math.sqrt(3.0 / parameter.shape[1])
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        else:
            nn.init.normal_(parameter, std=std, generator=generator)
