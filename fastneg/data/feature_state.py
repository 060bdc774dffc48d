"""A table of features as arrays and facts, which a file can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastneg import checks
from fastneg.checks import AnyArray
from fastneg.data.feature_columns import CategoricalColumn, MultiColumn
from fastneg.data.vector_columns import VectorColumn
from fastneg.errors import FileFormatError

if TYPE_CHECKING:
    from fastneg.data.features import FeatureTable


def state_of(table: FeatureTable) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """(arrays by name, facts for JSON): all that ``parts_of_state`` needs."""
    arrays: dict[str, AnyArray] = {}
    for name, column in table.categorical.items():
        arrays[f"categorical/{name}"] = column.codes
    for name, ragged in table.multi.items():
        arrays[f"multi/{name}/indptr"] = ragged.indptr
        arrays[f"multi/{name}/codes"] = ragged.codes
    for name, numbers in table.numeric.items():
        arrays[f"numeric/{name}"] = numbers
    for name, vectors in table.vectors.items():
        for part, array in vectors._asdict().items():
            arrays[f"vectors/{name}/{part}"] = array
    facts = {
        "num_rows": table.num_rows,
        "num_described": table.num_described,
        "categorical": {n: _labels(c) for n, c in table.categorical.items()},
        "multi": {n: [*_labels(c), c.kind] for n, c in table.multi.items()},
        "numeric": {name: list(table.scales.get(name, (0.0, 1.0))) for name in table.numeric},
        "vectors": list(table.vectors),
    }
    return arrays, facts


def parts_of_state(
    arrays: Mapping[str, AnyArray], facts: Mapping[str, Any], *, call: str
) -> dict[str, Any]:
    """The arguments of the ``FeatureTable`` whose state it is.

    Raises:
        FileFormatError: arrays that are missing or do not fit the facts.
    """
    checks.check_kind(call, Mapping, "arrays by name", arrays=arrays)
    checks.check_kind(call, Mapping, "facts by name", facts=facts)
    try:
        size = int(facts["num_rows"])
        categorical, multi, numeric = {}, {}, {}
        for name, (count, labels) in facts["categorical"].items():
            codes = checks.as_codes(
                arrays[f"categorical/{name}"], count, call=call, name=name, unknown=True
            )
            _fits(name, codes.size, size)
            categorical[name] = CategoricalColumn(codes, count, tuple(labels))
        for name, (count, labels, *kind) in facts["multi"].items():
            indptr, codes = checks.as_csr(
                arrays[f"multi/{name}/indptr"],
                arrays[f"multi/{name}/codes"],
                count,
                call=call,
                name=name,
            )
            _fits(name, indptr.size - 1, size)
            multi[name] = MultiColumn(indptr, codes, count, tuple(labels), *kind)
        for name in facts["numeric"]:
            numbers = checks.as_matrix(
                np.asarray(arrays[f"numeric/{name}"]).reshape(size, 1), call=call, name=name
            )
            numeric[name] = numbers[:, 0]
        names = facts.get("vectors", ())
        return {
            "num_rows": size,
            "categorical": categorical,
            "multi": multi,
            "numeric": numeric,
            "scales": {name: (float(m), float(d)) for name, (m, d) in facts["numeric"].items()},
            "vectors": {name: _vectors_of(arrays, name, size, call) for name in names},
            "num_described": int(facts.get("num_described", size)),
        }
    except (KeyError, ValueError, TypeError) as error:
        raise FileFormatError(f"{call}: the state is damaged: {error}") from error


def _vectors_of(arrays: Mapping[str, AnyArray], name: str, size: int, call: str) -> VectorColumn:
    values = checks.as_matrix(arrays[f"vectors/{name}/values"], call=call, name=name)
    scales = []
    for part in ("mean", "deviation"):
        numbers = np.asarray(arrays[f"vectors/{name}/{part}"], np.float64)
        if numbers.shape != (values.shape[1],) or not np.isfinite(numbers).all():
            raise ValueError(f"{name} has another {part} than its width of {values.shape[1]}")
        scales.append(numbers)
    _fits(name, len(values), size)
    return VectorColumn(values, scales[0], scales[1])


def _fits(name: str, length: int, size: int) -> None:
    if length != size:
        raise ValueError(f"{name} has {length} rows, {size} expected")


def _labels(column: CategoricalColumn | MultiColumn) -> list[Any]:
    return [column.num_categories, list(column.categories)]
