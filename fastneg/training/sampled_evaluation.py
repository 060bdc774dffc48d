"""Leave-one-out against sampled negatives: each test item ranked among 99 frozen others.

Sampled metrics mislead (Krichene and Rendle 2020, "On sampled metrics for item recommendation"):
the rank among 99 sampled items is not the rank in the catalog scaled down, it flattens what sets
good models apart, and it can put two models in the opposite order. They are here because older
tables report them. To choose or compare models, use ``fastneg.training.evaluation``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastneg import checks
from fastneg.archives import load_npz
from fastneg.checks import FloatArray, IntArray
from fastneg.errors import FastnegError, FileFormatError, said_by, system_reason
from fastneg.files import replace_file
from fastneg.interactions import Interactions
from fastneg.kernels.candidates import draw_candidates
from fastneg.same_codes import check_interactions
from fastneg.streams import key_of, stream_of
from fastneg.threads import without_openmp
from fastneg.training.evaluation import as_list_lengths, as_vectors, warn_of_collapse
from fastneg.training.metrics import Evaluation
from fastneg.training.protocol import BoolArray, select_test

_BLOCK_BYTES = 64 << 20  # candidate vectors held at once
_ARRAYS = ("users", "positives", "negatives", "cold", "facts")


@dataclass(frozen=True)
class SampledCandidates:
    """Test items, each with the items it is ranked among.

    Attributes:
        users: int64 [Q], ascending; one row a test pair (one a user in leave-one-out).
        positives: int64 [Q], the test items; codes of ``num_items`` and more are unknown items.
        negatives: int64 [Q, n], distinct and ascending in a row, -1 behind the last.
        cold: bool [Q], users without training positives.
        num_users, num_items: of train; what is to be scored.
        num_dropped: test pairs that stood in train or validation.
        num_users_left_out: test users that train does not know.
        seed: what the negatives were drawn with.
    """

    users: IntArray
    positives: IntArray
    negatives: IntArray
    cold: BoolArray
    num_users: int
    num_items: int
    num_dropped: int
    num_users_left_out: int
    seed: int

    def save(self, path: str | Path) -> None:
        """Write an ``.npz``, to a temporary name first; read it with ``load``.

        Raises:
            FileFormatError: the folder cannot be written.
        """
        path = Path(path)
        facts = np.array(
            [
                self.num_users, self.num_items, self.num_dropped, self.num_users_left_out,
                self.seed,
            ],
            dtype=np.int64,
        )  # fmt: skip
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez(
                        file, users=self.users, positives=self.positives,
                        negatives=self.negatives, cold=self.cold, facts=facts,
                    )  # fmt: skip
                replace_file(Path(temporary), path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise FileFormatError(
                f"SampledCandidates.save: {path} cannot be written: {system_reason(error)}"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> SampledCandidates:
        """Read what ``save`` wrote; no pickle.

        Raises:
            FileFormatError: a file that is missing, damaged or something else.
        """
        try:
            file = load_npz(Path(path), call="SampledCandidates.load")
            users, positives, negatives, cold, facts = (file[name] for name in _ARRAYS)
            num_users, num_items, dropped, left_out, seed = (int(fact) for fact in facts)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise FileFormatError(
                f"SampledCandidates.load: {path} is not a file of sampled candidates ({error})"
            ) from error
        call = f"SampledCandidates.load: {path}"
        try:
            users = checks.as_codes(users, num_users, call=call, name="users")
            positives = checks.as_codes(positives, 1 << 62, call=call, name="positives")
            negatives = checks.as_codes(
                negatives, num_items, call=call, name="negatives", ndim=2, unknown=True
            )
            checks.same_length(
                call, users=users, positives=positives, negatives=negatives, cold=cold
            )
        except FastnegError as error:
            raise FileFormatError(str(error)) from error
        return cls(
            users, positives, negatives, cold.astype(np.bool_), num_users, num_items, dropped,
            left_out, seed,
        )  # fmt: skip


def freeze_sampled_candidates(
    train: Interactions,
    test: Interactions,
    *,
    validation: Interactions | None = None,
    num_negatives: int = 99,
    seed: int = 0,
) -> SampledCandidates:
    """Draw the items that each test item is ranked among, once and for all.

    Uniform without replacement over the items of train's catalog that stand in no split of the
    user. A row's draws are a function of the seed, the user, the test item and what the user
    knows; a user with fewer items left than asked gets all of them (``evaluate_sampled`` counts
    these rows).

    Sampled metrics mislead: see the module.

    Args:
        train, test, validation: in the same codes; leave-one-out has one test item a user, but
            any number is taken, one row each.
        num_negatives: items drawn a row, 1 or more.
        seed: a plain int.

    Raises:
        FastnegError: an empty test set, bad numbers.
    """
    call = "freeze_sampled_candidates"
    check_interactions(call, train=train, test=test, optional={"validation": validation})
    number = checks.as_integer(
        num_negatives, call=call, name="num_negatives", minimum=1, maximum=2**31 - 1
    )
    seed = checks.as_integer(
        seed, call=call, name="seed", minimum=-(1 << 63), maximum=(1 << 63) - 1
    )
    protocol = select_test(
        call, train, validation, test, num_users=train.num_users, num_items=train.num_items,
        scores_cold_users=True,
    )  # fmt: skip
    indptr, items = _known(train, validation, test)
    # select_test counts items beyond the catalog without naming them: a code that is none stands
    # for each
    rows = np.repeat(np.arange(protocol.users.size), protocol.num_test)
    positives = np.full(rows.size, train.num_items, dtype=np.int64)
    first = np.cumsum(protocol.num_test) - protocol.num_test
    found = np.diff(protocol.indptr)
    within = np.arange(protocol.items.size) - np.repeat(protocol.indptr[:-1], found)
    positives[np.repeat(first, found) + within] = protocol.items
    users = protocol.users[rows]
    with said_by(call):
        negatives = np.empty((rows.size, number), dtype=np.int64)
    key = key_of(seed, stream_of("sampled evaluation"))
    draw_candidates(np.uint64(key), users, positives, indptr, items, train.num_items, negatives)
    return SampledCandidates(
        users=users,
        positives=positives,
        negatives=negatives,
        cold=train.user_positive_counts[users] == 0,
        num_users=train.num_users,
        num_items=train.num_items,
        num_dropped=protocol.counts["test_pairs_in_train"]
        + protocol.counts["test_pairs_in_validation"],
        num_users_left_out=protocol.counts["users_unknown_left_out"],
        seed=seed,
    )


@without_openmp()
def evaluate_sampled(
    user_vectors: Any,
    item_vectors: Any,
    candidates: SampledCandidates,
    *,
    k: int | Sequence[int] = (10,),
    scores_cold_users: bool = False,
) -> Evaluation:
    """Hit rate and NDCG of each test item among its frozen negatives.

    A tie between the test item and g of its negatives counts as the mean over the orders they can
    stand in. An unknown test item is a miss.

    Sampled metrics mislead (Krichene and Rendle 2020): see the module.

    Args:
        user_vectors: float [U, D], one row a user code of train.
        item_vectors: float [N, D], one row an item code of train.
        candidates: ``freeze_sampled_candidates``.
        k: one or several list lengths.
        scores_cold_users: count users without training positives.

    Returns:
        An ``Evaluation`` with ``"hr@10"`` and ``"ndcg@10"`` for each k; ``counts`` has the rows
        with fewer negatives than asked as ``"rows_short"``.

    Raises:
        FastnegError: vectors that do not fit, or are not finite; nothing left to evaluate.
    """
    call = "evaluate_sampled"
    _check_candidates(call, candidates)
    users_UD = as_vectors(call, "user_vectors", user_vectors)
    items_ND = as_vectors(call, "item_vectors", item_vectors).to(users_UD.device)
    sizes = (len(users_UD), len(items_ND))
    if sizes != (candidates.num_users, candidates.num_items):
        checks.fail(
            call,
            f"{sizes[0]} user vectors and {sizes[1]} item vectors do not fit candidates for "
            f"{candidates.num_users} users and {candidates.num_items} items",
        )
    if users_UD.shape[1] != items_ND.shape[1]:
        checks.fail(
            call,
            f"user_vectors have width {users_UD.shape[1]}, item_vectors {items_ND.shape[1]}; "
            "both come from one model",
        )
    per_row = 4 * items_ND.shape[1] * (1 + candidates.negatives.shape[1])
    block = max(1, _BLOCK_BYTES // per_row)

    def score(users: IntArray, items: IntArray) -> FloatArray:
        scores = np.empty(items.shape, dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(users), block):
                stop = start + block
                of_user = users_UD[torch.from_numpy(users[start:stop]).to(users_UD.device)]
                of_items = items_ND[torch.from_numpy(items[start:stop]).to(users_UD.device)]
                # a product and a sum, so that equal vectors have equal scores wherever they stand
                scores[start:stop] = (of_user[:, None] * of_items).sum(-1).cpu().numpy()
        return scores.astype(np.float64)

    return _rank_sampled(call, score, candidates, k, scores_cold_users)


def evaluate_sampled_scores(
    score_pairs: Callable[[IntArray, IntArray], Any],
    candidates: SampledCandidates,
    *,
    k: int | Sequence[int] = (10,),
    scores_cold_users: bool = False,
) -> Evaluation:
    """``evaluate_sampled`` for any scores.

    Args:
        score_pairs: takes user codes, int64 [q], and item codes, int64 [q, 1 + n], and returns
            scores, float [q, 1 + n], higher is better.
        candidates, k, scores_cold_users: as in ``evaluate_sampled``.

    Raises:
        FastnegError: scores of another shape, or NaN among them; nothing left to evaluate.
    """
    return _rank_sampled("evaluate_sampled_scores", score_pairs, candidates, k, scores_cold_users)


@without_openmp()
def _rank_sampled(
    call: str,
    score_pairs: Callable[[IntArray, IntArray], Any],
    candidates: SampledCandidates,
    k: int | Sequence[int],
    scores_cold_users: bool,
) -> Evaluation:
    _check_candidates(call, candidates)
    ks = as_list_lengths(call, k)
    checks.check_kind(call, Callable, "a function of users and items", score_pairs=score_pairs)  # type: ignore[arg-type]
    cold_too = checks.as_flag(scores_cold_users, call=call, name="scores_cold_users")
    counted = np.ones_like(candidates.cold) if cold_too else ~candidates.cold
    if not counted.any():
        checks.fail(call, f"nothing to evaluate: all {counted.size} rows are of cold users")
    users, negatives = candidates.users[counted], candidates.negatives[counted]
    positives = candidates.positives[counted]
    known = positives < candidates.num_items
    items = np.column_stack([np.where(known, positives, 0), np.maximum(negatives, 0)])
    scores = checks.to_numpy(score_pairs(users, items), call=call, name="scores")
    if scores.shape != items.shape:
        checks.fail(
            call, f"{checks.describe('scores', scores)} do not fit; give shape {items.shape}"
        )
    if np.isnan(scores).any():
        row, column = (int(i) for i in np.argwhere(np.isnan(scores))[0])
        checks.fail(call, f"the score of user {users[row]} and item {items[row, column]} is NaN")
    real = negatives >= 0
    above = ((scores[:, 1:] > scores[:, :1]) & real).sum(1)
    equal = ((scores[:, 1:] == scores[:, :1]) & real).sum(1)
    metrics: dict[str, float] = {}
    for one in ks:
        # the positive stands at ranks above + 1 .. above + equal + 1, each as likely
        gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, one + 2)))])
        first, last = np.minimum(above, one), np.minimum(above + equal + 1, one)
        hits = (last - first) / (equal + 1)
        ndcg = (gains[last] - gains[first]) / (equal + 1)
        metrics[f"hr@{one}"] = float((hits * known).mean())
        metrics[f"ndcg@{one}"] = float((ndcg * known).mean())
    counts = {
        "rows": int(counted.sum()),
        "users": int(np.unique(users).size),
        "rows_cold": int(candidates.cold.sum()),
        "rows_cold_left_out": int((~counted).sum()),
        "rows_short": int((~real).any(1).sum()),
        "rows_tied": int((equal > 0).sum()),
        "unknown_test_items": int((~known).sum()),
        "test_pairs_dropped": candidates.num_dropped,
        "users_unknown_left_out": candidates.num_users_left_out,
        "negatives": int(negatives.shape[1]),
    }
    warn_of_collapse(call, int(((equal > 0) & (equal == real.sum(1))).sum()), len(users))
    return Evaluation(metrics, counts)


def _check_candidates(call: str, candidates: Any) -> None:
    hint = "SampledCandidates (freeze_sampled_candidates and given_candidates make them)"
    checks.check_kind(call, SampledCandidates, hint, candidates=candidates)


def _known(*splits: Interactions | None) -> tuple[IntArray, IntArray]:
    """The union of the splits' positives within the first's catalog, as a CSR over its users."""
    present = [split for split in splits if split is not None]
    num_users, num_items = present[0].num_users, present[0].num_items
    keys = []
    for split in present:
        users = np.repeat(np.arange(split.num_users), np.diff(split.positive_indptr))
        inside = (users < num_users) & (split.positive_items < num_items)
        keys.append(users[inside] * num_items + split.positive_items[inside])
    merged = np.unique(np.concatenate(keys))
    counts = np.bincount(merged // num_items, minlength=num_users)
    return np.concatenate([[0], np.cumsum(counts)]), merged % num_items
