"""``fastneg mine``: vectors in, hard negatives out, as Parquet with one row a query.

A name that ends in .parquet becomes one file; any other a folder of shards, a job that resumes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastneg.checks import IntArray, as_number
from fastneg.columns import plain_column
from fastneg.commands import files, vectors
from fastneg.commands.files import ColumnNames, holds_codes, prepare_file, read_first
from fastneg.commands.unknown_ids import (
    MIN_SHARED,
    Tell,
    UnknownIds,
    as_share,
    report,
    tell_all,
    unknown_ids,
)
from fastneg.commands.vectors import VectorColumns, Vectors, listed, read_vectors, same_width
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.mining.keys import IDS, NOTHING, ROWS, Keyed
from fastneg.mining.mined_folder import MinedFolder, mined_table
from fastneg.mining.miner import MinedNegatives, mine_hard_negatives
from fastneg.mining.shards import mine_to_folder
from fastneg.tables import PARQUET, suffix_of
from fastneg.vocabulary import Vocabulary


def mine(
    queries: Path,
    items: Path,
    positives: Path | None,
    *,
    out: Path,
    query_columns: VectorColumns = vectors.BY_DEFAULT,
    item_columns: VectorColumns = vectors.BY_DEFAULT,
    columns: ColumnNames = files.BY_DEFAULT,
    shard_queries: int | None = None,
    restart: bool = False,
    min_shared: float = MIN_SHARED,
    tell: Tell | None = None,
    options: Mapping[str, Any],
) -> tuple[MinedNegatives | MinedFolder, dict[str, int]]:
    """Mine for every query and write ``out``.

    ``out`` has a row a query: ``query`` (its id), ``items`` (ids), ``scores``, ``ranks`` (lists,
    shorter where the window did not have enough). One file has the report as JSON in its schema; a
    folder in its manifest.

    Args:
        queries, items: see ``read_vectors``.
        positives: interactions by ids, or by row numbers where the vectors have no ids.
        out: FILE.parquet, or a folder.
        shard_queries, restart: of a folder; see ``mine_to_folder`` (restart is not resume).
        min_shared: the share of ids that positives and vectors need to have in common.
        tell: called at the end with lines that say which columns were used as ids and how many ids
            are unknown.
        options: arguments of ``mine_hard_negatives``.

    Returns:
        What was mined, in row numbers, and counts of the positives that could not be placed.

    Raises:
        FastnegError: files, ids or options that do not fit; a folder that cannot be written.
    """
    single = suffix_of(out) in PARQUET and not out.is_dir()
    if single:
        prepare_file(out, queries, items, positives)
    _refuse_out(out, single=single, sharded=restart or shard_queries is not None)
    limit = as_share(min_shared)
    met_with = NOTHING
    if positives is not None:
        met_with = ROWS if holds_codes(positives, columns) else IDS
    asked, catalog = (
        read_vectors(path, named, side=side, load=single, keyed=Keyed(flag, met_with, repeats))
        for path, named, side, flag, repeats in (
            (queries, query_columns, "user", "--query-id-column", True),
            (items, item_columns, "item", "--item-id-column", False),
        )
    )
    lines = [one.said for one in (asked, catalog) if one.said]
    if single:
        same_width(asked, catalog)
    of_item = _ids_of(catalog)
    arguments = dict(options)
    counts: dict[str, int] = {}
    if positives is not None:
        known, users, counts = read_positives(
            positives, columns, asked, catalog, of_item, limit, lines.append
        )
        arguments |= {"positives": known, "query_users": users}
    if asked.groups is not None or catalog.groups is not None:
        arguments |= _groups(asked, catalog)
    if not single:
        folder = mine_to_folder(
            asked.path, catalog.path, out, query_ids=asked.ids, item_ids=catalog.ids,
            query_vector_column=asked.column, item_vector_column=catalog.column,
            shard_queries=shard_queries, resume=not restart, **arguments,
        )  # fmt: skip
        tell_all(lines, tell)
        return folder, counts
    mined = mine_hard_negatives(asked.matrix, catalog.matrix, **arguments)
    report = {**mined.report.to_dict(), **counts}
    table = mined_table(
        pa.array(asked.all_ids()), mined.items, mined.scores, mined.ranks, catalog.all_ids()
    )
    from fastneg.training.checkpoints import replacing  # brings torch

    with replacing(out) as temporary:
        pq.write_table(table.replace_schema_metadata({"fastneg": json.dumps(report)}), temporary)
    tell_all(lines, tell)
    return mined, counts


def _refuse_out(out: Path, *, single: bool, sharded: bool) -> None:
    if out.suffix in (".npz", ".npy", ".csv", ".json"):
        raise FastnegError(
            f"--out {out} has the suffix {out.suffix!r}; give FILE.parquet or a folder"
        )
    if single and sharded:
        raise FastnegError(
            f"--restart and --shard-queries are for a folder, and --out {out} is one file; give a "
            "folder"
        )


def bytes_of(gib: float) -> int:
    """Whole bytes of GiB.

    Raises:
        FastnegError: not a finite number above 0.
    """
    number = as_number(gib, call="mine", name="memory")
    if number <= 0:
        raise FastnegError(f"memory = {gib} GiB is not above 0")
    return int(number * 2**30)


def _ids_of(items: Vectors) -> Vocabulary:
    """The catalog's ids, each once, at its row."""
    if items.ids is None:
        return Vocabulary(items.num_rows)
    name = f"{items.path}: ids"
    return Vocabulary.build([], items.ids, call="mine", name="ids", table_name=name)[0]


