"""Settings that are left to the data: batch size, users evaluated while training; one rule each.

The rules are arithmetic over counts, never the clock, so that the same data and settings give the
same run. What they decide is recorded like any other setting. So is what ``precision = "auto"``
becomes, which the processor decides too: a run goes on where its products are rounded alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fastneg.data.events import Events
from fastneg.interactions import Interactions
from fastneg.training.distributed import Ranks, pick_device
from fastneg.training.fused_softmax import FUSED, products_dtype
from fastneg.training.settings import Settings

BATCH_SIZES = (256, 2048)
_STEPS = 40  # an epoch at the batch size of the rule
_FEWEST = 2000  # users of a sample: the validation metric of fewer is mostly noise
_SHARE = 5  # evaluation may take one of so many parts of the time
# Work in units of one score of evaluation (about 4 ns at a width of 64 on one core), measured on
# gowalla: a column that a batch shares costs as much for each row, forward and backward together
_EXAMPLE = 500
_OWN_COLUMN = 100  # a column of the row's own: it is drawn, looked up and updated


def default_batch_size(num_rows: int) -> int:
    """The largest power of two that leaves 40 steps an epoch, within 256 and 2,048.

    >>> [default_batch_size(rows) for rows in (1_000, 30_000, 72_000, 5_000_000)]
    [256, 512, 1024, 2048]
    """
    least, most = BATCH_SIZES
    return min(max(1 << max(num_rows // _STEPS, 1).bit_length() - 1, least), most)


def default_eval_users(settings: Settings, num_rows: int, num_queries: int, num_items: int) -> int:
    """How many of ``num_queries`` are ranked in an evaluation while training.

    All of them, or where these are more than a fifth of the work of ``eval_every`` epochs and one
    evaluation, as many as are a fifth, but 2,000 at least.

    Args:
        settings: with a batch size.
        num_rows: training rows.
        num_queries: validation users, or rows of events.
        num_items: the catalog.
    """
    shared, own = _columns(settings, num_items)
    epoch = num_rows * (_EXAMPLE + shared + _OWN_COLUMN * own)
    fitting = epoch * settings.eval_every // ((_SHARE - 1) * num_items)
    return min(num_queries, max(fitting, _FEWEST))


def _columns(settings: Settings, num_items: int) -> tuple[int, int]:
    """(columns that a batch shares, columns of a row's own), those of a list added up."""
    batch_size = settings.batch_size or BATCH_SIZES[1]
    if settings.loss == "full_softmax":
        return num_items, 0
    if settings.per_row_negatives:
        return 0, settings.num_negatives
    if not settings.negatives:
        if settings.loss in ("in_batch", "mixed"):
            return batch_size + settings.num_uniform, 0
        return settings.num_negatives, 0
    parts = [_columns_of(one, batch_size) for one in settings.negatives]
    return sum(shared for shared, _ in parts), sum(own for _, own in parts)


def _columns_of(source: Mapping[str, Any], batch_size: int) -> tuple[int, int]:
    if source["source"] in ("in-batch", "in-batch-hard", "interpolated"):
        return batch_size, 0
    if source["source"] == "queue":
        return int(source["size"]), 0
    if source.get("shared", False):
        return int(source["num_negatives"]), 0
    return 0, int(source.get("candidates", source["num_negatives"]))


def batch_size_of(settings: Settings, train: Interactions) -> int:
    """The batch size, by the rule where the settings leave it open."""
    if settings.batch_size is not None:
        return settings.batch_size
    return default_batch_size(len(train.positive_rows))


def run_precision(settings: Settings, num_rows: int) -> str:
    """What ``precision = "auto"`` is for a whole run: ``"float32"`` or ``"bfloat16"``.

    Args:
        settings: with a batch size.
        num_rows: training rows.

    Raises:
        FastnegError: a device that this machine does not have.
    """
    if settings.precision != "auto":
        return settings.precision
    in_batch = settings.loss in ("in_batch", "mixed")
    shares = (in_batch or settings.shared) and not settings.negatives
    if not shares or settings.loss not in FUSED or pick_device(settings.device).type != "cpu":
        return "float32"  # no product of whose precision there is a choice
    rows = min(settings.batch_size or BATCH_SIZES[1], num_rows)
    columns = settings.num_negatives
    if in_batch:
        ranks = 1 if settings.gather_negatives else Ranks.here().size
        columns = rows // ranks + settings.num_uniform
    dtype = products_dtype("auto", rows, columns, torch.float32)
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def settled(
    settings: Settings, train: Interactions, validation: Interactions | None = None
) -> tuple[Settings, dict[str, str]]:
    """(settings that leave nothing open to the data, what was decided in words, by setting).

    Args:
        settings: as given.
        train: the interactions whose positives are the examples.
        validation: held-out positives, or None: ``eval_users`` then stays open.
    """
    rows, said = len(train.positive_rows), {}
    chosen = settings.replace(batch_size=batch_size_of(settings, train))
    if settings.batch_size is None:
        said["batch_size"] = (
            f"{chosen.batch_size} for {rows:,} training rows: the largest power of two that leaves "
            f"{_STEPS} steps an epoch, within {BATCH_SIZES[0]} and {BATCH_SIZES[1]:,}"
        )
    if settings.precision == "auto":
        chosen = chosen.replace(precision=run_precision(chosen, rows))
        if chosen.precision == "bfloat16":
            said["precision"] = (
                "bfloat16, since the processor has products of it and a batch a million scores"
            )
    if chosen.eval_users is None and validation is not None:
        queries = num_queries(validation)
        users = default_eval_users(chosen, rows, queries, train.num_items)
        chosen = chosen.replace(eval_users=users)
        if users < queries:
            kind = "rows" if isinstance(validation, Events) else "users"
            said["eval_users"] = (
                f"{users:,} of {queries:,} validation {kind} are evaluated while training, so that "
                f"it takes about a fifth of the work, and {_FEWEST:,} at least"
            )
    return chosen, said


def num_queries(validation: Interactions) -> int:
    """What an evaluation ranks the catalog for: users with a positive, or rows of events."""
    if isinstance(validation, Events):
        return len(validation.positive_rows)
    return int((validation.user_positive_counts > 0).sum())
