"""``fastneg sample``: interactions in, draws out, streamed to Parquet with one row a negative."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastneg.checks import IntArray, as_choice, as_integer
from fastneg.commands import files
from fastneg.commands.files import (
    ColumnNames,
    TableOfIds,
    holds_codes,
    prepare_file,
    read_first,
    read_listed,
)
from fastneg.commands.unknown_ids import (
    MIN_SHARED,
    Tell,
    as_share,
    of_table,
    report,
    tell_all,
    unknown_ids,
)
from fastneg.errors import ExhaustedUserError, UnknownIdError
from fastneg.interactions import Interactions
from fastneg.samplers.base import Sampler
from fastneg.samplers.popularity import PopularitySampler
from fastneg.samplers.results import Negatives
from fastneg.samplers.uniform import UniformSampler
from fastneg.training.checkpoints import replacing
from fastneg.training.progress import Bar

SAMPLERS = ("uniform", "popularity")
EXHAUSTED = ("drop", "raise")
_DRAWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Drawing:
    """What to draw: the arguments of the samplers, by the names of the flags."""

    sampler: str = "uniform"
    exponent: float = 0.75
    smoothing: float = 0.0
    num_negatives: int = 10
    replacement: bool = True
    log_q: bool = True
    seed: int = 0
    epoch: int = 0
    exhausted: str = "drop"


@dataclass(frozen=True)
class Drawn:
    """What was drawn: rows with negatives, draws, rows and users left out as exhausted."""

    rows: int
    draws: int
    dropped_rows: int
    dropped_users: int


def sample(
    interactions: Path,
    *,
    out: Path,
    drawing: Drawing,
    users: str = "all",
    columns: ColumnNames = files.BY_DEFAULT,
    items: TableOfIds | None = None,
    progress: bool | None = None,
    min_shared: float = MIN_SHARED,
    tell: Tell | None = None,
) -> Drawn:
    """Draw negatives and write ``out``.

    ``out`` has a row a draw: ``user``, ``item`` (ids), ``log_q``, ``source``; with
    ``users="positives"`` also ``positive``, the item of the row that the draw is for. The same
    seed, epoch and rows give the same draws on every machine.

    Args:
        interactions: training interactions; their positives are never drawn.
        users: "all" users once; "positives": one row for each positive row of the file; or a file
            of user ids (a table with the user column, or one id a line).
        items: a table with further items of the catalog.
        min_shared, tell: as of ``train``.

    Raises:
        ExhaustedUserError: with ``exhausted="raise"``, users for whom nothing is left.
        FastnegError: bad arguments or files, unknown users, a folder that cannot be written.
    """
    as_choice(drawing.exhausted, EXHAUSTED, call="sample", name="exhausted")
    as_integer(drawing.num_negatives, call="sample", name="num_negatives", minimum=1)
    given = Path(users) if users not in ("all", "positives") else None
    prepare_file(out, interactions, given, None if items is None else items.path)
    known = read_first(interactions, columns, item_ids=None if items is None else items.ids())
    limit = as_share(min_shared)
    lines: list[str] = []
    if items is not None and not holds_codes(interactions, columns):
        counts = of_table("items", interactions, known.row_items, known._items, items)
        report([counts], limit, lines.append)
    sampler = make_sampler(known, drawing)
    codes, positives = _rows(known, users, columns, interactions, lines.append)
    writer = _Writer(known, sampler, drawing, positives=positives is not None)
    bad: set[int] = set()
    rows = 0
    block = max(1, _DRAWS_AT_ONCE // drawing.num_negatives)
    with (
        replacing(out) as temporary,
        pq.ParquetWriter(temporary, writer.schema) as file,
        Bar("sample", len(codes), enabled=progress) as bar,
    ):
        for start in range(0, len(codes), block):
            numbers = np.arange(start, min(start + block, len(codes)))
            kept, drawn = _draw(sampler, codes, positives, numbers, drawing, known, bad)
            if drawn is not None:
                of_rows = None if positives is None else positives[kept]
                file.write_table(writer.table(codes[kept], of_rows, drawn))
            rows += len(kept)
            bar.advance(len(numbers))
    tell_all(lines, tell)
    return Drawn(rows, rows * drawing.num_negatives, len(codes) - rows, len(bad))


def make_sampler(known: Interactions, drawing: Drawing) -> Sampler:
    """The sampler that the flags describe."""
    as_choice(drawing.sampler, SAMPLERS, call="sample", name="sampler")
    common: dict[str, Any] = {"seed": drawing.seed, "replacement": drawing.replacement}
    sampler: Sampler
    if drawing.sampler == "uniform":
        sampler = UniformSampler(known, **common)
    else:
        sampler = PopularitySampler(
            known, exponent=drawing.exponent, smoothing=drawing.smoothing, **common
        )
    sampler.set_epoch(drawing.epoch)
    return sampler


def _rows(
    known: Interactions, users: str, columns: ColumnNames, path: Path, tell: Tell
) -> tuple[IntArray, IntArray | None]:
    """Codes of the user (and of the positive) of each row to draw for."""
    if users == "all":
        return np.arange(known.num_users, dtype=np.int64), None
    if users == "positives":
        rows = known.positive_rows
        return known.row_users[rows], known.row_items[rows]
    ids = read_listed(Path(users), columns.user or "user", columns)
    codes = known.encode_users(ids, unknown=-1)
    unknown = np.flatnonzero(codes < 0)
    counts = unknown_ids("users", Path(users), np.unique(ids), path, known._users)
    if unknown.size:
        raise UnknownIdError(
            f"{users}: {ids[unknown[0]]!r} is no user of the interactions ({unknown.size} of "
            f"{codes.size} are not){counts.hint}; leave such rows out, or give all"
        )
    report([counts], 0.0, tell)
    return codes, None


def _draw(
    sampler: Sampler,
    codes: IntArray,
    positives: IntArray | None,
    numbers: IntArray,
    drawing: Drawing,
    known: Interactions,
    bad: set[int],
) -> tuple[IntArray, Negatives | None]:
    """(rows drawn for, draws) of some rows; users without anything to draw go to ``bad``."""
    while len(numbers):
        try:
            drawn = sampler.sample(
                codes[numbers],
                drawing.num_negatives,
                positives=None if positives is None else positives[numbers],
                rows=numbers,
                log_q=drawing.log_q,
            )
        except ExhaustedUserError as error:
            if drawing.exhausted == "raise":
                raise _in_ids(error, known) from error
            bad.update(error.users)
            numbers = numbers[~np.isin(codes[numbers], error.users)]
        else:
            return numbers, drawn
    return numbers, None


def _in_ids(error: ExhaustedUserError, known: Interactions) -> ExhaustedUserError:
    """The error with the users' own ids."""
    ids = known.decode_users(error.users[:5]).tolist()
    shown = ", ".join(map(repr, ids)) + (", ..." if len(error.users) > 5 else "")
    return ExhaustedUserError(
        f"{len(error.users)} users have too few items left to draw (ids {shown}); the first row's: "
        f"{error.why}; --exhausted drop leaves them out",
        error.users,
        error.why,
    )


