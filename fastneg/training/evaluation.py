"""Full-ranking evaluation: every item of the catalog scored for every user, block by block.

The protocol, for users u with test items T_u:

- every item of the catalog is ranked except u's training and validation positives; every metric is
  the mean over all orders of items with equal (float32) scores, so that a model that scores all
  items alike is worth as much as a random order, whatever the order of the codes;
- test pairs that are in train or validation already are dropped and counted;
- users without training positives count only if the query tower can score them;
- items that the model does not know are misses: they stay in |T_u|;
- recall@k = hits / |T_u| and NDCG@k, ideal over min(k, |T_u|), are means over users; MRR is the
  mean of 1 / (rank of u's best test item in the full ranking);
- coverage@k is the share of the catalog that stands in any user's list, tied items of different
  users in independent orders;
- recall on the rarest half and by band is pooled over test pairs; a band's NDCG and MRR are means
  over the users with a test item in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastneg import checks
from fastneg.checks import Float32Array, IntArray
from fastneg.errors import FastnegTypeError
from fastneg.interactions import Interactions
from fastneg.kernels.ranking import rank_rows
from fastneg.same_codes import check_interactions
from fastneg.threads import run_chunks, without_openmp
from fastneg.training.equal_rows import equal_rows
from fastneg.training.metrics import Band, Evaluation, MetricSums, popularity_bands
from fastneg.training.protocol import Protocol, select_test

__all__ = ["Band", "Evaluation", "evaluate", "evaluate_scores", "most_popular_scores"]

ScoreBlock = Callable[[IntArray], Any]

_BLOCK_BYTES = 64 << 20  # scores held at once by default
_SMALLEST_CHUNK = 4  # rows below which a thread is not worth its start


@without_openmp()
def evaluate(
    user_vectors: Any,
    item_vectors: Any,
    *,
    train: Interactions,
    test: Interactions,
    validation: Interactions | None = None,
    k: int | Sequence[int] = (20,),
    scores_cold_users: bool = False,
    bands: int | Sequence[int] | None = 4,
    unknown_test_items: Any = None,
    block: int | None = None,
) -> Evaluation:
    """Rank the catalog by ``user_vectors @ item_vectors.T``; see the module for the protocol.

    Args:
        user_vectors: float [U, D], one row a user code; tensor or array, any device.
        item_vectors: float [N, D], one row an item code: the catalog. Test items with codes of N
            and more are misses.
        train: whose positives are masked; its ``item_user_counts`` decide what is rare.
        test: the pairs to find. Codes are those of ``train``.
        validation: further positives to mask, or None.
        k: one or several list lengths.
        scores_cold_users: count users without training positives.
        bands: popularity bands: how many (each with about the same share of training positives),
            or the lowest training counts of the second band and those after it, or None.
        unknown_test_items: int [test.num_users], the number of each user's test items that have
            no code at all; misses too.
        block: users scored at once; None: as many as fit 64 MiB of scores.

    Raises:
        FastnegError: widths that differ, numbers that are not finite, vectors that do not fit
            train's codes, an empty test set, nothing left to evaluate.
    """
    call = "evaluate"
    check_interactions(call, train=train, test=test, optional={"validation": validation})
    users_UD = as_vectors(call, "user_vectors", user_vectors)
    items_ND = as_vectors(call, "item_vectors", item_vectors)
    if users_UD.shape[1] != items_ND.shape[1]:
        checks.fail(
            call,
            f"user_vectors have width {users_UD.shape[1]}, item_vectors {items_ND.shape[1]}; "
            "both come from one model",
        )
    items_DN = items_ND.to(users_UD.device).T
    same = equal_rows(items_ND)

    def fill(users: IntArray, scores: Tensor) -> None:
        rows = users_UD[torch.from_numpy(users).to(users_UD.device)]
        if users_UD.device.type == "cpu":
            torch.mm(rows, items_DN, out=scores)
        else:
            scores.copy_(rows @ items_DN)
        same.tie(scores)

    return _evaluate(
        call, fill, train, validation, test, len(users_UD), len(items_ND), k, scores_cold_users,
        bands, unknown_test_items, block,
    )  # fmt: skip


@without_openmp()
def evaluate_scores(
    score_block: ScoreBlock,
    *,
    train: Interactions,
    test: Interactions,
    validation: Interactions | None = None,
    num_items: int | None = None,
    k: int | Sequence[int] = (20,),
    scores_cold_users: bool = False,
    bands: int | Sequence[int] | None = 4,
    unknown_test_items: Any = None,
    block: int | None = None,
) -> Evaluation:
    """Rank the catalog by any scores; see the module for the protocol.

    Args:
        score_block: takes user codes, int64 [b], and returns scores, float [b, N], higher is
            better; -inf is never listed and never found, NaN raises. The result is copied.
        num_items: N, the scored catalog; None: ``train.num_items``.
        train, test, validation, k, scores_cold_users, bands, unknown_test_items, block: as in
            ``evaluate``.

    Raises:
        FastnegError: as ``evaluate``; scores of another shape, or NaN among them.
    """
    call = "evaluate_scores"
    check_interactions(call, train=train, test=test, optional={"validation": validation})
    checks.check_kind(call, Callable, "a function of user codes", score_block=score_block)  # type: ignore[arg-type]
    size = train.num_items
    if num_items is not None:
        size = checks.as_integer(num_items, call=call, name="num_items", minimum=1, maximum=2**40)

    def fill(users: IntArray, scores: Tensor) -> None:
        block_scores = checks.to_numpy(score_block(users), call=call, name="scores")
        if block_scores.shape != (users.size, size):
            checks.fail(
                call,
                f"score_block gave {checks.describe('scores', block_scores)} for {users.size} "
                f"users; give shape ({users.size}, {size})",
            )
        if block_scores.dtype.kind not in "fiub":
            raise FastnegTypeError(
                f"{call}: score_block gave {checks.describe('scores', block_scores)}; give floats"
            )
        np.copyto(scores.numpy(), block_scores, casting="unsafe")

    return _evaluate(
        call, fill, train, validation, test, train.num_users, size, k, scores_cold_users, bands,
        unknown_test_items, block,
    )  # fmt: skip


def most_popular_scores(train: Interactions) -> ScoreBlock:
    """Scores for ``evaluate_scores`` that rank items by ``train.item_user_counts`` for everybody.

    The scores are the counts' places among the distinct counts, which float32 holds exactly
    however large the counts are. Items of equal counts are tied; a published table that ranks them
    by code is met by distinct scores, ``np.lexsort((-np.arange(N), counts)).argsort()``.
    """
    check_interactions("most_popular_scores", train=train)
    _, places = np.unique(train.item_user_counts, return_inverse=True)
    scores: Float32Array = places.astype(np.float32)

    def score_block(users: IntArray) -> Float32Array:
        return np.broadcast_to(scores, (users.size, scores.size))

    return score_block


def as_vectors(call: str, name: str, vectors: Any) -> Tensor:
    """A float32 tensor [n, D] of finite numbers, where it lies; arrays come without a copy."""
    if isinstance(vectors, Tensor) and vectors.device.type != "cpu":
        if vectors.ndim != 2 or not vectors.is_floating_point():
            checks.fail(
                call, f"{name} ({vectors.dtype}, shape {tuple(vectors.shape)}) is not [n, D]"
            )
        if not bool(vectors.isfinite().all()):
            checks.fail(call, f"{name} holds numbers that are not finite")
        return vectors.detach().float()
    if isinstance(vectors, Tensor) and vectors.dtype in (torch.bfloat16, torch.float16):
        vectors = vectors.float()  # NumPy has no bfloat16
    matrix = checks.as_matrix(vectors, call=call, name=name)
    if matrix.shape[0] == 0:
        checks.fail(call, f"{checks.describe(name, matrix)} has no rows")
    with warnings.catch_warnings():  # torch warns of read-only arrays; nothing is written to it
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(matrix)


def as_list_lengths(call: str, k: int | Sequence[int]) -> tuple[int, ...]:
    """One or several k as distinct ints, ascending."""
    given: Any = k if isinstance(k, Iterable) and not isinstance(k, (str, bytes)) else [k]
    if getattr(k, "ndim", 1) == 0:  # an array of one number
        given = [k]
    lengths = (
        checks.as_integer(one, call=call, name="k", minimum=1, maximum=1 << 24) for one in given
    )
    ks = tuple(sorted(set(lengths)))
    if not ks:
        checks.fail(call, "k is empty; give at least one list length")
    return ks


def _evaluate(
    call: str,
    fill: Callable[[IntArray, Tensor], None],
    train: Interactions,
    validation: Interactions | None,
    test: Interactions,
    num_users: int,
    num_items: int,
    k: int | Sequence[int],
    scores_cold_users: bool,
    bands: int | Sequence[int] | None,
    unknown_test_items: Any,
    block: int | None,
) -> Evaluation:
    """Score blocks of users, rank them, sum up."""
    ks = as_list_lengths(call, k)
    protocol = select_test(
        call, train, validation, test, num_users=num_users, num_items=num_items,
        scores_cold_users=scores_cold_users, unknown_test_items=unknown_test_items,
    )  # fmt: skip
    counts = np.ascontiguousarray(train.item_user_counts[:num_items])
    return rank_all(call, fill, protocol, counts, ks, bands, block)


def rank_all(
    call: str,
    fill: Callable[[IntArray, Tensor], None],
    protocol: Protocol,
    counts: IntArray,
    ks: tuple[int, ...],
    bands: int | Sequence[int] | None,
    block: int | None,
    *,
    queries: IntArray | None = None,
) -> Evaluation:
    """Score blocks of a protocol's rows, rank them in the kernel, sum up.

    Args:
        call: the function that was called, for errors.
        fill: writes the scores [b, N] of b queries.
        protocol: what is ranked for whom.
        counts: int64 [N], training counts of the scored catalog.
        ks, bands, block: as of ``evaluate``.
        queries: int64 [n], what ``fill`` is given for each row; None: the rows' users.
    """
    num_items = counts.size
    queries = protocol.users if queries is None else queries
    sums = MetricSums(ks, protocol, counts, popularity_bands(call, counts, bands))
    if block is None:
        block = max(16, _BLOCK_BYTES // (4 * num_items))
    else:
        block = checks.as_integer(block, call=call, name="block", minimum=1)
    block = min(block, protocol.users.size)
    length = min(max(ks), num_items)

    scores = torch.empty((block, num_items), dtype=torch.float32)
    top_items = np.empty((block, length), dtype=np.int64)
    top_scores = np.empty((block, length), dtype=np.float32)
    tied = np.empty((block, 2), dtype=np.int64)
    bad = np.empty(block, dtype=np.int64)
    for start in range(0, protocol.users.size, block):
        users = protocol.users[start : start + block]
        size = users.size
        with torch.inference_mode():
            fill(queries[start : start + block], scores[:size])
        _rank(
            sums, start, users, scores.numpy()[:size], top_items, top_scores, tied, bad,
        )  # fmt: skip
        _refuse_nan(call, users, bad[:size])
        sums.add_lists(scores.numpy()[:size], top_items[:size], top_scores[:size], tied[:size])
    warn_of_collapse(call, *sums.collapsed)
    return sums.finish()


def _rank(
    sums: MetricSums,
    start: int,
    users: IntArray,
    scores: Float32Array,
    top_items: IntArray,
    top_scores: Float32Array,
    tied: IntArray,
    bad: IntArray,
) -> None:
    """The kernel over chunks of a block's rows, on threads."""
    protocol = sums.protocol
    (train_indptr, train_items), (held_indptr, held_items) = protocol.masked

    def chunk(first: int, last: int) -> None:
        rank_rows(
            scores[first:last],
            users[first:last],
            train_indptr,
            train_items,
            held_indptr,
            held_items,
            protocol.indptr[start + first : start + last + 1],
            protocol.items,
            sums.band_of_item,
            top_items[first:last],
            top_scores[first:last],
            tied[first:last],
            sums.starts,
            sums.sizes,
            sums.reciprocals[start + first : start + last],
            bad[first:last],
        )

    run_chunks(chunk, users.size, smallest=_SMALLEST_CHUNK)


def warn_of_collapse(call: str, collapsed: int, lists: int) -> None:
    """Warn where most lists are of one score, so that their order means nothing."""
    if 2 * collapsed > lists:
        warnings.warn(
            f"{call}: in {collapsed} of {lists} lists all items have one score, which they share "
            "with a tenth of the catalog or more: the model has collapsed (equal item vectors, or "
            "user vectors of zeros); metrics are means over the orders of tied items",
            UserWarning,
            stacklevel=5,
        )


def _refuse_nan(call: str, users: IntArray, bad: IntArray) -> None:
    if bad.max(initial=-1) < 0:
        return
    row = int(np.flatnonzero(bad >= 0)[0])
    checks.fail(
        call,
        f"the score of user {int(users[row])} and item {int(bad[row])} is NaN; scores are finite "
        "numbers, or -inf for an item that is no candidate",
    )
