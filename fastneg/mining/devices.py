"""Where products are made; torch, which takes seconds to import, is asked only if it has a say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastneg.checks import fail, shown
from fastneg.errors import FastnegTypeError, one_line

if TYPE_CHECKING:
    import torch

# What the drivers of NVIDIA and AMD, and Windows' subsystem for Linux, put there.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Device(NamedTuple):
    """A device by torch's name, such as "cpu" or "cuda:1"."""

    name: str

    @property
    def type(self) -> str:
        """The part before the number."""
        return self.name.partition(":")[0]

    def __str__(self) -> str:
        return self.name


def torch_device(device: Device) -> torch.device:
    """The same as torch knows it."""
    import torch

    return torch.device(device.name)


def _may_have_gpu() -> bool:
    return (
        "torch" in sys.modules
        or sys.platform != "linux"
        or any(Path(driver).exists() for driver in _DRIVERS)
    )


def device_name(device: Any, *, call: str) -> str:
    """A device by its name; torch's own objects have one."""
    if not isinstance(device, str) and type(device).__name__ != "device":
        raise FastnegTypeError(
            f"{call}: device = {shown(device)} is not a name; give 'auto', 'cpu' or 'cuda'"
        )
    return str(device)


def choose_device(device: str, *, call: str) -> Device:
    """The device for products: "auto" is the GPU where there is one.

    Raises:
        FastnegError: a device that torch does not know or does not have.
    """
    device = device_name(device, call=call)
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return Device("cpu")
    import torch

    if device == "auto":
        return Device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.ones(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, TypeError, ValueError, OverflowError) as error:
        fail(
            call,
            f"device = {shown(device)} cannot be used ({shown(one_line(error))}); give "
            "'auto', 'cpu' or 'cuda'",
        )
    return Device(str(chosen))
