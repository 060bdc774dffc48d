"""Count the ids of one file that another lacks, report them, and refuse files that share too few.

The share is that of the smaller file's ids which the larger one has. Files whose ids cannot match
(``"0042"`` against 42, ids of another export) share none, or a few by accident.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from fastneg.checks import IntArray, as_number
from fastneg.columns import normalise_ids
from fastneg.commands.files import TableOfIds
from fastneg.errors import FastnegError
from fastneg.ids import as_texts
from fastneg.interactions import Interactions
from fastneg.vocabulary import Vocabulary

MIN_SHARED = 0.1
Tell = Callable[[str], object]
_LOOKED_AT = 10_000  # unknown ids, for a hint


@dataclass(frozen=True)
class UnknownIds:
    """Distinct ids of one kind that a file has and another lacks.

    Attributes:
        what: "users", "items", "queries".
        path: the file.
        known_to: the other one.
        number: distinct ids in the file.
        unknown: of these, those that the other one does not know.
        known: distinct ids of the other one.
        examples: an unknown id, and one of the other file.
        hint: why they may be unknown (leading zeros, case, ...), or "".
    """

    what: str
    path: Path
    known_to: Path
    number: int
    unknown: int
    known: int
    examples: tuple[Any, Any] = (None, None)
    hint: str = ""

    @property
    def shared(self) -> float:
        """The number of shared ids over the number of ids of the smaller file."""
        smaller = min(self.number, self.known)
        return (self.number - self.unknown) / smaller if smaller else 1.0

    def __str__(self) -> str:
        return f"{self.unknown:,} of {self.number:,} {self.what}"

    def check(self, min_shared: float) -> None:
        """Raise where the files share no id, or less than a share.

        Raises:
            FastnegError: with an id of each.
        """
        if self.number == 0 or (self.unknown < self.number and self.shared >= min_shared):
            return
        found = self.number - self.unknown
        there = f"the {self.known:,} of {self.known_to}"
        shown = f"{self.examples[0]!r} here, {self.examples[1]!r} there{self.hint}"
        if found == 0:
            raise FastnegError(
                f"{self.path}: none of its {self.number:,} {self.what} is among {there} ({shown}); "
                "give files with the same ids"
            )
        raise FastnegError(
            f"{self.path} shares {found:,} of its {self.number:,} {self.what} with {there}, "
            f"{self.shared:.2%} of the fewer, and less than --min-shared {min_shared:g} ({shown}); "
            "give files with the same ids, or a lower --min-shared"
        )


def as_share(min_shared: float) -> float:
    """``--min-shared``, checked.

    Raises:
        FastnegError: not a number from 0 to 1.
    """
    return as_number(min_shared, call="min-shared", name="min_shared", minimum=0, maximum=1)


def unknown_ids(what: str, path: Path, ids: Any, known_to: Path, known: Any) -> UnknownIds:
    """Count them.

    Args:
        what: what the ids are of, in the plural.
        path, known_to: for the text.
        ids: the distinct ids of the file.
        known: a ``Vocabulary`` of the other file.
    """
    codes = known.encode(ids, call="read", name=f"{path}: {what}")
    return _counted(what, path, known_to, np.asarray(ids), codes < 0, known)


def _counted(
    what: str, path: Path, known_to: Path, ids: Any, unknown: Any, known: Any
) -> UnknownIds:
    count = int(np.count_nonzero(unknown))
    if count == 0:
        return UnknownIds(what, path, known_to, len(ids), 0, len(known))
    strange = ids[np.flatnonzero(unknown)[:_LOOKED_AT]]
    there = known.decode([0], call="read", name="ids").tolist()[0]
    hint = _hint(strange, known) if 10 * count >= len(ids) else ""
    return UnknownIds(
        what, path, known_to, len(ids), count, len(known), (strange[:1].tolist()[0], there), hint
    )


def _hint(strange: Any, known: Any) -> str:
    """Why ids are unknown, where a simple difference explains it; or ""."""
    texts, theirs = _as_texts(strange), _as_texts(known.ids())
    for change, reason in (
        (lambda ids: pc.replace_substring_regex(ids, r"^0+([0-9])", r"\1"), "leading zeros"),
        (pc.utf8_lower, "upper and lower case"),
    ):
        met = pc.sum(pc.is_in(change(texts), value_set=change(theirs))).as_py() or 0
        if met:
            return f"; {met:,} of {len(texts):,} unknown ids differ by {reason} alone"
    rounded = pc.sum(pc.match_substring_regex(texts, r"^-?[0-9](\.[0-9]+)?[eE]\+?[0-9]+$")).as_py()
    if rounded:
        return f"; {rounded:,} of {len(texts):,} unknown ids were written as rounded numbers"
    return ""


def _as_texts(ids: Any) -> Any:
    normal = normalise_ids(ids, call="read", name="ids")
    return as_texts(normal) if isinstance(normal, np.ndarray) else normal


def between(
    path: Path,
    other: Interactions,
    first_path: Path,
    first: Interactions,
    *,
    users: bool = True,
) -> list[UnknownIds]:
    """Of interactions that were read into the codes of others: ids with a row that those lack."""
    sides = [("items", other.row_items, other._items, first._items)]
    if users:
        sides.insert(0, ("users", other.row_users, other._users, first._users))
    return [
        _of_codes(what, path, first_path, codes, own, known) for what, codes, own, known in sides
    ]


def of_table(
    what: str, path: Path, codes: IntArray, vocabulary: Vocabulary, table: TableOfIds
) -> UnknownIds:
    """Ids of interactions that a table lacks; ``codes`` are of rows, the table's ids come first."""
    own = Vocabulary.build(table.ids(), call="read", name=str(table.path))[0]
    return _of_codes(what, path, table.path, codes, vocabulary, own)


def _of_codes(
    what: str, path: Path, known_to: Path, codes: IntArray, own: Any, known: Any
) -> UnknownIds:
    used = np.flatnonzero(np.bincount(codes, minlength=1))
    ids = own.decode(used, call="read", name=what)
    return _counted(what, path, known_to, ids, used >= len(known), known)


def report(counts: list[UnknownIds], min_shared: float, tell: Tell | None) -> None:
    """Tell the counts of one file in a line, then raise if it shares too few ids.

    Raises:
        FastnegError: as ``UnknownIds.check``.
    """
    if tell is not None and counts:
        hints = "".join(one.hint for one in counts)
        if len({one.known_to for one in counts}) == 1:
            parts = f"{' and '.join(map(str, counts))} are unknown to {counts[0].known_to}"
        else:
            parts = ", ".join(f"{one} are unknown to {one.known_to}" for one in counts)
        tell(f"{counts[0].path}: {parts}{hints}")
    for one in counts:
        one.check(min_shared)


def tell_all(lines: list[str], tell: Tell | None) -> None:
    """Print the lines that ``report`` collected: at the end, since a failing command prints one."""
    if tell is not None:
        for line in lines:
            tell(line)
