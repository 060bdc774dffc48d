"""What samplers return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastneg.checks import fail, shown

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

    def part(self, rows: slice) -> Negatives:
        """Some of the rows: views, not copies."""
        log_q = None if self.log_q is None else self.log_q[rows]
        return Negatives(self.items[rows], log_q, self.source[rows])


def check_device(device: Any, pin_memory: bool, *, call: str) -> None:
    """Refuse a device that is not there, and pinned memory where nothing could use it."""
    import torch

    if pin_memory and not torch.accelerator.is_available():
        fail(call, "pin_memory=True, but there is no accelerator to pin memory for")
    if device is None:
        return
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        fail(call, f"device = {shown(device)} cannot be used ({shown(str(error))})")


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