def read_positives(
    path: Path,
    columns: ColumnNames,
    queries: Vectors,
    items: Vectors,
    of_item: Vocabulary,
    min_shared: float,
    tell: Tell,
) -> tuple[Interactions, IntArray, dict[str, int]]:
    """Positives in the catalog's row numbers, each query's user among them, what was left out.

    Raises:
        FastnegError: codes beside vectors with ids, ids that are no row numbers beside vectors
            without, too few ids that the vectors have.
    """
    read = read_first(path, columns)
    if holds_codes(path, columns) and not (queries.counts_rows() and items.counts_rows()):
        raise FastnegError(
            f"{path} holds codes (row and column numbers), and the vectors of {queries.path} and "
            f"{items.path} have ids; give the positives with ids"
        )
    of_query, query_users = Vocabulary(queries.num_rows), np.arange(queries.num_rows)
    if queries.ids is not None:
        of_query, query_users = Vocabulary.build(queries.ids, call="mine", name="ids")
    rows = read.positive_rows
    users, codes = read.row_users[rows], read.row_items[rows]
    if holds_codes(path, columns):  # numbers of rows
        users = np.where(users < queries.num_rows, users, -1)
        codes = np.where(codes < items.num_rows, codes, -1)
    else:
        users = of_query.encode(read.decode_users(users), call="mine", name=f"{path}: users")
        codes = of_item.encode(read.decode_items(codes), call="mine", name=f"{path}: items")
    placed = (users >= 0) & (codes >= 0)
    if not placed.any():
        raise FastnegError(
            f"{path} has no pair of a query of {queries.path} ({queries.sample_of_ids()}) and an "
            f"item of {items.path} ({items.sample_of_ids()}): its users are "
            f"{listed(read.user_ids)}, its items {listed(read.item_ids)}; give the ids that the "
            "vectors have (row numbers, where they have none)"
        )
    if not holds_codes(path, columns):
        compared = [
            unknown_ids("users", path, read.user_ids, queries.path, of_query),
            unknown_ids("items", path, read.item_ids, items.path, of_item),
        ]
        for found, vectors_of in zip(compared, (queries, items), strict=True):
            _refuse_no_rows(found, vectors_of)
        report(compared, min_shared, tell)
    counts = {
        "positives_of_unknown_queries": int((users < 0).sum()),
        "positives_of_unknown_items": int(((users >= 0) & (codes < 0)).sum()),
    }
    known = Interactions.from_codes(
        users[placed], codes[placed], num_users=len(of_query), num_items=len(of_item)
    )
    return known, query_users, counts


def _refuse_no_rows(found: UnknownIds, owner: Vectors) -> None:
    """Raise where ids are used as row numbers and some are out of range."""
    if owner.ids is None and found.unknown:
        raise FastnegError(
            f"{owner.path} has no ids, and {found.unknown:,} of the {found.number:,} {found.what} "
            f"of {found.path} are not among its rows 0..{owner.num_rows - 1}, such as "
            f"{found.examples[0]!r}; give vectors with their ids (Parquet with an id column, or a "
            "folder that `fastneg train` wrote)"
        )


def _groups(queries: Vectors, items: Vectors) -> dict[str, IntArray | None]:
    """Group codes that queries and items share; -1 where there is no group."""
    columns = [
        None if one is None else plain_column(one).cast(pa.large_string())
        for one in (queries.groups, items.groups)
    ]
    given = [one for one in columns if one is not None]
    names = pa.chunked_array([c for one in given for c in pa.chunked_array(one).chunks]).unique()
    names = names.drop_null()
    codes = [
        None
        if one is None
        else np.asarray(pc.index_in(one, value_set=names).fill_null(-1).to_numpy(), np.int64)
        for one in columns
    ]
    return {"query_groups": codes[0], "item_groups": codes[1]}
