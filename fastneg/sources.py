"""Adjacency text: one line a user, with all of its items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastneg.archives import DAMAGE
from fastneg.checks import shown
from fastneg.errors import FastnegError, FileFormatError, one_line
from fastneg.ids import canonical_texts
from fastneg.lazy import lazy_module
from fastneg.list_signs import sign_of_a_column, sign_of_a_field
from fastneg.tables import existing_file
from fastneg.text_files import open_text, without_null_texts
from fastneg.text_options import PLAIN, TextFormat

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")

_NARROW = 5  # lines of fewer fields, all of one length, are how tables look
_SHARED = 0.5  # of the values in one column: the share that stands in other columns too


class Adjacency(NamedTuple):
    """Users [R] and items [R] of all pairs, and every user once [U], as Arrow texts."""

    users: Any
    items: Any
    user_ids: Any


class _Lines(NamedTuple):
    """Tokens of all lines; line l has ``lengths[l]`` of them from ``starts[l]``, and its tabs."""

    tokens: Any
    starts: Any
    lengths: Any
    tabs: Any


def read_adjacency(
    path: str | Path,
    form: TextFormat = PLAIN,
    *,
    call: str,
    asked: bool = True,
    beside: bool = False,
) -> Adjacency:
    """Lines ``user item item ...``.

    Tokens are parted by white space; a line with a user alone is a user without items; blank lines
    are skipped.

    Args:
        path: a text, compressed or not.
        form: its encoding, and whether texts such as ``NULL`` are missing values.
        call: the function that was called, for errors.
        asked: whether the caller said that the file is adjacency text; False raises unless the text
            can be nothing else: plain integers, a line for each user, and lines of different
            lengths (or of two tokens, which are pairs either way, or long ones with the same items
            in all columns) without a sign of times, ratings or counts at an end of the lines
            (``list_signs``).
        beside: with ``asked=False``, another file of the same kind was adjacency text, so that
            lines of one length raise no doubt.

    Raises:
        FileFormatError: no such file, an empty one, another encoding, maybe a table.
        FastnegError: a missing value.
    """
    file = existing_file(path, call=call)
    try:
        with open_text(file, form, call=call) as stream:
            content = stream.read()
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        whole = pa.array([content], pa.large_binary()).cast(pa.large_string())
    except FastnegError:
        raise
    except (*DAMAGE, pa.ArrowException) as error:
        raise FileFormatError(
            f"{call}: {file} is not readable text: {one_line(error)}; if it is text, give its "
            "encoding= (--encoding)"
        ) from error
    raw = pc.split_pattern(whole, "\n").flatten()
    texts = pc.utf8_trim_whitespace(raw)
    filled = pc.not_equal(texts, "")
    raw, texts = raw.filter(filled), texts.filter(filled)
    if len(texts) == 0:
        raise FileFormatError(f"{call}: {file} has no lines")
    split = pc.utf8_split_whitespace(texts)
    offsets = np.asarray(split.offsets.to_numpy(), np.int64)
    tabs = pc.count_substring(raw, "\t").to_numpy()
    lines = _Lines(split.flatten(), offsets[:-1], np.diff(offsets), tabs)
    doubt = None if asked else _doubt(lines, beside=beside)
    if doubt is not None:
        raise FileFormatError(f"{call}: {file} {doubt}; {_instead(texts[:20].to_pylist())}")
    tokens = canonical_texts(lines.tokens)
    if form.nulls and (missing := without_null_texts(tokens)[1]) is not None:
        raise FastnegError(
            f"{call}: {file} has {missing!r} for an id, a missing value; every row needs an id; "
            "nulls=False (--no-nulls) reads such texts as ids"
        )
    is_item = np.ones(len(tokens), np.bool_)
    is_item[lines.starts] = False
    line_users = tokens.take(pa.array(lines.starts))
    users = line_users.take(pa.array(np.repeat(np.arange(len(texts)), lines.lengths - 1)))
    return Adjacency(users, tokens.filter(pa.array(is_item)), line_users.unique())


def _doubt(lines: _Lines, *, beside: bool) -> str | None:
    """Why lines may be something else than adjacency; None where they can be nothing else."""
    whole = pc.ascii_is_decimal(lines.tokens).to_numpy(zero_copy_only=False)
    if not whole.all():
        token = lines.tokens[int(np.flatnonzero(~whole)[0])].as_py()
        if not token.isprintable():
            return f"is not readable text: it holds {token[:20]!r}"
        return f"may be a table or a log: it holds {token[:40]!r}, no plain integer"
    shortest, longest = int(lines.lengths.min()), int(lines.lengths.max())
    if longest == 1 or shortest == longest == 2:
        return None
    counts = pc.value_counts(lines.tokens.take(pa.array(lines.starts)))
    most = int(np.argmax(counts.field("counts").to_numpy()))
    number = counts.field("counts")[most].as_py()
    if number > 1:
        user = counts.field("values")[most].as_py()
        return f"may be a table: {number} lines begin with {user!r}"
    empty = lines.tabs + 1 - lines.lengths  # cells, where tabs alone separate the fields
    if int(empty.min()) >= 0 and int(empty.min()) < int(empty.max()):
        return "may be a table: lines have empty cells between their tabs"
    numbers = pc.cast(lines.tokens, pa.float64()).to_numpy()
    if shortest < longest:
        sign = sign_of_a_field(numbers, lines.starts, lines.lengths)
    elif beside or (longest >= _NARROW and _are_sets(lines, longest)):
        sign = sign_of_a_column(numbers.reshape(-1, longest))
    else:
        return f"may be a table: every line has {longest} fields"
    return None if sign is None else f"may be a table or a log: {sign}"


def _are_sets(lines: _Lines, width: int) -> bool:
    """Whether the fields after the first look like sets of items, in lines of one length.

    No line has an item twice, and the columns hold the same items.
    """
    codes = pc.dictionary_encode(lines.tokens).indices.to_numpy().reshape(-1, width)[:, 1:]
    ordered = np.sort(codes, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return False
    everywhere = np.bincount(codes.reshape(-1))
    for column in codes.T:
        here = np.bincount(column, minlength=everywhere.size)
        if np.mean((everywhere - here)[column] > 0) < _SHARED:
            return False
    return True


def _instead(lines: Sequence[str]) -> str:
    """What to give for a text with these first lines."""
    counts = {one: {line.count(one) for line in lines} for one in ("\t", "::", ",", ";", "|", " ")}
    even = [one for one, numbers in counts.items() if len(numbers) == 1 and numbers != {0}]
    delimiter = next(iter(even), next((one for one, n in counts.items() if n != {0}), ","))
    flag = {"\t": "tab", " ": "space"}.get(delimiter, repr(delimiter))
    table = f"for a table give delimiter={delimiter!r} (--delimiter {flag})"
    first = [name.strip() for name in lines[0].split(delimiter)]
    if any(name.isidentifier() for name in first):
        listed = shown(", ".join(first[:6]))
        named = f"and the names of its columns ({listed}) as user_column= and item_column="
    else:
        named = (
            "and the names of its columns as column_names=['user', 'item', ...] (--header "
            "user,item,...)"
        )
    return (
        f"{table} {named}, for lines of a user and all of its items format='adjacency' (--format "
        "adjacency)"
    )
