"""The losses straight from the formulas: Python loops over rows and columns, float64."""

from __future__ import annotations

from math import exp, log

Row = list[float]
Matrix = list[list[float]]


def softmax_row(
    positive: float,
    negatives: list[tuple[float, float, bool]],
    correction: str,
    *,
    positive_log_q: float | None = None,
    masked_mass: float | None = None,
    replacement: bool = True,
    has_mask: bool = True,
) -> float:
    """One row; negatives are (score, log Q, whether masked), without the row's own column."""
    left = [(s, exp(lq)) for s, lq, masked in negatives if not masked]
    n, n_u = len(negatives), len(left)
    if n_u == 0:
        return 0.0
    if correction == "none":
        total = exp(positive) + sum(exp(s) for s, _ in left)
        return -log(exp(positive) / total)
    if correction == "as_printed":
        total = exp(positive) + sum(exp(s - log(q)) for s, q in left)
        return -log(exp(positive) / total)
    if correction == "both":
        own = exp(positive - positive_log_q)
        return -log(own / (own + sum(exp(s - log(q)) for s, q in left)))
    if correction == "expected_count":
        if not replacement:
            counts = [q for _, q in left]
        elif masked_mass is None:  # 1 - Q(masked) estimated by n_u / n
            counts = [n_u * q / (n_u / n) for _, q in left]
        else:
            counts = [n_u * q / (1 - masked_mass) for _, q in left]
        total = exp(positive)
        for (s, _), count in zip(left, counts, strict=True):
            total += exp(s - log(count))
        return -log(exp(positive) / total)
    assert correction == "revised"
    gone = masked_mass
    if gone is None:
        gone = 0.0 if positive_log_q is None else exp(positive_log_q)
    if replacement:
        conditional = [q / (1 - gone) for _, q in left]
        counts = [n_u * q for q in conditional]
        if has_mask and masked_mass is None:  # 1 - Q(masked) estimated by n_u / n
            counts = [n_u * q / (n_u / n) for _, q in left]
    else:
        conditional = counts = [q for _, q in left]
    total = exp(positive)
    inner = 0.0
    for (s, _), q, count in zip(left, conditional, counts, strict=True):
        total += exp(s - log(count))
        inner += exp(s - log(q))
    return -(1 - exp(positive) / total) * (positive - log(inner))


def weighted_mean(losses: Row, weights: Row | None) -> float:
    if weights is None:
        return sum(losses) / len(losses)
    if sum(weights) == 0:
        return 0.0
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def softmax_loss(
    positives: Row,
    negatives: Matrix,
    log_q: Matrix,
    mask: list[list[bool]] | None,
    correction: str,
    *,
    positive_log_q: Row | None = None,
    masked_mass: Row | None = None,
    replacement: bool = True,
    temperature: float = 1.0,
    weights: Row | None = None,
) -> float:
    losses = []
    for i, positive in enumerate(positives):
        columns = [
            (negatives[i][j] / temperature, log_q[i][j], mask is not None and mask[i][j])
            for j in range(len(negatives[i]))
        ]
        losses.append(
            softmax_row(
                positive / temperature,
                columns,
                correction,
                positive_log_q=None if positive_log_q is None else positive_log_q[i],
                masked_mass=None if masked_mass is None else masked_mass[i],
                replacement=replacement,
                has_mask=mask is not None,
            )
        )
    return weighted_mean(losses, weights)


def own_column_loss(
    scores: Matrix,
    log_q: Row,
    mask: list[list[bool]] | None,
    correction: str,
    *,
    masked_mass: Row | None = None,
    temperature: float = 1.0,
    weights: Row | None = None,
) -> float:
    """In-batch and mixed: the diagonal is the positive, every other column a negative."""
    losses = []
    for i, row in enumerate(scores):
        columns = [
            (row[j] / temperature, log_q[j], mask is not None and mask[i][j])
            for j in range(len(row))
            if j != i
        ]
        losses.append(
            softmax_row(
                row[i] / temperature,
                columns,
                correction,
                positive_log_q=log_q[i],
                masked_mass=None if masked_mass is None else masked_mass[i],
                has_mask=mask is not None,
            )
        )
    return weighted_mean(losses, weights)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def bpr_loss(
    positives: Row, negatives: Matrix, mask: list[list[bool]], temperature: float,
    weights: Row | None,
) -> float:  # fmt: skip
    losses = []
    for i, positive in enumerate(positives):
        terms = [
            -log(sigmoid((positive - s) / temperature))
            for s, masked in zip(negatives[i], mask[i], strict=True)
            if not masked
        ]
        losses.append(sum(terms) / len(terms) if terms else 0.0)
    return weighted_mean(losses, weights)