class _Writer:
    """Draws in codes to tables in ids."""

    def __init__(
        self, known: Interactions, sampler: Sampler, drawing: Drawing, *, positives: bool
    ) -> None:
        self._users, self._items = pa.array(known.user_ids), pa.array(known.item_ids)
        self._sources = pa.array(sampler.source_names)
        self._width = drawing.num_negatives
        fields = [("user", self._users.type)]
        if positives:
            fields.append(("positive", self._items.type))
        fields.append(("item", self._items.type))
        if drawing.log_q:
            fields.append(("log_q", pa.float32()))
        fields.append(("source", pa.dictionary(pa.int8(), pa.string())))
        self.schema = pa.schema(fields)

    def table(self, users: IntArray, positives: IntArray | None, drawn: Negatives) -> Any:
        columns = {
            "user": self._users.take(pa.array(np.repeat(users, self._width))),
            "item": self._items.take(pa.array(drawn.items.numpy().ravel())),
            "source": pa.DictionaryArray.from_arrays(
                pa.array(drawn.source.numpy().ravel()), self._sources
            ),
        }
        if positives is not None:
            columns["positive"] = self._items.take(pa.array(np.repeat(positives, self._width)))
        if drawn.log_q is not None:
            columns["log_q"] = pa.array(drawn.log_q.numpy().ravel())
        return pa.table([columns[name] for name in self.schema.names], schema=self.schema)
