"""The workloads, a table of results each.

A group is a module with ``TITLE`` and ``run(scale, group)``, which asserts what its sides return
before it times them.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from bench.report import Group
from bench.worlds import Scale

NAMES = (
    "table", "classes", "rivals", "build", "excluded", "hopeless", "mask", "overhead", "threads",
    "streaming", "startup", "mining_exact", "mining_ivf", "mining_job", "mining_kills",
    "mining_glove", "train_epoch", "train_share",
)  # fmt: skip
APART = ("soak", "train_quality", "train_time")  # take minutes and more: by name only


class Workload(Protocol):
    """What a module of this folder offers."""

    TITLE: str

    def run(self, scale: Scale, group: Group) -> None:
        """Fill the group's table."""


def find(name: str) -> Workload:
    return cast("Workload", importlib.import_module(f"bench.groups.{name}"))


def run(name: str, scale: Scale) -> Group:
    """One group, measured now."""
    workload = find(name)
    group = Group(workload.TITLE)
    workload.run(scale, group)
    return group
