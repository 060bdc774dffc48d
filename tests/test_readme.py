"""The README's examples run, one after the other, on a small file of clicks."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import fastneg

README = Path(__file__).resolve().parents[1] / "README.md"


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = np.array(["ann", "bob", *(f"user-{i}" for i in range(200))])
    users = np.concatenate([names, names[rng.integers(0, len(names), 8000)]])
    clicks = {"user": users, "item": rng.integers(0, 700, len(users))}
    parquet.write_table(pa.table(clicks), "clicks.parquet")
    found = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    first, stream, sampled, loss, mining, diagnosing = found

    names_of: dict[str, Any] = {}
    exec(first, names_of)  # noqa: S102
    seen = names_of["seen"]
    assert names_of["negatives"].items.shape == (2, 100)
    known = seen.positive_mask(names_of["users"], np.arange(seen.num_items))
    assert not torch.gather(known, 1, names_of["negatives"].items).any()

    of_loop = {**names_of, "example_numbers": [3, 4], "epoch": 2}
    exec(stream, of_loop, stream_names := {})  # noqa: S102
    assert stream_names["shared"].items.shape == (2048,)
    assert stream_names["known"].shape == (2, 2048)

    batch = {
        "users": seen.row_users[:64],
        "items": torch.from_numpy(seen.row_items[:64].copy()),
        "query_vectors": torch.randn(64, 8),
        "item_tower": torch.nn.Embedding(seen.num_items, 8),
        "negatives": names_of["popular"].sample(seen.row_users[:64], 10),
        "torch": torch,
    }
    exec(sampled, {**names_of, **batch}, loss_names := {})  # noqa: S102
    assert torch.isfinite(loss_names["loss"])
    exec(loss, {**names_of, **batch}, loss_names := {})  # noqa: S102
    assert torch.isfinite(loss_names["loss"])

    every = {
        "user_vectors": torch.randn(seen.num_users, 8),
        "item_vectors": torch.randn(seen.num_items, 8),
    }
    exec(mining, {**names_of, **every}, mined_names := {})  # noqa: S102
    assert mined_names["mined"].items.shape == (seen.num_users, 10)
    assert mined_names["hard"].sample([0, 1], 3).items.shape == (2, 3)

    validation = fastneg.Interactions.from_codes(
        np.arange(200), np.arange(200), num_users=seen.num_users, num_items=seen.num_items
    )
    drawn = find_spec("matplotlib") is not None
    if not drawn:  # it is optional
        diagnosing = diagnosing.replace('found.plot("window.png")', "")
    exec(diagnosing, {**names_of, **every, "validation": validation}, told := {})  # noqa: S102
    assert told["found"].num_held_out + told["found"].num_in_training == 200
    assert Path("window.png").is_file() == drawn
