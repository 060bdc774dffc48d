"""Dynamic negative sampling: of some drawn candidates, the ones the model scores high.

DNS (Zhang et al. 2013, Optimizing top-N collaborative filtering via dynamic negative item
sampling) draws N candidates and trains on the best; DNS(M, N) (Shi et al. 2023, On the theories
behind hard negative sampling for recommendation) on one of the best M, at random. A softmax over
the N candidates' scores, with a temperature, is between the two.

The scores are those of the model as it is, without dropout, and no gradient runs through the
choice. What is random in it depends on (seed, epoch, the example's global index) alone. No
probability of a chosen item is known, so there is no log Q: losses take these columns uncorrected.

Shapes: B rows (b of a block), N candidates of a row, M of them to choose from, K chosen, X vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastneg.checks import as_integer, fail
from fastneg.streams import key_of, row_words, stream_of, unit_interval
from fastneg.threads import get_num_threads
from fastneg.training.batches import Batch
from fastneg.training.loss_checks import check_matrix, check_temperature
from fastneg.training.own_scores import own_scores, scores_at, takes
from fastneg.training.towers import TwoTower

_BLOCK, _BLOCK_ELSEWHERE = 1 << 14, 1 << 18  # candidates at a time: of a core, of a GPU
_BLOCK_OF_ITEMS = 1 << 16


def choose_top(
    scores_BN: Tensor, *, num_negatives: int, top: int, uniforms_BM: Tensor | None = None
) -> Tensor:
    """K of the best M candidates of each row, uniformly and without replacement: DNS(M, N).

    With ``top == num_negatives`` the best K themselves, best first: DNS. The same as::

        best = scores_BN.argsort(1, descending=True, stable=True)[:, :top]
        best.gather(1, uniforms_BM.argsort(1)[:, :num_negatives])

    Candidates are places in a row: an item that was drawn twice is two of them. Of equal scores
    the earlier place is better.

    Args:
        scores_BN: float [B, N].
        num_negatives: K, 1 to M.
        top: M, 1 to N.
        uniforms_BM: [B, M] in (0, 1) (``choice_uniforms``); needed where K < M.

    Returns:
        int64 [B, K], places in 0..N-1.

    Raises:
        FastnegError: for shapes or numbers that do not fit.
    """
    call = "choose_top"
    _, candidates = check_matrix(call, "scores_BN", scores_BN)
    top = as_integer(top, call=call, name="top", minimum=1, maximum=candidates)
    chosen = as_integer(num_negatives, call=call, name="num_negatives", minimum=1, maximum=top)
    if top == 1:
        return scores_BN.max(dim=1, keepdim=True).indices  # the first of equals, as torch says
    best_BM = scores_BN.argsort(dim=1, descending=True, stable=True)[:, :top]
    if chosen == top:
        return best_BM
    order_BM = _checked_uniforms(call, uniforms_BM, best_BM).argsort(dim=1, stable=True)
    return best_BM.gather(1, order_BM[:, :chosen])


def choose_softmax(
    scores_BN: Tensor, *, num_negatives: int, temperature: float, uniforms_BN: Tensor
) -> Tensor:
    """K candidates of each row, by a softmax of their scores, without replacement.

    The first is candidate j with probability ``softmax(scores / temperature)[j]``, each further
    one likewise among those that are left (Gumbel's maximum).

    Args:
        scores_BN: float [B, N].
        num_negatives: K, 1 to N.
        temperature: more than 0; near 0 it is DNS, far above the scores' spread uniform.
        uniforms_BN: [B, N] in (0, 1) (``choice_uniforms``).

    Returns:
        int64 [B, K], places in 0..N-1.

    Raises:
        FastnegError: for shapes or numbers that do not fit.
    """
    call = "choose_softmax"
    _, candidates = check_matrix(call, "scores_BN", scores_BN)
    chosen = as_integer(
        num_negatives, call=call, name="num_negatives", minimum=1, maximum=candidates
    )
    scale = check_temperature(call, temperature)
    gumbel_BN = -(-_checked_uniforms(call, uniforms_BN, scores_BN).log()).log()
    keys_BN = scores_BN.double() / scale + gumbel_BN
    return keys_BN.argsort(dim=1, descending=True, stable=True)[:, :chosen]


def _checked_uniforms(call: str, uniforms: Tensor | None, like: Tensor) -> Tensor:
    if uniforms is None:
        fail(call, "uniforms are needed where the choice is random; see choice_uniforms")
    if uniforms.shape != like.shape:
        fail(call, f"uniforms have shape {tuple(uniforms.shape)}; give {tuple(like.shape)}")
    return uniforms.to(like.device, torch.float64)


def choice_uniforms(rows_B: Tensor, width: int, *, seed: int, epoch: int, name: str) -> Tensor:
    """float64 [B, width] in (0, 1), of (seed, name, epoch, row, column) and nothing else.

    Args:
        rows_B: int64 [B], the examples' global indices, on the CPU.
        width: numbers a row.
        seed, epoch, name: as of a sampler.
    """
    key = key_of(seed, stream_of(name, "choice"), epoch)
    return torch.from_numpy(unit_interval(row_words(key, rows_B.numpy(), width)))


@torch.no_grad()
def candidate_scores(
    model: TwoTower, users_B: Tensor, items_BN: Tensor, *, batch: Batch | None = None
) -> Tensor:
    """The scores [B, N] of the model as it is, in evaluation mode; the mode is restored.

    With a batch its queries score, each without its target in the history and with its context.
    On the CPU a float32 score is the exact inner product, rounded once, whatever the batch; and
    where there are more candidates than items, all of them known, each item is embedded once.

    Raises:
        FastnegError: for codes that the model does not have, or shapes that do not fit.
    """
    was_training = model.training
    model.eval()
    try:
        queries_BD = model.embed_users(users_B) if batch is None else model.embed_queries(batch)
        if items_BN.ndim != 2 or len(items_BN) != len(queries_BD):
            shape = tuple(items_BN.shape)
            fail("candidate_scores", f"{len(queries_BD)} queries and candidates {shape}; give rows")
        exact, num_items = takes(queries_BD), model.item_tower.num_codes
        if exact and items_BN.numel() > num_items and _known(items_BN, num_items):
            every_XD = _every_item(model)
            if takes(every_XD):
                return scores_at(queries_BD, every_XD, items_BN)
        block = _BLOCK * get_num_threads() if exact else _BLOCK_ELSEWHERE
        step, parts = max(1, block // max(1, items_BN.shape[1])), []
        for start in range(0, len(items_BN), step):
            queries_bD = queries_BD[start : start + step]
            items_bND = model.embed_items(items_BN[start : start + step])
            parts.append(own_scores(queries_bD, items_bND))
        return torch.cat(parts) if parts else queries_BD.new_zeros(items_BN.shape)
    finally:
        model.train(was_training)


def _known(items_BN: Tensor, num_items: int) -> bool:
    low, high = torch.aminmax(items_BN)
    return int(low) >= 0 and int(high) < num_items


def _every_item(model: TwoTower) -> Tensor:
    """The vectors [X, D] of all items; by blocks, for what a tower's layers make of them."""
    num_items = model.item_tower.num_codes
    starts = range(0, num_items, _BLOCK_OF_ITEMS)
    parts = [
        model.embed_items(torch.arange(a, min(a + _BLOCK_OF_ITEMS, num_items))) for a in starts
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def choose(
    source: Any,
    model: TwoTower,
    users_B: Tensor,
    items_BN: Tensor,
    rows_B: Tensor,
    *,
    seed: int,
    epoch: int,
    name: str,
    batch: Batch | None = None,
) -> Tensor:
    """The items [B, K] that a source ``"dns"`` or ``"dns-softmax"`` takes of its candidates.

    Args:
        source: with its options, as ``training.negative_list`` gives them.
        model: whose scores decide.
        users_B: int64 [B] on the model's device.
        items_BN: int64 [B, N], the candidates, there too.
        rows_B: int64 [B], the examples' global indices, on the CPU.
        seed, epoch, name: of the random part.
        batch: whose queries score, there too; None: the users as they are.
    """
    scores_BN = candidate_scores(model, users_B, items_BN, batch=batch)
    count = source["num_negatives"]
    words: dict[str, Any] = {"seed": seed, "epoch": epoch, "name": name}
    if source["source"] == "dns-softmax":
        places_BK = choose_softmax(
            scores_BN,
            num_negatives=count,
            temperature=source["temperature"],
            uniforms_BN=choice_uniforms(rows_B, items_BN.shape[1], **words),
        )
    else:
        uniforms = None
        if count < source["top"]:
            uniforms = choice_uniforms(rows_B, source["top"], **words)
        places_BK = choose_top(
            scores_BN, num_negatives=count, top=source["top"], uniforms_BM=uniforms
        )
    return items_BN.gather(1, places_BK)
