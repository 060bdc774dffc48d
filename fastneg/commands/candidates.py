"""Files of given candidates: each test item with the items that it is ranked among."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fastneg.errors import FileFormatError
from fastneg.interactions import Interactions
from fastneg.tables import existing_file
from fastneg.training.given_candidates import given_candidates
from fastneg.training.sampled_evaluation import SampledCandidates

_PAIR = re.compile(r"\(([^,()]+),([^()]+)\)")


def read_candidates(path: Path, train: Interactions, *, user: str, item: str) -> SampledCandidates:
    """Read candidates by the ids of ``train``.

    Parquet has the columns ``user`` and ``item`` and a column of lists, ``negatives``. Text has one
    test item a line, ``(user,item)`` and its negatives (as NCF's ``*.test.negative``), or user,
    item and negatives, separated by tabs or else by blanks.

    Raises:
        FileFormatError: no file, another format; the error names the line.
        FastnegError: as ``given_candidates``.
    """
    file = existing_file(path, call="read")
    if file.suffix in (".parquet", ".pq"):
        users, items, lists = _of_parquet(file, user, item)
    else:
        users, items, lists = _of_text(file)
    flat = [one for row in lists for one in row]
    codes = train.encode_items(flat, unknown=-1) if flat else np.zeros(0, np.int64)
    ends = 0
    negatives = []
    for row in lists:
        negatives.append(codes[ends : ends + len(row)])
        ends += len(row)
    return given_candidates(
        train, train.encode_users(users, unknown=-1), train.encode_items(items, unknown=-1),
        negatives,
    )  # fmt: skip


def _of_parquet(file: Path, user: str, item: str) -> tuple[list[Any], list[Any], list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        users, items, lists = (table[name].to_pylist() for name in (user, item, "negatives"))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise FileFormatError(
            f"{file}: not candidates ({error}); give Parquet with the columns {user}, {item} and "
            "negatives, a list"
        ) from error
    for row, one in enumerate(lists):
        if not isinstance(one, list):
            raise FileFormatError(f"{file}: negatives of row {row} are no list")
    return users, items, lists


def _of_text(file: Path) -> tuple[list[str], list[str], list[list[str]]]:
    users, items, lists = [], [], []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{file}: not candidates in UTF-8 ({error})") from error
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
    return users, items, lists
