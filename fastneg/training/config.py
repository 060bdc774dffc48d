"""A small TOML writer, for flat tables, and ``tomllib`` without its ways to fail."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from fastneg.errors import FastnegError, FastnegTypeError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def from_toml(text: str) -> dict[str, Any]:
    """What ``tomllib`` reads.

    Raises:
        FastnegError: no TOML; also what is nested too deeply or holds an integer of thousands of
            digits, for which ``tomllib`` raises other errors than its own.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise FastnegError("it is nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError is one
        raise FastnegError(str(error)) from error


def to_toml(tables: Mapping[str, Any]) -> str:
    """TOML text of a mapping whose values are plain, lists, or flat mappings.

    The items of a list are plain, or flat mappings (inline tables).

    None has no form in TOML: such keys are left out. Top-level values come before the tables.

    Raises:
        FastnegTypeError: a value of another type, or tables inside tables.
    """
    plain = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    lines = _assignments(plain)
    for name, table in tables.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(name)}]", *_assignments(table)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _assignments(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        text = repr(value)
        return text if any(mark in text for mark in ".en") else text + ".0"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_item(item) for item in value) + "]"
    raise FastnegTypeError(f"to_toml: cannot write {value!r} ({type(value).__name__})")


def _item(value: Any) -> str:
    """An item of a list: a mapping is an inline table."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(_assignments(value)) + "}"
    return _value(value)
