"""A training state as one safetensors file: tensors, and JSON in its header.

One file and one rename: a run that is killed while it writes leaves the checkpoint before it.
Nothing is pickled: the optimizer's state is flattened into named tensors and plain JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastneg.errors import CheckpointError, FastnegError, FileFormatError, system_reason

FORMAT_VERSION = 1
_HEADER = "fastneg"


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
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
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
    with replacing(target) as temporary:
        try:
            save_file(tensors, str(temporary), metadata={_HEADER: json.dumps(facts)})
        except SafetensorError as error:
            raise FastnegError(f"cannot write {target}: {system_reason(error)}") from error
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint that ``save_checkpoint`` wrote.

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
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise FileFormatError(
            f"{source}: not a checkpoint of fastneg, or a damaged one ({error})"
        ) from error
    version = facts.pop("version", None)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{source}: checkpoint version {version!r}; this fastneg reads {FORMAT_VERSION}"
        )
    return Checkpoint(tensors, facts)


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

    Raises:
        CheckpointError: the state is another model's.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/", 1)
        state.setdefault(int(number), {})[name] = tensor
    for text, entries in facts["values"].items():
        state.setdefault(int(text), {}).update(entries)
    try:
        optimizer.load_state_dict({"state": state, "param_groups": list(facts["groups"])})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the optimizer's state is another model's ({error})") from error
