"""Features of users or items as parts of a tower's input: one vector of width ``dim`` a column.

The feature values are buffers that are not saved with the weights: they belong to the data. Each
has one more row than there are codes, the row of a code that is unknown, with everything missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from fastneg import checks
from fastneg.checks import IntArray

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable

Module = TypeVar("Module", bound=nn.Module)


def unfilled(kind: type[Module], *sizes: int) -> Module:
    """A module whose weights are yet to be filled; torch's global random state stays as it is."""
    module: Module = skip_init(kind, *sizes)  # type: ignore[no-untyped-call]
    return module


def _key(column: str) -> str:
    """A column's name as a module's name: no dots, and never the name of a method."""
    return "column_" + column.replace("%", "%25").replace(".", "%2E")


class _Categorical(nn.Module):
    """An embedding per category, and one for missing values."""

    codes: Tensor

    def __init__(self, codes: IntArray, num_categories: int, dim: int) -> None:
        super().__init__()
        self.embedding = unfilled(nn.Embedding, num_categories + 1, dim)
        shifted = np.append(codes + 1, 0)  # 0 is missing
        self.register_buffer("codes", torch.from_numpy(shifted), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        return self.embedding(self.codes[rows])  # type: ignore[no-any-return]


class _MultiValued(nn.Module):
    """The mean of the embeddings of a row's categories; an embedding of its own for none."""

    starts: Tensor
    lengths: Tensor
    codes: Tensor

    def __init__(self, indptr: IntArray, codes: IntArray, num_categories: int, dim: int) -> None:
        super().__init__()
        self.embedding = unfilled(nn.Embedding, num_categories + 1, dim)
        lengths = np.append(np.diff(indptr), 0)
        # every empty row becomes a row of one missing value (0), so that each has a mean
        filled = np.insert(codes + 1, np.append(indptr[:-1], indptr[-1])[lengths == 0], 0)
        lengths = np.maximum(lengths, 1)
        starts = np.cumsum(lengths) - lengths
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        self.register_buffer("lengths", torch.from_numpy(lengths), persistent=False)
        self.register_buffer("codes", torch.from_numpy(filled), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        lengths = self.lengths[rows]
        ends = lengths.cumsum(0)
        offsets = ends - lengths
        shift = torch.repeat_interleave(self.starts[rows] - offsets, lengths)
        places = torch.arange(shift.numel(), device=rows.device) + shift
        return functional.embedding_bag(
            self.codes[places], self.embedding.weight, offsets, mode="mean"
        )


class _Numeric(nn.Module):
    """A linear map of all numeric columns together; a missing value is 0, the mean."""

    values: Tensor

    def __init__(self, values: np.ndarray[tuple[int, int], np.dtype[np.float32]], dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, values.shape[1]))
        padded = np.concatenate([values, np.zeros((1, values.shape[1]), dtype=np.float32)])
        self.register_buffer("values", torch.from_numpy(padded), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        return functional.linear(self.values[rows], self.weight)


class FeatureEncoder(nn.Module):
    """The columns of a ``FeatureTable`` as a list of [n, dim] parts, in order of their names.

    Args:
        features: one row a code.
        num_rows: number of codes.
        dim: width of each part.
        call: who asks, for errors.

    Raises:
        FastnegError: for another number of rows, category codes out of range, infinite numbers,
            a table without columns.
    """

    def __init__(self, features: FeatureTable, *, num_rows: int, dim: int, call: str) -> None:
        super().__init__()
        if features.num_rows != num_rows:
            checks.fail(
                call,
                f"features have {features.num_rows} rows; {num_rows} expected, one a code "
                "(FeatureTable.from_table aligns a table with ids)",
            )
        self.num_rows = num_rows
        self.categorical, self.multi = nn.ModuleDict(), nn.ModuleDict()
        for name in sorted(features.categorical):
            column = features.categorical[name]
            size = column.num_categories
            codes = checks.as_codes(column.codes, size, call=call, name=name, unknown=True)
            self._check_length(call, name, codes.size)
            self.categorical[_key(name)] = _Categorical(codes, size, dim)
        for name in sorted(features.multi):
            ragged = features.multi[name]
            size = ragged.num_categories
            indptr, codes = checks.as_csr(ragged.indptr, ragged.codes, size, call=call, name=name)
            self._check_length(call, name, indptr.size - 1)
            self.multi[_key(name)] = _MultiValued(indptr, codes, size, dim)
        self.numeric = None
        if features.numeric:
            names = sorted(features.numeric)
            for name in names:
                self._check_length(call, name, len(features.numeric[name]))
            values = np.stack([features.numeric[name] for name in names], 1).astype(np.float32)
            values[np.isnan(values)] = 0.0
            values = checks.as_matrix(values, call=call, name="numeric features")
            self.numeric = _Numeric(values, dim)
        if self.num_parts == 0:
            checks.fail(call, "features have no columns; give None for no features")

    @property
    def num_parts(self) -> int:
        """How many vectors a code gets."""
        return len(self.categorical) + len(self.multi) + int(self.numeric is not None)

    def forward(self, codes: Tensor) -> list[Tensor]:
        """``num_parts`` tensors of float [n, dim] for int64 codes [n], -1 unknown."""
        rows = torch.where(codes < 0, self.num_rows, codes)
        columns = [*self.categorical.values(), *self.multi.values()]
        if self.numeric is not None:
            columns.append(self.numeric)
        return [column(rows) for column in columns]

    def _check_length(self, call: str, name: str, length: int) -> None:
        if length != self.num_rows:
            checks.fail(call, f"feature {name!r} has {length} rows; {self.num_rows} expected")
