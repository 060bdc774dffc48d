"""Validation of a mining job's manifest, before any of its sizes and names is used.

A manifest may have been edited, checksum and all. Sizes, names and rows in it steer what is read
and allocated, so each is compared with what the others say.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from fastneg.files import is_plain_name
from fastneg.mining.report import MiningReport

NOT_IN_MANIFEST = ("block_rows", "seconds")  # of a report: they change no byte of the result


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 62


def _is_entry(value: Any) -> bool:
    """Whether this is the entry of a file: its name, length and checksum."""
    return (
        isinstance(value, dict)
        and is_plain_name(value.get("file"))
        and _is_count(value.get("bytes"))
        and isinstance(value.get("sha256"), str)
    )


def _is_shape(value: Any, dimensions: int) -> bool:
    shape = value.get("shape") if isinstance(value, dict) else None
    return isinstance(shape, list) and len(shape) == dimensions and all(map(_is_count, shape))


def fault_of(manifest: dict[str, Any]) -> str | None:
    """What is wrong with a manifest of the right kind, format and checksum; None if nothing is."""
    for name in ("inputs", "settings", "versions", "engine"):
        if not isinstance(manifest.get(name), dict):
            return f"{name} is missing"
    inputs, engine = manifest["inputs"], manifest["engine"]
    if not all(_is_shape(inputs.get(name), 2) for name in ("queries", "items")):
        return "the shapes of its inputs are missing"
    for name, found in inputs.items():
        shape = None if found is None else found.get("shape") if isinstance(found, dict) else 0
        if shape is not None and not isinstance(shape, list):
            return f"the fingerprint of {name} is damaged"
    facts, arrays = engine.get("facts"), engine.get("arrays")
    if not isinstance(facts, dict) or not isinstance(arrays, dict):
        return "the engine is missing"
    if not isinstance(facts.get("search"), str) or not isinstance(facts.get("effort"), dict):
        return "the engine is damaged"
    if not all(map(_is_entry, arrays.values())):
        return "the engine's files are damaged"
    if manifest.get("item_ids") is not None and not _is_entry(manifest["item_ids"]):
        return "item_ids is damaged"
    return _fault_of_shards(manifest) or _fault_of_report(manifest)


def _fault_of_shards(manifest: dict[str, Any]) -> str | None:
    size, shards = manifest.get("shard_queries"), manifest.get("shards")
    num_queries = manifest["inputs"]["queries"]["shape"][0]
    if not isinstance(size, int) or not _is_count(size, least=1):
        return f"shard_queries is {size!r}"
    if not isinstance(shards, list) or len(shards) != -(-num_queries // size):
        return f"its shards are not those of {num_queries} queries"
    for number, entry in enumerate(shards):
        if entry is None:
            continue
        rows = (number * size, min(size, num_queries - number * size))
        tally = entry.get("tally") if isinstance(entry, dict) else None
        whole = _is_entry(entry) and (entry.get("first_row"), entry.get("num_rows")) == rows
        if not whole or not isinstance(tally, list) or not all(map(_is_count, tally)):
            return f"shards[{number}] is damaged"
    expected = manifest.get("expected")
    if expected is not None and not (
        _is_entry(expected)
        and _is_count(expected.get("shards"))
        and expected["shards"] <= len(shards)
    ):
        return "expected is damaged"
    return None


def _fault_of_report(manifest: dict[str, Any]) -> str | None:
    complete, report = manifest.get("complete"), manifest.get("report")
    if not isinstance(complete, bool):
        return f"complete is {complete!r}"
    if report is None:
        return "it is complete and has no report" if complete else None
    if complete and None in manifest["shards"]:
        return "it is complete and lacks a shard"
    if not isinstance(report, dict):
        return "the report is damaged"
    known = {one.name: one for one in fields(MiningReport) if one.name not in NOT_IN_MANIFEST}
    lacking = [n for n, one in known.items() if n not in report and one.default is MISSING]
    if lacking or not report.keys() <= known.keys():
        return "the report has other fields than a report has"
    for name, value in report.items():
        if known[name].type == "int" and name != "seed" and not _is_count(value):
            return f"the report's {name} is {value!r}"
    window, inputs = report["window"], manifest["inputs"]
    if not isinstance(window, list) or len(window) != 2 or not all(map(_is_count, window)):
        return f"the report's window is {window!r}"
    if not 1 <= report["num_negatives"] <= window[1] - window[0] + 1:
        return f"the report's num_negatives is {report['num_negatives']}"
    sizes = report["num_queries"], report["num_items"]
    if sizes != (inputs["queries"]["shape"][0], inputs["items"]["shape"][0]):
        return f"the report is of {sizes[0]} queries and {sizes[1]} items, and the inputs are not"
    return None
