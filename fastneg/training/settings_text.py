"""Settings from text: ``--set key=value``, and the setting that a misspelt name may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from fastneg.checks import shown
from fastneg.errors import FastnegError
from fastneg.training.config import from_toml


def known_name(name: str, types: Mapping[str, Any]) -> str:
    """The setting's name, hyphens as underscores.

    Raises:
        FastnegError: there is none of that name; the error names the nearest ones.
    """
    plain = name.strip().replace("-", "_")
    if plain in types:
        return plain
    near = difflib.get_close_matches(plain, types, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "known: " + ", ".join(types)
    raise FastnegError(f"no setting is called {name!r}; {hint}")


def parse_assignments(assignments: Iterable[str], types: Mapping[str, Any]) -> dict[str, Any]:
    """``["learning_rate=0.01", "window=101,500"]`` -> ``{"learning_rate": 0.01, ...}``.

    Args:
        assignments: of text; later ones win.
        types: of the settings, by name: each value is read by the type of its setting.

    Raises:
        FastnegError: no ``=``, an unknown key (with the nearest names), or an unreadable value.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise FastnegError(f"--set {assignment!r}: give key=value, as in learning_rate=0.01")
        name = known_name(key, types)
        values[name] = _parse(name, types[name], text.strip())
    return values


def _parse(name: str, kind: Any, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        if kind is int:
            return int(text.replace("_", ""))
        if kind is float:
            return float(text)
        if kind is str:
            return text.strip("\"'")
        if name == "negatives":
            found = from_toml(f"negatives = {text or '[]'}")
            if len(found) > 1 or not isinstance(found["negatives"], list):
                raise ValueError("no list, or more than that")
            return tuple(found["negatives"])
        if name == "window":
            first, last = text.strip("()[] ").replace(",", " ").split()
            return int(first), int(last)
        if kind == tuple[float, float]:
            low, high = text.strip("()[] ").replace(",", " ").split()
            return float(low), float(high)
        if text.lower() in ("none", ""):
            return None
        return int(text.replace("_", "")) if kind == int | None else float(text)
    except (ValueError, KeyError):
        plain = {bool: "true or false", int: "an integer", float: "a number"}
        optional = {
            int | None: "an integer or none",
            tuple[int, int]: "two ranks, as in 101,500",
            tuple[float, float]: "two numbers, as in 0.01,10",
        }
        wanted = (plain | optional).get(kind, "a number or none")
        if name == "negatives":
            wanted = 'a list in TOML, as in [{source = "in-batch"}]'
        given = text if len(text) <= 60 else f"{text[:57]}..."
        raise FastnegError(f"--set {name}={given}: {shown(text)} is not {wanted}") from None
