"""Interactions as files and matrices carry them: sparse matrices and adjacency text."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np

from fastneg.errors import FileFormatError
from fastneg.ids import canonical_texts
from fastneg.lazy import lazy_module
from fastneg.tables import existing_file, one_line

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")


def read_adjacency(path: str | Path, *, call: str) -> tuple[Any, Any, Any]:
    """(users [R], items [R], every user once [U]) of lines ``user item item ...``, as Arrow texts.

    Tokens are parted by spaces or tabs; a line with a user alone is a user without items; blank
    lines are skipped.

    Raises:
        FileFormatError: no such file, an empty one, not UTF-8 text.
    """
    file = existing_file(path, call=call)
    try:
        content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        whole = pa.array([content], pa.large_binary()).cast(pa.large_string())
    except (OSError, pa.ArrowInvalid) as error:
        raise FileFormatError(f"{call}: {file} is not readable text: {one_line(error)}") from error
    lines = pc.utf8_trim_whitespace(pc.split_pattern(whole, "\n").flatten())
    lines = lines.filter(pc.not_equal(lines, ""))
    if len(lines) == 0:
        raise FileFormatError(f"{call}: {file} has no lines")
    split = pc.utf8_split_whitespace(lines)
    tokens = canonical_texts(split.flatten())
    starts = np.asarray(split.offsets.to_numpy()[:-1], np.int64)
    lengths = np.asarray(np.diff(split.offsets.to_numpy()), np.int64)
    is_item = np.ones(len(tokens), np.bool_)
    is_item[starts] = False
    line_users = tokens.take(pa.array(starts))
    users = line_users.take(pa.array(np.repeat(np.arange(starts.size), lengths - 1)))
    return users, tokens.filter(pa.array(is_item)), line_users.unique()
