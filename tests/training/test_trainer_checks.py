"""What a Trainer refuses before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fastneg
from fastneg.errors import FastnegError
from fastneg.training.trainer_checks import check_fit, check_paths

SEEN = fastneg.Interactions.from_codes([0, 0, 1, 1, 2], [0, 1, 1, 2, 0])


@pytest.mark.parametrize(
    ("argument", "value"),
    [("data", None), ("stage", 3), ("on_step", "x"), ("progress", "x"), ("hard", []), ("log", 5)],
)
def test_other_objects_are_refused(argument: str, value: object) -> None:
    model = fastneg.TwoTower(3, 3, dim=2)
    settings = fastneg.Settings(epochs=1, device="cpu")
    with pytest.raises(FastnegError, match=rf"^Trainer: {argument}"):
        fastneg.Trainer(model, SEEN, settings, **{argument: value})  # type: ignore[arg-type]


def test_paths_and_epochs() -> None:
    assert check_paths("f", log=None, checkpoint="a") == {"checkpoint": Path("a")}
    assert check_fit("f", None, False, None) == (None, False)
    assert check_fit("f", 3, 1, print) == (3, True)
    for wrong in ((0, False, None), (1.5, False, None), (1, "x", None), (1, False, "x")):
        with pytest.raises(FastnegError, match=r"^f: "):
            check_fit("f", *wrong)
