"""Full-ranking evaluation where the query is an event: each test row is one query with one item.

As ``training.evaluation``, with rows of test in place of users:

- every positive row of test is a query, its user (if it has one) and its context; its item is what
  is to be found, and a pair that stands in two rows is found twice;
- every item of the catalog is ranked except the training and validation positives of the row's
  user; rows whose pair is among them are dropped and counted;
- rows without a user, and rows of users without training positives, count: the context is known;
- items that the model does not know are misses;
- recall@k is 1 or 0 for a row, NDCG@k is 1 / log2(1 + rank) within the list, MRR 1 / rank; all are
  means over rows, and over the orders of items with equal scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastneg import checks
from fastneg.checks import IntArray, frozen
from fastneg.data.events import Events
from fastneg.interactions import Interactions
from fastneg.same_codes import check_interactions, same_codes
from fastneg.threads import without_openmp
from fastneg.training.equal_rows import equal_rows
from fastneg.training.evaluation import as_list_lengths, evaluate, rank_all
from fastneg.training.feature_encoders import FeatureValues
from fastneg.training.metrics import Evaluation
from fastneg.training.protocol import Csr, Protocol, pairs_csr, pairs_in, select_test
from fastneg.training.towers import TwoTower


def check_alike(call: str, train: Interactions, **others: Interactions | None) -> None:
    """Raise unless held-out interactions have a context exactly where train has, and alike.

    Raises:
        FastnegError: naming the one that differs.
    """
    for name, other in others.items():
        if other is None:
            continue
        if isinstance(train, Events) != isinstance(other, Events):
            have = "has no context" if isinstance(train, Events) else "has a context"
            checks.fail(call, f"{name} {have}, and train is otherwise; read_events reads both")
        if isinstance(train, Events) and isinstance(other, Events):
            same = train.context.columns() == other.context.columns()
            if not same or train.num_known_users != other.num_known_users:
                checks.fail(
                    call, f"{name} is not encoded as train is; read it by read_events(like=train)"
                )


@without_openmp()
def evaluate_model(
    model: TwoTower,
    *,
    train: Interactions,
    test: Interactions,
    validation: Interactions | None = None,
    k: int | Sequence[int] = (20,),
) -> Evaluation:
    """A model on held-out interactions: by event where they carry a context, else by user.

    Args:
        model: towers.
        train, test, validation, k: as of ``evaluate``.

    Raises:
        FastnegError: as ``evaluate``; a model with a context and a test without, or the reverse.
    """
    if (model.user_tower.context is None) == isinstance(test, Events):
        model_has = "has no context" if isinstance(test, Events) else "has a context"
        checks.fail("evaluate", f"the model {model_has}, and the test is otherwise; give the test "
                    "as read_events reads it exactly where train is so")  # fmt: skip
    if isinstance(test, Events):
        return evaluate_events(model, train=train, test=test, validation=validation, k=k)
    return evaluate(
        model.user_vectors(),
        model.item_vectors(),
        train=train,
        test=test,
        validation=validation,
        k=k,
        scores_cold_users=model.scores_cold_users,
    )


@without_openmp()
def evaluate_events(
    model: TwoTower,
    *,
    train: Interactions,
    test: Events,
    validation: Interactions | None = None,
    k: int | Sequence[int] = (20,),
    bands: int | Sequence[int] | None = 4,
    block: int | None = None,
) -> Evaluation:
    """Rank the catalog for each positive row of ``test``; see the module for the protocol.

    Args:
        model: towers with a context.
        train: whose positives are masked; its ``item_user_counts`` decide what is rare.
        test: the events, with the codes of ``train`` and further ones.
        validation: further positives to mask, or None.
        k, bands, block: as of ``evaluate``.

    Raises:
        FastnegError: no positive row, or none left; a context with other columns.
    """
    call = "evaluate_events"
    checks.check_kind(call, TwoTower, "a TwoTower", model=model)
    check_interactions(call, train=train, optional={"validation": validation})
    checks.check_kind(call, Events, "Events, as read_events reads them", test=test)
    encoder = model.user_tower.context
    if encoder is None:
        checks.fail(call, "the model has no context; evaluate it by user")
    encoder.check_columns(test.context, call=call)
    ks = as_list_lengths(call, k)
    items_ND = model.item_vectors()
    if train.num_items != len(items_ND):
        checks.fail(
            call,
            f"train has {train.num_items} items and the model {len(items_ND)}; give the rows that "
            "it was trained on",
        )
    protocol, rows = select_events(call, train, validation, test, num_items=len(items_ND))
    context = FeatureValues(test.context, call=call)
    num_known = model.user_tower.num_codes
    users = np.where(test.row_users < num_known, test.row_users, -1)
    device = items_ND.device
    same = equal_rows(items_ND)

    def fill(numbers: IntArray, scores: Tensor) -> None:
        chosen = torch.from_numpy(rows[numbers])
        queries_BD = model.embed_users(
            torch.from_numpy(users[rows[numbers]]).to(device),
            context=context.take(chosen).to(device),
        )
        scores.copy_(queries_BD @ items_ND.T)
        same.tie(scores)

    was_training = model.training
    model.eval()
    try:
        return rank_all(
            call, fill, protocol, np.ascontiguousarray(train.item_user_counts), ks, bands, block,
            queries=np.arange(len(rows)),
        )  # fmt: skip
    finally:
        model.train(was_training)


def check_evaluable(
    call: str,
    train: Interactions,
    validation: Interactions | None,
    other: Interactions,
    *,
    scores_cold_users: bool,
) -> None:
    """Raise what evaluating a model on interactions would raise, without a model.

    Args:
        call: the function that was called, for errors.
        train: what the model is trained on.
        validation: masked as train is, or None.
        other: what the model is to be evaluated on.
        scores_cold_users: whether users without training positives count.

    Raises:
        FastnegError: nothing would be left to evaluate.
    """
    if isinstance(other, Events):
        select_events(call, train, validation, other, num_items=train.num_items)
    else:
        select_test(
            call, train, validation, other, num_users=train.num_users,
            num_items=train.num_items, scores_cold_users=scores_cold_users,
        )  # fmt: skip


def select_events(
    call: str,
    train: Interactions,
    validation: Interactions | None,
    test: Events,
    *,
    num_items: int,
) -> tuple[Protocol, IntArray]:
    """(what is ranked for which row, the numbers of these rows).

    Raises:
        FastnegError: codes of other ids, no positive row, or none left.
    """
    same_codes(call, train=train, validation=validation, test=test)
    rows = np.array(test.positive_rows)
    users, items = test.row_users[rows], test.row_items[rows]
    if not len(rows):
        checks.fail(call, f"test holds no positive rows ({test.num_rows} rows)")
    nobody = test.num_known_users  # further codes are other rows' in other files
    users = np.minimum(users, nobody)
    found = items < num_items
    known = (users < nobody) & found
    stride = max(part.num_items for part in (train, validation, test) if part is not None)
    in_train = pairs_in(users, items, train, stride) & known
    in_validation = np.zeros_like(in_train)
    if validation is not None:
        in_validation = pairs_in(users, items, validation, stride) & known & ~in_train
    left = ~(in_train | in_validation)
    rows, users, items, found = rows[left], users[left], items[left], found[left]
    counts: dict[str, Any] = {
        "test_events_in_train": int(in_train.sum()),
        "test_events_in_validation": int(in_validation.sum()),
        "events": len(rows),
        "events_without_known_user": int((users == nobody).sum()),
        "unknown_test_items": int((~found).sum()),
        "items": num_items,
    }
    if not len(rows):
        listed = ", ".join(f"{name} = {count}" for name, count in counts.items())
        checks.fail(call, f"nothing to evaluate: {listed}")
    protocol = Protocol(
        users=users,
        indptr=np.concatenate([np.zeros(1, np.int64), np.cumsum(found)]),
        items=np.ascontiguousarray(items[found]),
        misses=(~found).astype(np.int64),
        masked=(_masked(train, nobody, num_items), _masked(validation, nobody, num_items)),
        counts=counts,
    )
    return protocol, rows


def _masked(interactions: Interactions | None, num_known: int, num_items: int) -> Csr:
    """The positives of the known users, and an empty row for the others."""
    indptr, items = pairs_csr(interactions, num_known, num_items)
    return frozen(np.append(indptr, indptr[-1])), frozen(items[: indptr[-1]])
