"""A heavy module that is imported when it is first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy_module(name: str) -> Any:
    """Stands for ``import name``: drawing negatives should not wait for a reader of files.

    >>> arrow = lazy_module("pyarrow")
    >>> arrow.int64()
    DataType(int64)
    """
    return _Lazy(name)