def bce_loss(
    positives: Row, negatives: Matrix, mask: list[list[bool]], temperature: float,
    weights: Row | None,
) -> float:  # fmt: skip
    losses = []
    for i, positive in enumerate(positives):
        terms = [
            -log(1 - sigmoid(s / temperature))
            for s, masked in zip(negatives[i], mask[i], strict=True)
            if not masked
        ]
        own = -log(sigmoid(positive / temperature))
        losses.append((own + sum(terms)) / (1 + len(terms)) if terms else 0.0)
    return weighted_mean(losses, weights)


Mask = list[list[bool]]


def left_of(negatives: Matrix, mask: Mask, i: int, temperature: float) -> Row:
    return [s / temperature for s, m in zip(negatives[i], mask[i], strict=True) if not m]


def hinge_loss(
    positives: Row, negatives: Matrix, mask: Mask, margin: float, temperature: float, weights: Row
) -> float:
    losses = []
    for i, positive in enumerate(positives):
        left = left_of(negatives, mask, i, temperature)
        terms = [max(0.0, s - positive / temperature + margin) for s in left]
        losses.append(sum(terms) / len(terms) if terms else 0.0)
    return weighted_mean(losses, weights)


def cosine_contrastive_loss(
    positives: Row, negatives: Matrix, mask: Mask, margin: float, negative_weight: float,
    temperature: float, weights: Row,
) -> float:  # fmt: skip
    losses = []
    for i, positive in enumerate(positives):
        terms = [max(0.0, s - margin) for s in left_of(negatives, mask, i, temperature)]
        own = 1 - positive / temperature
        losses.append(own + negative_weight / len(terms) * sum(terms) if terms else 0.0)
    return weighted_mean(losses, weights)


def nce_loss(
    positives: Row, negatives: Matrix, positive_log_q: Row, log_q: Matrix, mask: Mask,
    temperature: float, weights: Row,
) -> float:  # fmt: skip
    losses = []
    for i, positive in enumerate(positives):
        k = len(negatives[i])
        row = -log(sigmoid(positive / temperature - log(k * exp(positive_log_q[i]))))
        left = 0
        for s, lq, masked in zip(negatives[i], log_q[i], mask[i], strict=True):
            if not masked:
                row -= log(1 - sigmoid(s / temperature - log(k * exp(lq))))
                left += 1
        losses.append(row if left else 0.0)
    return weighted_mean(losses, weights)


def gbce_loss(
    positives: Row, negatives: Matrix, mask: Mask, num_items: int, t: float, temperature: float,
    weights: Row,
) -> float:  # fmt: skip
    alpha = len(negatives[0]) / (num_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    losses = []
    for i, positive in enumerate(positives):
        left = left_of(negatives, mask, i, temperature)
        total = -log(sigmoid(positive / temperature) ** beta)
        total -= sum(log(1 - sigmoid(s)) for s in left)
        losses.append(total / (1 + len(left)) if left else 0.0)
    return weighted_mean(losses, weights)


def bilateral_softmax_loss(
    positives: Row, negatives: Matrix, users: list[int], mask: Mask, t1: float, t2: float,
    weights: Row, negative_weight: float = 1.0,
) -> float:  # fmt: skip
    kept = [any(not m for m in row) for row in mask]
    losses = []
    for b in range(len(positives)):
        same = [
            c
            for c in range(len(positives))
            if kept[c] and weights[c] > 0 and (c == b or (users[c] == users[b] and users[b] >= 0))
        ]
        if not kept[b] or not same:
            losses.append(0.0)  # also a row whose user has no weight: it counts for nothing
            continue
        mass = sum(weights[c] for c in same)
        mean_p = sum(weights[c] * exp(positives[c] / t1) for c in same) / mass
        left = left_of(negatives, mask, b, t2)
        mean_j = sum(exp(s) for s in left) / len(left)
        losses.append(-t1 * log(mean_p) + negative_weight * t2 * log(mean_j))
    return weighted_mean(losses, weights)


def full_softmax_loss(
    scores: Matrix, items: list[int], mask: Mask, temperature: float, weights: Row
) -> float:
    losses = []
    for i, own in enumerate(items):
        seen = [j for j in range(len(scores[i])) if j == own or not mask[i][j]]
        total = sum(exp(scores[i][j] / temperature) for j in seen)
        losses.append(-log(exp(scores[i][own] / temperature) / total))
    return weighted_mean(losses, weights)
