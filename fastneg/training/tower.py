"""One tower: codes in, vectors out, from an id, features, a history and an event's context.

Shape suffixes: D the width of the vectors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastneg import checks
from fastneg.errors import FastnegTypeError
from fastneg.streams import key_of, stream_of
from fastneg.training.feature_encoders import FeatureEncoder, FeatureRows, unfilled
from fastneg.training.history import HistoryMean

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable


class Tower(nn.Module):
    """Codes of one side (users or items) to vectors, from an id embedding and features.

    Every part is ``dim`` wide: an embedding of the id, of each categorical column, the mean of
    the embeddings of each multi-valued column, a linear map of the numeric columns, one of each
    column of vectors; on the users' side the mean of the history, and the columns of an event's
    context likewise. With ``hidden_layers=0`` the vector is the parts' sum (the id embedding
    alone: matrix factorisation). With n hidden layers the parts stand side by side and pass
    through linear layers of widths dim 2^n, ..., dim 4, dim 2, a ReLU and dropout after each, and a
    last linear layer of width dim.

    Args:
        num_codes: number of users or items.
        dim: width of the vectors.
        features: a ``FeatureTable`` with one row a code, or None.
        hidden_layers: 0 or more.
        use_ids: whether there is an id embedding.
        history: the part that is the mean of a user's history, or None.
        context: a ``FeatureTable`` whose columns an event's context has (its rows are of no
            account), or None.
        dropout: 0 to below 1, after each hidden layer.
        init_std: standard deviation of the embeddings of ids at the start (a history's own table
            among them); those of features start at 1 / sqrt(dim).
        seed: of the initial weights; each is a function of the seed, ``name`` and its own name.
        name: what the tower is called in errors.

    Raises:
        FastnegError: for arguments out of range, features of another number of rows, a tower
            without any part, dropout without hidden layers.
    """

    def __init__(
        self,
        num_codes: int,
        *,
        dim: int = 64,
        features: FeatureTable | None = None,
        hidden_layers: int = 0,
        use_ids: bool = True,
        history: HistoryMean | None = None,
        context: FeatureTable | None = None,
        dropout: float = 0.0,
        init_std: float = 0.01,
        seed: int = 0,
        name: str = "tower",
    ) -> None:
        super().__init__()
        call = f"TwoTower ({name})"
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
        std = checks.as_number(init_std, call=call, name="init_std", minimum=0.0)
        seed = checks.as_integer(seed, call=call, name="seed")
        self.id_embedding = unfilled(nn.Embedding, self.num_codes, self.dim) if use_ids else None
        self.features = None
        if features is not None:
            self.features = FeatureEncoder(
                features, num_rows=self.num_codes, dim=self.dim, call=call
            )
        self.history = history
        self.context = None
        if context is not None:
            self.context = FeatureEncoder(context, num_rows=None, dim=self.dim, call=call)
        num_parts = int(use_ids) + int(history is not None)
        num_parts += sum(one.num_parts for one in (self.features, self.context) if one is not None)
        if num_parts == 0:
            checks.fail(call, "neither ids nor features: give features, or use ids")
        self.hidden = _halving_layers(num_parts, self.dim, layers, rate) if layers else None
        _initialise(self, std, seed, name)

    def forward(
        self,
        codes: Tensor,
        *,
        targets: Tensor | None = None,
        features: FeatureRows | None = None,
        context: FeatureRows | None = None,
    ) -> Tensor:
        """Vectors, float [..., D], for int64 codes [...].

        -1 is an unknown code: no id part, an empty history, all features missing; zeros in plain
        matrix factorisation.

        Args:
            codes: of the side.
            targets: int64 [...], items to leave out of each one's history; None: none.
            features: of each code, instead of the tower's own table; for codes that it has not.
            context: of each code's event; None: all missing.
        """
        codes = _checked_codes(self.name, codes, self.num_codes)
        flat = codes.flatten()
        parts = [] if self.id_embedding is None else [_embed(self.id_embedding, flat)]
        if self.features is not None:
            parts += self.features(flat) if features is None else self.features.encode(features)
        if self.history is not None:
            parts.append(self.history(flat, None if targets is None else targets.flatten()))
        if self.context is not None:
            missing = torch.full_like(flat, -1)
            parts += self.context(missing) if context is None else self.context.encode(context)
        if self.hidden is not None:
            vectors: Tensor = self.hidden(torch.cat(parts, -1))
        else:
            vectors = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        return vectors.reshape(*codes.shape, self.dim)

    def looked_up(self) -> list[nn.Embedding]:
        """Embeddings of which a batch reads some rows, all through ``_embed``."""
        return [] if self.id_embedding is None else [self.id_embedding]


def _halving_layers(num_parts: int, dim: int, hidden_layers: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = num_parts * dim
    for power in range(hidden_layers, 0, -1):
        layers += [unfilled(nn.Linear, width, dim << power), nn.ReLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        width = dim << power
    return nn.Sequential(*layers, unfilled(nn.Linear, width, dim))


def _embed_call(name: str) -> str:
    """The public call whose codes a tower looks up."""
    return f"TwoTower.embed_{name}"


def _checked_codes(name: str, codes: Tensor, num_codes: int) -> Tensor:
    """int64 codes in -1..num_codes-1; values are looked at on the CPU only."""
    if not isinstance(codes, Tensor) or codes.dtype.is_floating_point or codes.dtype == torch.bool:
        kind = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise FastnegTypeError(f"{_embed_call(name)}: codes are {kind}; give an int64 tensor")
    codes = codes.long()
    if codes.device.type == "cpu" and codes.numel():
        low, high = torch.aminmax(codes)
        if int(low) < -1 or int(high) >= num_codes:
            checks.as_codes(
                codes, num_codes, call=_embed_call(name), name="codes", ndim=None, unknown=True
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

    Embeddings of ids from N(0, std^2), what stands for features from N(0, 1 / dim); linear layers
    from Kaiming's uniform distribution (gain 1 in the last layer, which has no ReLU), biases 0.
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
            nn.init.normal_(parameter, std=_start(path, parameter, tower, std), generator=generator)


def _start(path: str, parameter: Tensor, tower: Tower, std: float) -> float:
    """The standard deviation at the start of what is no linear layer of the MLP.

    As given for ids; of features such that a part has a length of about 1, whatever the width of a
    vector.
    """
    if path.startswith(("id_embedding.", "history.")):
        return std
    if ".vectors." in path:  # [dim, width], of standardised numbers
        return math.sqrt(1.0 / parameter.numel())
    return math.sqrt(1.0 / tower.dim)
