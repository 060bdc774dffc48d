"""Features of users, items or queries as parts of a tower's input: a vector of ``dim`` a column.

Values and weights are apart. The values of a tower's own table are buffers that are not saved with
the weights: they belong to the data. They have one more row than there are codes, the row of a code
that is unknown, with everything missing. Rows of another table (new items, the context of an event)
come as ``FeatureRows``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from fastneg import checks

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


class FeatureRows(NamedTuple):
    """The values of n rows as an encoder takes them; columns of a kind in order of their names.

    Attributes:
        categorical: int64 [n] each, the category's code + 1, 0 where missing.
        multi: (codes + 1 int64 [m], where each row starts int64 [n]) each; no row is empty.
        numeric: float32 [n, columns], or None.
        vectors: float32 [n, width] each.
    """

    categorical: tuple[Tensor, ...]
    multi: tuple[tuple[Tensor, Tensor], ...]
    numeric: Tensor | None
    vectors: tuple[Tensor, ...] = ()

    @property
    def num_rows(self) -> int:
        """How many rows: n."""
        starts = [*self.categorical, *(one[1] for one in self.multi), *self.vectors]
        return len(starts[0]) if starts else len(self.numeric)  # type: ignore[arg-type]

    def part(self, first: int, last: int) -> FeatureRows:
        """The rows first..last - 1."""
        multi = []
        for codes, starts in self.multi:
            end = int(starts[last]) if last < len(starts) else len(codes)
            begin = int(starts[first]) if first < len(starts) else end
            multi.append((codes[begin:end], starts[first:last] - begin))
        return FeatureRows(
            tuple(one[first:last] for one in self.categorical),
            tuple(multi),
            None if self.numeric is None else self.numeric[first:last],
            tuple(one[first:last] for one in self.vectors),
        )

    def to(self, device: torch.device | str) -> FeatureRows:
        """The rows on another device."""
        return FeatureRows(
            tuple(one.to(device, non_blocking=True) for one in self.categorical),
            tuple(
                (codes.to(device, non_blocking=True), starts.to(device, non_blocking=True))
                for codes, starts in self.multi
            ),
            None if self.numeric is None else self.numeric.to(device, non_blocking=True),
            tuple(one.to(device, non_blocking=True) for one in self.vectors),
        )


class FeatureValues(nn.Module):
    """The values of a ``FeatureTable`` as tensors, and a row behind them with everything missing.

    Args:
        features: any number of rows, none too.
        call: the function that was called, for errors.

    Raises:
        FastnegError: columns of another length than the table's, category codes out of range,
            infinite numbers.
    """

    def __init__(self, features: FeatureTable, *, call: str) -> None:
        super().__init__()
        self.num_rows = features.num_rows
        self._num_categorical, self._num_multi = len(features.categorical), len(features.multi)
        for place, name in enumerate(sorted(features.categorical)):
            column = features.categorical[name]
            size = column.num_categories
            codes = checks.as_codes(column.codes, size, call=call, name=name, unknown=True)
            self._check_length(call, name, codes.size)
            self._put(f"categorical_{place}", np.append(codes + 1, 0))  # 0 is missing
        for place, name in enumerate(sorted(features.multi)):
            ragged = features.multi[name]
            size = ragged.num_categories
            indptr, codes = checks.as_csr(ragged.indptr, ragged.codes, size, call=call, name=name)
            self._check_length(call, name, indptr.size - 1)
            lengths = np.append(np.diff(indptr), 0)
            # every empty row becomes a row of one missing value (0), so that each has a mean
            filled = np.insert(codes + 1, np.append(indptr[:-1], indptr[-1])[lengths == 0], 0)
            lengths = np.maximum(lengths, 1)
            self._put(f"multi_{place}_codes", filled)
            self._put(f"multi_{place}_starts", np.cumsum(lengths) - lengths)
            self._put(f"multi_{place}_lengths", lengths)
        self.has_numeric = bool(features.numeric)
        if features.numeric:
            names = sorted(features.numeric)
            for name in names:
                self._check_length(call, name, len(features.numeric[name]))
            values = np.zeros((self.num_rows + 1, len(names)), dtype=np.float32)
            values[:-1] = np.stack([features.numeric[name] for name in names], 1)
            values[np.isnan(values)] = 0.0  # missing is 0, the mean
            self._put("numeric", checks.as_matrix(values, call=call, name="numeric features"))
        self._num_vectors = len(features.vectors)
        for place, name in enumerate(sorted(features.vectors)):
            matrix = checks.as_matrix(features.vectors[name].values, call=call, name=name)
            self._check_length(call, name, len(matrix))
            missing = np.zeros((1, matrix.shape[1]), np.float32)  # the mean
            self._put(f"vectors_{place}", np.concatenate([matrix, missing]))

    def _put(self, name: str, values: checks.AnyArray) -> None:
        self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _check_length(self, call: str, name: str, length: int) -> None:
        if length != self.num_rows:
            checks.fail(call, f"feature {name!r} has {length} rows; {self.num_rows} expected")

    def take(self, codes: Tensor) -> FeatureRows:
        """The rows of int64 codes [n]; -1 has everything missing."""
        rows = torch.where(codes < 0, self.num_rows, codes)
        categorical = tuple(
            self.get_buffer(f"categorical_{place}")[rows] for place in range(self._num_categorical)
        )
        multi = []
        for place in range(self._num_multi):
            lengths = self.get_buffer(f"multi_{place}_lengths")[rows]
            offsets = lengths.cumsum(0) - lengths
            starts = self.get_buffer(f"multi_{place}_starts")[rows]
            shift = torch.repeat_interleave(starts - offsets, lengths)
            places = torch.arange(shift.numel(), device=rows.device) + shift
            multi.append((self.get_buffer(f"multi_{place}_codes")[places], offsets))
        numeric = self.get_buffer("numeric")[rows] if self.has_numeric else None
        vectors = tuple(
            self.get_buffer(f"vectors_{place}")[rows] for place in range(self._num_vectors)
        )
        return FeatureRows(categorical, tuple(multi), numeric, vectors)


class _Categorical(nn.Module):
    """An embedding per category, and one for missing values."""

    def __init__(self, num_categories: int, dim: int) -> None:
        super().__init__()
        self.embedding = unfilled(nn.Embedding, num_categories + 1, dim)

    def forward(self, codes: Tensor) -> Tensor:
        return self.embedding(codes)  # type: ignore[no-any-return]


class _MultiValued(_Categorical):
    """The mean of the embeddings of a row's categories; an embedding of its own for none."""

    def forward(self, values: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        return functional.embedding_bag(values[0], self.embedding.weight, values[1], mode="mean")


class _Numeric(nn.Module):
    """A linear map of all numeric columns together."""

    def __init__(self, num_columns: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, num_columns))

    def forward(self, values: Tensor) -> Tensor:
        return functional.linear(values, self.weight)


