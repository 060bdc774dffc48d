"""A drop-in for the Python loop that draws negatives against a set of pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.checks import IntArray, as_codes, as_integer, as_integers, fail, same_length
from fastneg.errors import ExhaustedUserError, said_by
from fastneg.interactions import Interactions
from fastneg.samplers.uniform import MAX_ITEMS, UniformSampler


def train_instances(
    users: Any, items: Any, num_negatives: int, num_items: int, *, seed: int = 0, epoch: int = 0
) -> tuple[IntArray, IntArray, IntArray]:
    """Each positive pair followed by its uniform negatives, as (user, item, label) arrays.

    The same order and the same distribution as the loop it stands for, which runs forever for a
    user who knows every item::

        pairs = set(zip(users, items))
        for u, i in zip(users, items):
            user_input.append(u); item_input.append(i); labels.append(1)
            for _ in range(num_negatives):
                j = np.random.randint(num_items)
                while (u, j) in pairs:
                    j = np.random.randint(num_items)
                user_input.append(u); item_input.append(j); labels.append(0)

    Args:
        users: integers [E], 0 or more.
        items: codes [E] in 0..num_items-1.
        num_negatives: negatives for each pair, 0 or more.
        num_items: size of the catalog.
        seed, epoch: plain ints; another epoch gives other negatives.

    Returns:
        Three int64 arrays of length E (1 + num_negatives).

    Raises:
        ExhaustedUserError: users who know every item.
    """
    call = "train_instances"
    num_items = as_integer(num_items, call=call, name="num_items", minimum=1, maximum=MAX_ITEMS)
    count = as_integer(num_negatives, call=call, name="num_negatives", minimum=0, maximum=2**31 - 2)
    user_codes = as_integers(users, call=call, name="users")
    item_codes = as_codes(items, num_items, call=call, name="items")
    same_length(call, users=user_codes, items=item_codes)
    if len(user_codes) == 0:
        fail(call, "users and items are empty")
    if int(user_codes.min()) < 0:
        fail(call, f"users[{int(user_codes.argmin())}] = {int(user_codes.min())} is negative")
    with said_by(call):
        table = np.empty((len(user_codes), 1 + count), dtype=np.int64)
    table[:, 0] = item_codes
    if count:
        # users may be sparse numbers: the sampler sees dense codes
        _, dense = np.unique(user_codes, return_inverse=True)
        with said_by(call, "Interactions.from_codes"):
            known = Interactions.from_codes(dense, item_codes, num_items=num_items)
        with said_by(call, "UniformSampler", "UniformSampler.set_epoch"):
            sampler = UniformSampler(known, seed=seed, name="train-instances")
            sampler.set_epoch(epoch)
        full = sampler.exhausted_users()
        if len(full):  # named as the caller knows them
            named = np.unique(user_codes)[full].tolist()
            raise ExhaustedUserError(
                f"{call}: {len(named)} users have all {num_items} items as positives (users "
                f"{', '.join(map(str, named[:5]))}{', ...' if len(named) > 5 else ''}); leave "
                "their pairs out",
                named,
            )
        rows = np.arange(len(dense))  # the same on every rank and in every worker
        table[:, 1:] = sampler.sample(dense, count, rows=rows, log_q=False).items.numpy()
    labels = np.zeros(table.shape, dtype=np.int64)
    labels[:, 0] = 1
    return np.repeat(user_codes, 1 + count), table.ravel(), labels.ravel()
