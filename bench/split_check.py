"""Whether a published test set is a random part of its interactions.

python -m bench.split_check

Of an item with n pairs in train and test together, a random split puts n p in the test set, give
or take sqrt(n p (1 - p)), p being the test's share of all pairs; so z = (found - n p) /
sqrt(n p (1 - p)) has a standard deviation of 1 over the items. Where it is far from 1, validation
pairs held out at random resemble the training pairs, not the test set, and settings chosen on them
need not be the best there. The share of the most popular items' pairs says which way it leans.
"""

from __future__ import annotations

import sys

import numpy as np

from bench.trained import read
from bench.worlds import data_folder
from fastneg import Interactions

DATA = ("gowalla", "yelp2018", "ml-1m")
_TOP = 100
_HEAD = (
    f"| set | pairs in test | of the {_TOP} most popular items | standard deviation of z |\n"
    "|---|---|---|---|"
)


def deviation(train: Interactions, test: Interactions) -> float:
    """The standard deviation of z over the items of two parts in the same codes."""
    found, total, share = _counts(train, test)
    some = total > 0
    expected = share * total[some]
    z = (found[some] - expected) / np.sqrt(expected * (1 - share))
    return float(z.std())


def table(names: tuple[str, ...] | None = None) -> str:
    """Markdown: a row for each data set, of those that are there unless named; or nothing."""
    if names is None:
        folder = data_folder()
        names = tuple(name for name in DATA if folder is not None and (folder / name).is_dir())
    if not names:
        return ""
    return "\n".join([_HEAD, *(_row(name, *read(name)) for name in names)])


def _row(name: str, train: Interactions, test: Interactions) -> str:
    found, total, share = _counts(train, test)
    top = np.argsort(-total, kind="stable")[:_TOP]
    cells = [
        name,
        f"{100 * share:.1f} %",
        f"{100 * found[top].sum() / total[top].sum():.1f} %",
        f"{deviation(train, test):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _counts(train: Interactions, test: Interactions) -> tuple[np.ndarray, np.ndarray, float]:
    """(pairs in test by item, pairs in both by item, the test's share of all)."""
    found = np.asarray(test.item_user_counts, np.float64)
    total = found + np.asarray(train.item_user_counts, np.float64)
    return found, total, float(found.sum() / total.sum())


if __name__ == "__main__":
    print(table() or f"no data: set FASTNEG_DATA to the folder of {', '.join(DATA)}")
    sys.exit(0)