class _Vector(_Numeric):
    """A linear map of one column of vectors, a part of its own."""


class FeatureEncoder(nn.Module):
    """The columns of a ``FeatureTable`` as a list of [n, dim] parts, in order of their names.

    Args:
        features: its columns say what is embedded, its rows are the codes' values.
        num_rows: number of codes; None accepts any table and uses its columns only.
        dim: width of each part.
        call: the function that was called, for errors.

    Raises:
        FastnegError: for another number of rows, a table without columns, and as
            ``FeatureValues``.
    """

    def __init__(
        self, features: FeatureTable, *, num_rows: int | None, dim: int, call: str
    ) -> None:
        super().__init__()
        if num_rows is not None and features.num_rows != num_rows:
            checks.fail(
                call,
                f"features have {features.num_rows} rows; {num_rows} expected, one a code "
                "(FeatureTable.from_table aligns a table with ids)",
            )
        self.values = FeatureValues(features, call=call)
        self.columns = features.columns()
        self.categorical, self.multi = nn.ModuleDict(), nn.ModuleDict()
        for name in sorted(features.categorical):
            size = features.categorical[name].num_categories
            self.categorical[_key(name)] = _Categorical(size, dim)
        for name in sorted(features.multi):
            self.multi[_key(name)] = _MultiValued(features.multi[name].num_categories, dim)
        self.numeric = _Numeric(len(features.numeric), dim) if features.numeric else None
        self.vectors = nn.ModuleDict()
        for name in sorted(features.vectors):
            self.vectors[_key(name)] = _Vector(features.vectors[name].width, dim)
        if self.num_parts == 0:
            checks.fail(call, "features have no columns; give None for no features")

    @property
    def num_parts(self) -> int:
        """How many vectors a code gets."""
        columns = len(self.categorical) + len(self.multi) + len(self.vectors)
        return columns + int(self.numeric is not None)

    def forward(self, codes: Tensor) -> list[Tensor]:
        """``num_parts`` tensors of float [n, dim] for int64 codes [n], -1 unknown."""
        return self.encode(self.values.take(codes))

    def encode(self, rows: FeatureRows) -> list[Tensor]:
        """``num_parts`` tensors of float [n, dim] for the values of n rows."""
        parts = [
            part(values)
            for part, values in zip(self.categorical.values(), rows.categorical, strict=True)
        ]
        parts += [
            part(values) for part, values in zip(self.multi.values(), rows.multi, strict=True)
        ]
        if self.numeric is not None:
            parts.append(self.numeric(rows.numeric))
        parts += [part(one) for part, one in zip(self.vectors.values(), rows.vectors, strict=True)]
        return parts

    def rows_of(self, features: FeatureTable, *, call: str) -> FeatureRows:
        """All rows of another table, encoded as this one's (``from_table(..., like=)``).

        Raises:
            FastnegError: other columns, or another number of categories.
        """
        self.check_columns(features, call=call)
        values = FeatureValues(features, call=call)
        return values.take(torch.arange(features.num_rows))

    def check_columns(self, features: FeatureTable, *, call: str) -> None:
        """Raise where a table has other columns, categories or widths."""
        theirs = features.columns()
        if theirs != self.columns:
            checks.fail(
                call,
                f"features have the columns {theirs}, the tower {self.columns} (name, kind, "
                "number of categories or width); encode the table with like=, the one trained with",
            )
