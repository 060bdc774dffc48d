"""What one stage of training gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FitResult:
    """What one stage of training gave.

    Attributes:
        epoch: epochs behind the weights that were kept.
        epochs_run: epochs trained in all.
        steps: optimizer steps in all.
        seconds: wall-clock time, evaluations included, interruptions not.
        metrics, counts: of the kept weights on all of validation; empty without validation.
        history: one mapping per epoch, as in ``metrics.jsonl``; ``kept_rows`` are the examples
            that an epoch served where positives are subsampled; ``mined_age_steps`` the mean number
            of steps that an epoch's mined lists were behind; ``refreshes`` and
            ``refresh_wait_seconds`` how often they were renewed and how long training waited;
            ``temperature`` the learnt one, not averaged;
            ``sources`` what each source of a list of negatives gave (see ``list_statistics``).
        trained: whether the call trained; False where the stage had been finished before.
        refresh: of all epochs: ``refreshes``, ``wait_seconds``, ``mining_seconds``; empty where
            lists are not renewed.
        reproducible: False where the clock decided when lists were swapped.
    """

    epoch: int
    epochs_run: int
    steps: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    trained: bool = True
    refresh: dict[str, Any] = field(default_factory=dict)
    reproducible: bool = True
