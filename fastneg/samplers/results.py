"""What samplers return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch


class Negatives(NamedTuple):
    """What a sampler returns.

    Attributes:
        items: int64 [B, K] codes ([K] from ``sample_shared``).
        log_q: float32, same shape: the log-probability of each, or None if not asked for.
        source: int8, same shape: which of ``sampler.source_names`` it came from.
    """

    items: torch.Tensor
    log_q: torch.Tensor | None
    source: torch.Tensor


def as_tensors(arrays: list[Any], device: Any, pin_memory: bool) -> Negatives:
    """``Negatives`` of NumPy arrays (or None), as tensors where they are wanted."""
    import torch

    tensors = []
    for array in arrays:
        tensor = None if array is None else torch.from_numpy(array)
        if tensor is not None and pin_memory:
            tensor = tensor.pin_memory()
        if tensor is not None and device is not None and torch.device(device).type != "cpu":
            tensor = tensor.to(device, non_blocking=pin_memory)
        tensors.append(tensor)
    return Negatives(*tensors)  # type: ignore[arg-type]
