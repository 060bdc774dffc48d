"""A training state as one safetensors file: tensors, and JSON in its header.

One file and one rename: a run that is killed while it writes leaves the checkpoint before it.
Nothing is pickled: the optimizer's state is flattened into named tensors and plain JSON. A checksum
of all of it is in the header, and compared when it is read: what a checkpoint holds steers kernels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastneg.errors import CheckpointError, FastnegError, FileFormatError, system_reason
from fastneg.files import refuse_special, replace_file

FORMAT_VERSION = 2
WITHOUT_CHECKSUM = 1  # the version of files that have none
_HEADER, _CHECKSUM = "fastneg", "sha256"
_HOW = ("foreach", "fused", "capturable", "differentiable")  # of an optimizer


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors (``group/name``) and JSON-able facts."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, without its prefix."""
        prefix = name + "/"
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it at the end; removed after an error.

    Raises:
        FastnegError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        replace_file(temporary, path)
    except OSError as error:
        raise FastnegError(f"cannot write {path}: {system_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) under a temporary name and rename it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, under a temporary name and rename it."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a temporary name, push it to the disk and rename it.

    Raises:
        FastnegError: the folder cannot be written.
    """
    target = Path(path)
    facts = {"version": FORMAT_VERSION, **checkpoint.facts}
    # safetensors refuses tensors that share memory and wants them contiguous
    tensors = {k: v.detach().to("cpu").contiguous() for k, v in checkpoint.tensors.items()}
    text = json.dumps(facts)
    header = {_HEADER: text, _CHECKSUM: _checksum(tensors, text)}
    with replacing(target) as temporary:
        try:
            save_file(tensors, str(temporary), metadata=header)
        except SafetensorError as error:
            raise FastnegError(f"cannot write {target}: {system_reason(error)}") from error
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of the facts, and of every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_checkpoint(
    path: str | Path, *, versions: Collection[int] = (FORMAT_VERSION,)
) -> Checkpoint:
    """Read a checkpoint that ``save_checkpoint`` wrote.

    Args:
        path: the file.
        versions: those that the caller can read.

    Raises:
        FileFormatError: no such file, a damaged one, or one of another program.
        CheckpointError: a version that this one cannot read.
    """
    source = Path(path)
    if not source.is_file():
        raise FileFormatError(f"{source}: there is no such checkpoint")
    try:
        with safe_open(str(source), framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        facts = json.loads(header[_HEADER])
        if not isinstance(facts, dict):
            raise ValueError("its facts are no mapping")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FileFormatError(
            f"{source}: not a checkpoint of fastneg, or a damaged one ({error})"
        ) from error
    version = facts.pop("version", None)
    if type(version) is not int or version not in versions:
        known = " and ".join(map(str, sorted(versions)))
        raise CheckpointError(
            f"{source}: checkpoint version {version!r}; this fastneg reads {known}"
        )
    found = _checksum(tensors, header[_HEADER])
    if version != WITHOUT_CHECKSUM and header.get(_CHECKSUM) != found:
        raise FileFormatError(f"{source} is damaged: its checksum is not that of what was written")
    return Checkpoint(tensors, facts)


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint, without its tensors, and so without its checksum.

    Raises:
        FileFormatError: no such file, or none that ``save_checkpoint`` wrote.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            facts = json.loads((handle.metadata() or {})[_HEADER])
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path}: not a checkpoint of fastneg ({error})") from error
    return facts if isinstance(facts, dict) else {}


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors named ``<parameter>/<name>`` and JSON-able facts."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}/{name}"] = value
            else:
                values.setdefault(str(number), {})[name] = value
    return tensors, {"groups": state["param_groups"], "values": values}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """The inverse of ``flatten_optimizer``.

    Everything is compared with the optimizer before any of it is taken: the parameters, their
    settings, and the shape and dtype of what is kept for each.

    Raises:
        CheckpointError: the state is another model's, or no state.
    """
    mine = optimizer.state_dict()["param_groups"]
    if _settings(facts.get("groups")) != _settings(mine):
        raise CheckpointError("the optimizer's state is another model's (other parameter groups)")
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    numbers = [number for group in mine for number in group["params"]]
    shaped = dict(zip(map(str, numbers), parameters, strict=True))
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        if number not in shaped:
            raise CheckpointError(f"the optimizer's state is another model's ({key})")
        _check_entry(key, name, tensor, shaped[number])
        state.setdefault(int(number), {})[name] = tensor
    values = facts.get("values")
    if not isinstance(values, dict) or not all(isinstance(one, dict) for one in values.values()):
        raise CheckpointError("the optimizer's state is no state (its values)")
    for number, entries in values.items():
        if number not in shaped:
            raise CheckpointError(f"the optimizer's state is another model's ({number})")
        state.setdefault(int(number), {}).update(entries)
    try:
        optimizer.load_state_dict({"state": state, "param_groups": mine})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the optimizer's state is another model's ({error})") from error


def _settings(groups: Any) -> Any:
    """Parameter groups without what changes the way and not the result."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return None
    plain: Any = json.loads(json.dumps(groups))  # a file has lists for tuples
    return [{k: v for k, v in group.items() if k not in _HOW} for group in plain]


def _check_entry(key: str, name: str, tensor: Tensor, parameter: Tensor) -> None:
    """Raise unless a tensor can be what an optimizer keeps of a parameter."""
    if name == "step":
        count = float(tensor) if tensor.numel() == 1 else math.nan
        if not (0 <= count < 2**53 and count == int(count) and tensor.dim() == 0):
            raise CheckpointError(f"the optimizer's state is no state ({key} counts no steps)")
    elif tensor.dtype.is_floating_point and tensor.shape != parameter.shape:
        raise CheckpointError(
            f"the optimizer's state is another model's ({key} has shape {tuple(tensor.shape)}, the "
            f"parameter {tuple(parameter.shape)})"
        )
