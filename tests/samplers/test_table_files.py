"""Tables in folders: what was written draws the same, and what was damaged is refused."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.samplers.alias_table import AliasTable
from fastneg.samplers.count_classes import CountClassTable, find_classes
from fastneg.samplers.item_table import ItemTable
from fastneg.samplers.popularity import PopularitySampler
from tests.forging import put_array, renew, set_fact

COUNTS = np.array([5.0, 9.0, 0.0, 1.0, 5.0, 9.0, 1.0, 5.0, 0.0, 2.0])
Damage = Callable[[Path], object]


def _save(kind: type[ItemTable], folder: Path) -> Any:
    if kind is AliasTable:
        table: Any = AliasTable(COUNTS, seed=5, name="saved")
    else:
        classes = find_classes(COUNTS, always=True)
        assert classes is not None
        table = CountClassTable(classes, classes.values, seed=5, name="saved")
    table.save(folder)
    return table


def _other_classes() -> CountClassTable:
    """A table of as many classes, cells and items, with other weights."""
    classes = find_classes(COUNTS, always=True)
    assert classes is not None
    return CountClassTable(classes, classes.values**2)


def _change(part: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return lambda folder: put_array(folder, part, change(np.load(folder / f"{part}.npy")))


def _cell(part: str, place: int, value: int) -> Damage:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return _change(part, change)


def _cut(part: str, num_bytes: int) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / f"{part}.npy"
        content = path.read_bytes()
        path.write_bytes(content[:-num_bytes] if num_bytes else b"")

    return damage


def _fact(name: str, value: Any) -> Damage:
    return lambda folder: set_fact(folder, name, value)


def _save_unannounced(part: str, dtype: Any) -> Damage:
    """Another dtype that the manifest knows nothing of."""

    def damage(folder: Path) -> None:
        np.save(folder / f"{part}.npy", np.load(folder / f"{part}.npy").astype(dtype))
        renew(folder, f"{part}.npy")

    return damage


def _parts(parts: list[str]) -> dict[str, Damage]:
    found: dict[str, Damage] = {}
    for part in parts:
        found[f"{part} is cut"] = _cut(part, 1)
        found[f"{part} is cut by an entry"] = _cut(part, 8)
        found[f"{part} has no bytes"] = _cut(part, 0)
        found[f"{part} is missing"] = lambda folder, part=part: (folder / f"{part}.npy").unlink()
        found[f"{part} is a folder"] = lambda folder, part=part: (
            (folder / f"{part}.npy").unlink(),
            (folder / f"{part}.npy").mkdir(),
        )
        found[f"{part} is no array"] = lambda folder, part=part: (
            folder / f"{part}.npy"
        ).write_text("not an array at all")
        found[f"{part} is of int64"] = _save_unannounced(part, np.int64)
        found[f"{part} is of int64 and the manifest says so"] = _change(
            part, lambda array: array.astype(np.int64)
        )
        found[f"{part} is big-endian"] = _change(
            part, lambda array: array.astype(array.dtype.newbyteorder(">"))
        )
        found[f"{part} is a column"] = _change(part, lambda array: array[:, None])
        found[f"{part} is one number"] = _change(part, lambda array: array[0])
    return found


def _manifest(text: str) -> Damage:
    return lambda folder: (folder / "manifest.json").write_text(text)


def _a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


MANIFESTS: dict[str, Damage] = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "an empty manifest": _manifest(""),
    "half a manifest": _manifest('{"kind": "fastneg'),
    "a list for a manifest": _manifest("[1]"),
    "no folder": shutil.rmtree,
    "a file for a folder": _a_file,
    "another kind": _fact("kind", "fastneg something else"),
    "a version to come": _fact("version", 3),
    "the version before": _fact("version", 1),
    "no arrays": _fact("arrays", {}),
    "arrays of no kind": _fact("arrays", 3),
    "an array of no shape": _fact("arrays", {"cells": {"dtype": "<u8"}}),
    "no error": _fact("error", None),
}

ALIAS: dict[str, Damage] = {
    **_parts(["cells"]),
    **MANIFESTS,
    "an alias one too far": _cell("cells", 3, (7 << 32) | 10),
    "an alias far away": _cell("cells", 9, (1 << 64) - 1),
    "no cells": _change("cells", lambda array: array[:0]),
    "fewer cells": _change("cells", lambda array: array[:2]),
}

CLASSES: dict[str, Damage] = {
    **_parts(["cells", "class_masses", "values", "spans", "order"]),
    **MANIFESTS,
    "an alias one too far": _cell("cells", 3, (7 << 24) | 5),
    "an alias far away": _cell("cells", 1000, (1 << 24) - 1),
    "a cell beyond the classes gives itself": _cell("cells", 7, (1 << 24) | 1),
    "fewer cells than classes": _change("cells", lambda array: array[:4]),
    "no cells": _change("cells", lambda array: array[:0]),
    "an item one too far": _cell("order", 0, 10),
    "an item far away": _cell("order", 9, 2**32 - 1),
    "fewer items": _change("order", lambda array: array[:9]),
    "more items": _change("order", lambda array: np.append(array, array[:1])),
    "a class that starts late": _cell("spans", 1, (3 << 32) | 3),
    "a class that is too large": _cell("spans", 1, (2 << 32) | 4),
    "the last class is too large": _cell("spans", 4, (8 << 32) | 3),
    "the first class starts at 1": _cell("spans", 0, (1 << 32) | 2),
    "a class fewer": _change("spans", lambda array: array[:4]),
    "no classes": _change("spans", lambda array: array[:0]),
    "a value fewer": _change("values", lambda array: array[:4]),
    "a mass fewer": _change("class_masses", lambda array: array[:4]),
    "a mass more": _change("class_masses", lambda array: np.append(array, array[:1])),
    "more cells than classes may be": _change("cells", lambda array: np.tile(array, 65)),
    "another's cells": _change("cells", lambda array: _other_classes().cells),
    "another's masses": _change("class_masses", lambda array: _other_classes().class_masses),
    "more items than a code has bits": _cell("spans", 4, (8 << 32) | (2**32 - 1)),
}


@pytest.mark.parametrize("kind", [AliasTable, CountClassTable])
def test_an_opened_table_draws_the_same(kind: Any, tmp_path: Path) -> None:
    table = _save(kind, tmp_path / "table")
    opened = kind.open(str(tmp_path / "table"), seed=5, name="saved")
    assert isinstance(opened.cells.base, np.memmap)
    assert not opened.cells.flags.writeable
    assert opened.fingerprint() == table.fingerprint()
    assert (opened.num_items, opened.total, opened.error, opened.num_reachable) == (
        table.num_items, table.total, table.error, table.num_reachable
    )  # fmt: skip
    np.testing.assert_array_equal(opened.masses, table.masses)
    for _ in range(2):  # rows are counted from 0 in both
        for ours, theirs in zip(
            table.draw(99, log_q=True), opened.draw(99, log_q=True), strict=True
        ):
            assert torch.equal(ours, theirs)
    assert not torch.equal(kind.open(tmp_path / "table").draw(99), opened.draw(99, row=0))


@pytest.mark.parametrize("kind", [AliasTable, CountClassTable])
def test_a_pickled_opened_table_reads_the_folder_again(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(kind, tmp_path / "table")
    monkeypatch.chdir(tmp_path)
    opened = kind.open("table", seed=8, name="again")
    opened.draw(20)
    pickled = pickle.dumps(opened)
    monkeypatch.chdir("/")  # the place is remembered whole
    copied = pickle.loads(pickled)  # noqa: S301
    assert (copied.seed, copied.name, copied.folder) == (8, "again", str(tmp_path / "table"))
    assert isinstance(copied.cells.base, np.memmap)
    assert torch.equal(copied.draw(20), opened.draw(20))  # both at row 1
    assert torch.equal(copied.draw(20, row=0), opened.draw(20, row=0))
    shutil.rmtree(tmp_path / "table")
    with pytest.raises(FileFormatError, match="is not a saved folder"):
        pickle.loads(pickled)  # noqa: S301


def _refused(kind: Any, damage: Damage, folder: Path) -> None:
    _save(kind, folder)
    pickled = pickle.dumps(kind.open(folder))
    damage(folder)
    with pytest.raises(FileFormatError, match=rf"{kind.__name__}\.open: "):
        kind.open(folder)
    with pytest.raises(FileFormatError):
        pickle.loads(pickled)  # noqa: S301


@pytest.mark.parametrize("name", ALIAS)
def test_a_damaged_alias_table_is_refused(name: str, tmp_path: Path) -> None:
    _refused(AliasTable, ALIAS[name], tmp_path / "table")


@pytest.mark.parametrize("name", CLASSES)
def test_damaged_classes_are_refused(name: str, tmp_path: Path) -> None:
    _refused(CountClassTable, CLASSES[name], tmp_path / "table")


def test_one_kind_is_not_opened_as_the_other(tmp_path: Path) -> None:
    _save(AliasTable, tmp_path / "alias")
    _save(CountClassTable, tmp_path / "classes")
    with pytest.raises(FileFormatError, match=r"CountClassTable\.open: .* does not hold"):
        CountClassTable.open(tmp_path / "alias")
    with pytest.raises(FileFormatError, match=r"AliasTable\.open: .* does not hold"):
        AliasTable.open(tmp_path / "classes")
    with pytest.raises(FileFormatError, match=r"AliasTable\.save: .* holds other files"):
        AliasTable(COUNTS).save(tmp_path / "classes")


@pytest.mark.parametrize("kind", [AliasTable, CountClassTable])
def test_any_bytes_for_cells_are_refused_or_stay_in_bounds(kind: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    outcomes = set()
    for turn in range(60):
        table = _save(kind, tmp_path / "table")
        cells = np.array(table.cells)
        places = rng.integers(0, 5, 2)
        bits = np.uint64(1) << rng.integers(0, 64, 2).astype(np.uint64)
        cells[places] ^= bits
        put_array(tmp_path / "table", "cells", cells)
        try:
            opened = kind.open(tmp_path / "table")
        except FileFormatError:
            outcomes.add("refused")
            continue
        outcomes.add("opened")
        drawn = opened.draw(200, row=turn)
        assert int(drawn.min()) >= 0
        assert int(drawn.max()) < len(COUNTS)
        assert opened.num_reachable == np.count_nonzero(opened.masses)
        if kind is CountClassTable:  # a threshold that decides nothing
            np.testing.assert_array_equal(opened.masses, table.masses)
    assert outcomes == {"refused", "opened"}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("kind", [AliasTable, CountClassTable])
def test_the_number_of_reachable_items_is_counted(kind: Any, verify: bool, tmp_path: Path) -> None:
    table = _save(kind, tmp_path / "table")
    set_fact(tmp_path / "table", "num_reachable", 10)
    assert kind.open(tmp_path / "table", verify=verify).num_reachable == 8 == table.num_reachable


@pytest.mark.parametrize("kind", [AliasTable, CountClassTable])
def test_a_changed_file_is_seen_unless_checksums_are_left_out(kind: Any, tmp_path: Path) -> None:
    table = _save(kind, tmp_path / "table")
    path = tmp_path / "table" / "cells.npy"
    content = bytearray(path.read_bytes())
    content[len(content) - 8 * len(table.cells) + 5] ^= 1  # of the first threshold
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"cells\.npy is damaged: its checksum is not"):
        kind.open(tmp_path / "table")
    with pytest.raises(FileFormatError, match=r"cells\.npy is damaged: its checksum is not"):
        PopularitySampler.open(tmp_path / "table")
    if kind is AliasTable:  # another table, and an honest one
        opened = kind.open(tmp_path / "table", verify=False)
        assert opened.fingerprint() != table.fingerprint()
        assert not pickle.loads(pickle.dumps(opened)).verify  # noqa: S301
        PopularitySampler.open(tmp_path / "table", verify=False).sample([-1], 5)


_OVERFLOW = """
import numpy as np, sys
from pathlib import Path
from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.interactions import Interactions
from fastneg.samplers.popularity import PopularitySampler
from tests.forging import set_fact
n, known = 40_000, 32_000
one = Interactions.from_codes([0], [0], num_users=1, num_items=n)
many = Interactions.from_codes(np.zeros(known, int), np.arange(known), num_users=1, num_items=n)
few = np.where(np.arange(n) <= known, 1.0, 0.0)
heavy = np.ones(n)
heavy[0] = 1e8
for turn, (weights, seen, said) in enumerate(((np.ones(n), many, known + 1), (heavy, one, 3))):
    folder = Path(sys.argv[1]) / str(turn)
    PopularitySampler(few, exponent=1.0, method="table").save(folder)
    other = (folder / "manifest.json").read_text()
    PopularitySampler(weights, exponent=1.0, method="table").save(folder)
    own = (folder / "manifest.json").read_text()
    for verify in (True, False):
        for manifest in (own, other):
            (folder / "manifest.json").write_text(manifest)
            if manifest is own:
                set_fact(folder, "num_reachable", said)
            try:
                opened = PopularitySampler.open(folder, interactions=seen, verify=verify)
            except FileFormatError as error:
                assert "its checksum is not" in str(error), error
                print("refused", flush=True)
                continue
            items = opened.sample(np.zeros(50, int), 40).items.numpy()
            assert not np.isin(items, seen.positives_of(0)).any()
            assert len(np.unique(items)) > 500
            print("drawn", flush=True)
"""


def test_no_buffer_is_sized_by_what_a_file_says(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OVERFLOW, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    # another table's manifest is found out by checksums, and without them it decides nothing
    assert ended.stdout.split() == ["drawn", "refused", "drawn", "drawn"] * 2


@pytest.mark.parametrize("method", ["table", "classes"])
def test_a_table_is_opened_for_its_own_items_only(method: str, tmp_path: Path) -> None:
    users, items = ["ann", "bob", "ann"], ["x", "y", "z"]
    seen = Interactions.from_pairs(users, items)
    PopularitySampler(seen, method=method).save(tmp_path / "table")
    same = Interactions.from_pairs(["cid"], ["y"], item_ids=items)
    codes = Interactions.from_codes([0], [1], num_items=3)  # whose ids nobody gave
    for known in (None, seen, same, codes):
        PopularitySampler.open(tmp_path / "table", interactions=known)
    other = Interactions.from_pairs(users, items[::-1])
    with pytest.raises(FastnegError, match=r"PopularitySampler\.open: .* have other item ids"):
        PopularitySampler.open(tmp_path / "table", interactions=other)
    PopularitySampler(codes, smoothing=1.0, method=method).save(tmp_path / "without")
    PopularitySampler.open(tmp_path / "without", interactions=other)
