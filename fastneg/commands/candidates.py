"""Files of given candidates: each test item with the items that it is ranked among."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastneg.archives import DAMAGE
from fastneg.checks import IntArray
from fastneg.columns import is_list, normalise_ids
from fastneg.commands.files import ColumnNames, ids_of_texts
from fastneg.commands.unknown_ids import UnknownIds, unknown_ids
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError, one_line
from fastneg.ids import file_ids
from fastneg.interactions import Interactions
from fastneg.tables import existing_file, file_kind, read_columns
from fastneg.text_files import open_text
from fastneg.text_options import TextFormat
from fastneg.training.given_candidates import given_candidates
from fastneg.training.sampled_evaluation import SampledCandidates
from fastneg.vocabulary import Vocabulary

NEGATIVES = "negatives"
_WITH_LISTS = ("parquet", "arrow", "json", "folder")  # a delimited text has no lists
_PAIR = re.compile(r"\(([^,()]+),([^()]+)\)")


class _Rows(NamedTuple):
    """Ids of users [Q], of items [Q] and of the negatives of all rows; row q has ``counts[q]``."""

    users: Any
    items: Any
    negatives: Any
    counts: IntArray


def read_candidates(
    path: Path, train: Interactions, train_path: Path, columns: ColumnNames
) -> tuple[SampledCandidates, list[UnknownIds]]:
    """(candidates by the ids of ``train``, how many users and items are unknown to it).

    A table (Parquet, Arrow, JSON lines) has the columns of users and of items and a column of
    lists, ``negatives``. Text has one test item a line, ``(user,item)`` and its negatives (as NCF's
    ``*.test.negative``), or user, item and negatives, separated by tabs or else by blanks.

    Raises:
        FileFormatError: no file, another format; the error names the line.
        FastnegError: as ``given_candidates``; missing ids.
    """
    file = existing_file(path, call="read")
    form = TextFormat.of(columns.of_tables(), call="read")
    if file_kind(file, form, call="read") in _WITH_LISTS:
        rows = _of_table(file, columns.user or "user", columns.item or "item", columns)
    else:
        rows = _of_text(file, form)
    users, items, negatives = (
        normalise_ids(ids, call="read", name=f"{file}: {name}")
        for name, ids in zip(("users", "items", NEGATIVES), rows, strict=False)
    )
    counts = [
        unknown_ids(name, file, Vocabulary.build(ids, call="read", name=name)[0].ids(),
                    train_path, known)
        for name, ids, known in (("users", users, train._users), ("items", items, train._items))
    ]  # fmt: skip
    codes = train.encode_items(negatives, unknown=-1)
    found = given_candidates(
        train, train.encode_users(users, unknown=-1), train.encode_items(items, unknown=-1),
        np.split(codes, np.cumsum(rows.counts)[:-1]),
    )  # fmt: skip
    return found, counts


def _of_table(file: Path, user: str, item: str, columns: ColumnNames) -> _Rows:
    table = read_columns(
        file, (user, item, NEGATIVES), call="read", text=(user, item), **columns.of_tables()
    )
    for name in (user, item):
        table.refuse_missing(name, call="read")
    lists = table.data[NEGATIVES].combine_chunks()
    if not is_list(lists.type):
        raise FastnegTypeError(
            f"{file}: {NEGATIVES} is of type {lists.type}; give a column of lists of item ids"
        )
    lists = lists.cast(pa.large_list(lists.type.value_type))
    if lists.null_count:
        row = int(np.flatnonzero(lists.is_null().to_numpy(zero_copy_only=False))[0])
        raise FastnegError(f"{file}: {NEGATIVES}[{row}] is null; give a list of item ids")
    ids = file_ids(lists.flatten(), call="read", name=f"{file}: {NEGATIVES}")
    counts = np.diff(lists.offsets.to_numpy()).astype(np.int64)
    return _Rows(table.data[user], table.data[item], ids, counts)


def _of_text(file: Path, form: TextFormat) -> _Rows:
    users, items, lists = [], [], []
    try:
        with open_text(file, form, call="read") as stream:
            lines = stream.read().decode().splitlines()
    except FastnegError:
        raise
    except DAMAGE as error:
        raise FileFormatError(f"{file}: not candidates in UTF-8 ({one_line(error)})") from error
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        pair = _PAIR.match(text)
        rest = text if pair is None else text[pair.end() :].strip()
        fields = [one.strip() for one in (rest.split("\t") if "\t" in rest else rest.split())]
        head = fields[:2] if pair is None else [pair[1].strip(), pair[2].strip()]
        found = fields[2:] if pair is None else fields
        if len(head) < 2 or not found or not all([*head, *found]):
            raise FileFormatError(
                f"{file}: line {number} has no user, item and negatives; give (user,item) and the "
                "negatives, separated by tabs"
            )
        users.append(head[0])
        items.append(head[1])
        lists.append(found)
    if not lists:
        raise FileFormatError(f"{file}: there are no candidates in it")
    flat = (users, items, [one for row in lists for one in row])
    ids = [ids_of_texts(texts, file, form) for texts in flat]
    return _Rows(ids[0], ids[1], ids[2], np.array([len(row) for row in lists]))
