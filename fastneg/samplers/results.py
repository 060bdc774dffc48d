"""What samplers return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastneg.checks import as_flag, fail, shown
from fastneg.errors import one_line

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
        try:
            log_q = None if self.log_q is None else self.log_q[rows]
            return Negatives(self.items[rows], log_q, self.source[rows])
        except (IndexError, TypeError, ValueError, RuntimeError) as error:
            place = f"rows = {shown(rows)} selects nothing of {len(self.items)} rows"
            fail("Negatives.part", f"{place} ({shown(one_line(error))}); give a slice")


def check_options(log_q: Any, device: Any, pin_memory: Any, *, call: str) -> tuple[bool, bool]:
    """``log_q`` and ``pin_memory``, checked like the device; pinned memory needs an accelerator."""
    import torch

    if log_q is not True and log_q is not False:
        log_q = as_flag(log_q, call=call, name="log_q")
    if pin_memory is not False:
        pin_memory = as_flag(pin_memory, call=call, name="pin_memory")
    if pin_memory and not torch.accelerator.is_available():
        fail(call, "pin_memory=True, but there is no accelerator to pin memory for")
    if device is None:
        return log_q, pin_memory
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        fail(call, f"device = {shown(device)} cannot be used ({shown(str(error))})")
    return log_q, pin_memory


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
